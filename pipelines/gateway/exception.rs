//! The exception path, of ports whose NIC the kernel does not have: a TAP device is the kernel's side of such a port. Frames
//! pass it whole and as they are.
//!
//! ```text
//! port ─► classify ─► neighbours, groups, unknown EtherTypes ─► policy ─► rate ─┬─► TAP
//!                  └► for the host ───────────────────────────► policy ─► rate ─┘
//! TAP ──► policy ─► port
//! ```
//!
//! Each of the two has the rate for itself: who floods the host's address does not keep neighbours and routers from it.
//!
//! Neither way does a frame pass in clear what policy wants protected. What finds neighbours is link business, as ARP is:
//! policy does not speak of it.

use super::{
    classify::{is_neighbour_discovery, malformed_ip},
    io::Io,
    policy::{Action, Verdict},
    tables::Tables,
};
use std::time::{Duration, Instant};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Burst, Packet},
    sa::Flow,
    table::Reader,
    wire::{
        Malformed,
        ethernet::{self, Ethernet},
        ip::IpHeader,
    },
};

/// Smallest depth of a bucket, in frames.
const DEPTH: u32 = 32;

/// What one worker knows of a port's part in it.
#[derive(Debug)]
pub enum Role {
    /// None.
    Plain,
    /// It has a kernel side.
    Nic {
        /// Index of the TAP's port.
        tap: u16,
        /// What may go there of each kind.
        limits: [Limit; KINDS],
    },
    /// It is the kernel side of the port with this index.
    Tap(u16),
}

/// Kinds of [`Traffic`].
pub const KINDS: usize = 2;

/// What goes to the kernel, by what the rate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// What keeps the link going: neighbours, groups, unknown EtherTypes.
    Link,
    /// Packets for the host's own stack.
    Host,
}

/// A token bucket that asks for the time only when it is empty. It holds a tenth of a second's worth; at a time twice as
/// much may pass, for it fills up when it is asked for more.
#[derive(Debug)]
pub struct Limit {
    /// Between two frames.
    interval: Duration,
    depth: u32,
    left: u32,
    filled: Instant,
}

impl Limit {
    /// A full bucket for one of `workers`, of `rate` frames a second for all of them.
    pub fn new(rate: u32, workers: usize, now: Instant) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let share = (rate / workers).max(1);
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(share)));
        let depth = (share / 10).max(DEPTH);
        Self { interval, depth, left: depth, filled: now }
    }

    /// Whether another frame may pass.
    pub fn admits(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            self.fill(now());
        }
        let admitted = self.left > 0;
        self.left -= u32::from(admitted);
        admitted
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled);
        let frames = since.as_nanos() / self.interval.as_nanos();
        match u32::try_from(frames).ok().filter(|frames| *frames <= self.depth) {
            // What is less than a frame's worth is kept for the next time.
            Some(frames) => (self.left, self.filled) = (frames, self.filled + self.interval * frames),
            None => (self.left, self.filled) = (self.depth, now),
        }
    }
}

/// Sends what came from a TAP out of `port`, whose kernel side it is.
pub fn to_wire(burst: &mut Burst, port: u16, tables: &Tables, reader: &Reader, io: &mut Io) {
    for packet in burst.take(BURST) {
        match may_leave(packet.data(), tables, reader) {
            Ok(()) => io.send(packet, port),
            Err(reason) => io.drop(packet, reason),
        }
    }
}

/// Hands a whole frame, which the gateway would drop for `reason`, to the kernel where that is what it is for.
#[cold]
pub fn refused(packet: Packet, reason: DropReason, tables: &Tables, reader: &Reader, io: &mut Io) {
    let is_kernels = matches!(reason, DropReason::Multicast | DropReason::UnknownEthertype);
    if !is_kernels || !io.has_kernel_side(packet.port()) {
        return io.drop(packet, reason);
    }
    match may_enter(packet.data(), tables, reader) {
        Ok(()) => io.to_kernel(packet, Traffic::Link),
        Err(reason) => io.drop(packet, reason),
    }
}

/// Hands a packet for the host's own stack to the kernel in its whole frame, of which `padding` bytes were cut off the end.
pub fn host(mut packet: Packet, padding: u16, io: &mut Io) {
    let length = packet.len() + usize::from(padding);
    match packet.set_len(length).and_then(|()| packet.push_front(ethernet::HEADER)) {
        Some(()) => io.to_kernel(packet, Traffic::Host),
        None => io.drop(packet, DropReason::NoHeadroom),
    }
}

/// Whether policy lets the kernel send `frame` in clear (RFC 4301 §5.1). What it does not speak of may leave.
fn may_leave(frame: &[u8], tables: &Tables, reader: &Reader) -> Result<(), DropReason> {
    let Some(flow) = flow(frame)? else { return Ok(()) };
    match tables.verdict(&flow, reader) {
        Verdict::Rule(rule) => match rule.action {
            Action::Protect(_) | Action::Ended(_) => Err(DropReason::Unprotected),
            Action::Discard | Action::Guard => Err(DropReason::Discard),
            Action::Bypass => Ok(()),
        },
        Verdict::Hidden(_) => Err(DropReason::FragmentPorts),
        Verdict::None => Ok(()),
    }
}

/// Whether `frame` may have come in clear (RFC 4301 §5.2).
fn may_enter(frame: &[u8], tables: &Tables, reader: &Reader) -> Result<(), DropReason> {
    match flow(frame)? {
        Some(flow) if tables.is_unprotected(&flow, None, reader) => Err(DropReason::Unprotected),
        _ => Ok(()),
    }
}

/// What policy must know of a frame; `None` where it has no say in it. An IP packet behind VLAN tags is one too: the kernel
/// takes a tag that names no VLAN for none.
fn flow(frame: &[u8]) -> Result<Option<Flow>, DropReason> {
    Ethernet::parse(frame).map_err(|_| DropReason::RuntFrame)?;
    let (ethertype, packet) = ethernet::untagged(frame).map_err(|why| match why {
        Malformed::Truncated => DropReason::RuntFrame,
        _ => DropReason::UnknownEthertype,
    })?;
    if !matches!(ethertype, ethernet::IPV4 | ethernet::IPV6) {
        return Ok(None);
    }
    let header = IpHeader::parse(packet).map_err(malformed_ip)?;
    if header.is_ipv4() != (ethertype == ethernet::IPV4) {
        return Err(DropReason::IpVersion);
    }
    Ok((!is_neighbour_discovery(&header, packet)).then(|| Flow::of(&header, packet)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_tenth_of_a_second_and_fills_at_its_rate() {
        let start = Instant::now();
        let mut limit = Limit::new(2000, 2, start);
        let mut admitted = |ms| {
            let now = start + Duration::from_millis(ms);
            (0..1000).filter(|_| limit.admits(|| now)).count()
        };
        assert_eq!(admitted(0), 100);
        assert_eq!(admitted(0), 0);
        assert_eq!(admitted(10), 10);
        assert_eq!(admitted(9), 0, "a clock that steps back gives nothing");
        assert_eq!((11..20).map(&mut admitted).sum::<usize>(), 9);
        assert_eq!(admitted(60_000), 100, "what nobody wanted is gone");
    }

    #[test]
    fn the_time_is_asked_for_only_by_an_empty_bucket() {
        let mut limit = Limit::new(0, 0, Instant::now());
        assert!((0..DEPTH).all(|_| limit.admits(|| panic!("there was one left"))));
        // A share is never nothing, nor so small that its fractions get lost.
        let start = limit.filled;
        let steps = (1..=3000).filter(|ms| limit.admits(|| start + Duration::from_millis(*ms)));
        assert_eq!(steps.count(), 3);
    }

    #[test]
    fn no_rate_is_too_high() {
        let start = Instant::now();
        let mut limit = Limit::new(u32::MAX, 1, start);
        limit.left = 0;
        limit.filled = start;
        assert!(limit.admits(|| start + Duration::from_secs(1 << 40)));
        assert_eq!(limit.left, u32::MAX / 10 - 1);
    }
}
