//! The exception path of ports whose NIC the kernel cannot use. A TAP device is the kernel's side
//! of such a port. Frames pass it unchanged.
//!
//! ```text
//! port ─► classify ─► neighbours, groups, unknown EtherTypes ─► policy ─► rate ─┬─► TAP
//!                  └► for the host ───────────────────────────► policy ─► rate ─┘
//! TAP ──► policy ─► port
//! ```
//!
//! Both kinds of traffic have their own rate, so that a flood to the host's address does not block
//! neighbours and routers.
//!
//! In neither direction may a frame pass in clear that policy wants protected. Policy does not
//! apply to neighbour discovery, which is local to the segment like ARP.

use super::{
    classify::{ip_format, is_neighbour_discovery},
    io::Io,
    kernel_side::Traffic,
    policy::{Action, Decision},
    policy_fragments::shows_ports,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Burst, Packet},
    sa::Flow,
    table::Reader,
    wire::{
        FormatError,
        ethernet::{self, Ethernet},
        ip::IpHeader,
    },
};

/// Sends frames from a TAP by `port`, whose kernel side the TAP is.
pub fn to_wire(burst: &mut Burst, port: u16, tables: &Tables, reader: &Reader, io: &mut Io) {
    for packet in burst.take(BURST) {
        match may_leave(packet.data(), tables, reader) {
            Ok(()) => io.send(packet, port),
            Err(reason) => io.drop(packet, reason),
        }
    }
}

/// Hands a whole frame, which the gateway would drop for `reason`, to the kernel if it is the
/// kernel's, else drops it.
#[cold]
pub fn refused(packet: Packet, reason: DropReason, tables: &Tables, reader: &Reader, io: &mut Io) {
    let is_kernels = matches!(reason, DropReason::Multicast | DropReason::UnknownEthertype);
    if !is_kernels || !io.has_kernel_side(packet.port()) {
        return io.drop(packet, reason);
    }
    match may_enter(packet.data(), tables, reader) {
        Ok(()) => io.to_kernel(packet, Traffic::Segment),
        Err(reason) => io.drop(packet, reason),
    }
}

/// Hands a packet for the host's own stack to the kernel in its whole frame. `padding` bytes were
/// cut off the frame's end.
pub fn host(mut packet: Packet, padding: u16, io: &mut Io) {
    let length = packet.len() + usize::from(padding);
    match packet.set_len(length).and_then(|()| packet.push_front(ethernet::HEADER)) {
        Some(()) => io.to_kernel(packet, Traffic::Host),
        None => io.drop(packet, DropReason::NoHeadroom),
    }
}

/// Checks that policy lets the kernel send `frame` in clear (RFC 4301 §5.1). Traffic without a
/// policy may leave.
fn may_leave(frame: &[u8], tables: &Tables, reader: &Reader) -> Result<(), DropReason> {
    let Some(flow) = flow(frame)? else { return Ok(()) };
    if tables.care_of(flow.dst, reader).is_some() {
        // Its terminal is not at home.
        return Err(DropReason::Unprotected);
    }
    match tables.decide(&flow, reader) {
        Decision::Rule(rule) => match rule.action {
            Action::Protect(_) | Action::Ended(_) => Err(DropReason::Unprotected),
            Action::Discard | Action::Guard => Err(DropReason::Discard),
            Action::Bypass => Ok(()),
        },
        Decision::Hidden(_) => Err(DropReason::FragmentPorts),
        Decision::None => Ok(()),
    }
}

/// Checks that `frame` may have come in clear (RFC 4301 §5.2).
fn may_enter(frame: &[u8], tables: &Tables, reader: &Reader) -> Result<(), DropReason> {
    match flow(frame)? {
        Some(flow) if tables.is_unprotected(&flow, None, reader) => Err(DropReason::Unprotected),
        _ => Ok(()),
    }
}

/// Returns the IP header and flow of a frame for policy; `None` if policy does not apply to it.
/// Looks through VLAN tags, because the kernel ignores a tag that names no VLAN.
fn flow(frame: &[u8]) -> Result<Option<Flow>, DropReason> {
    Ethernet::parse(frame).map_err(|_| DropReason::RuntFrame)?;
    let (ethertype, packet) = ethernet::untagged(frame).map_err(|why| match why {
        FormatError::Truncated => DropReason::RuntFrame,
        _ => DropReason::UnknownEthertype,
    })?;
    if !matches!(ethertype, ethernet::IPV4 | ethernet::IPV6) {
        return Ok(None);
    }
    let header = IpHeader::parse(packet).map_err(ip_format)?;
    if header.is_ipv4() != (ethertype == ethernet::IPV4) {
        return Err(DropReason::IpVersion);
    }
    shows_ports(&header, packet)?;
    Ok((!is_neighbour_discovery(&header, packet)).then(|| Flow::of(&header, packet)))
}
