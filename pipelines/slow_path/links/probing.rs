//! What a link with keys by hand knows of its search for the MTU of its path, by dummy packets that the
//! peer may answer.

use std::time::Duration;
use wayfarer_dataplane::{
    sa::{Overhead, Path},
    wire::{
        ip::{self, protocol},
        probe::{self, Probe},
    },
};
use wayfarer_mobility::{path_mtu::PacketsSent, path_prober::PathProber, rate::Rate};

/// Answers that a peer may have at once, and the time until one more. Its probes are a second apart.
const ANSWERS: u32 = 8;
const REFILL: Duration = Duration::from_millis(250);

/// The search of a link, and its answers to the peer's.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// The search by the present path, if there is one.
    pub(super) search: Option<Box<Search>>,
    /// True if the log has told that the peer does not answer.
    pub(super) has_told_silence: bool,
    answers: Rate,
}

/// The search by one path.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) prober: PathProber<Path>,
    /// When the timer expires that counts. Others may be pending still.
    pub(super) timer: Option<Duration>,
    /// The MTU that the log has told of last; `None` if that was the port's.
    pub(super) told_mtu: Option<u16>,
    /// Bytes of inner packets that were sent when the search was last due.
    sent: u64,
    /// Packets that were received then.
    received: u64,
}

impl Probing {
    /// Returns true if a probe of the peer may be answered.
    pub(super) fn admits_answer(&mut self, now: Duration) -> bool {
        self.answers.admits(now, ANSWERS, REFILL)
    }
}

impl Search {
    /// Begins with what `prober` knows. So many bytes were sent to the peer until now.
    pub(super) fn new(prober: PathProber<Path>, sent: u64) -> Self {
        Self { prober, timer: None, told_mtu: None, sent, received: 0 }
    }

    /// Returns what was sent since the last call. So many bytes were sent in all, and packets received.
    pub(super) fn take_traffic(&mut self, sent: u64, received: u64) -> PacketsSent {
        let before = std::mem::replace(&mut self.sent, sent);
        self.received = received;
        PacketsSent::of(sent.saturating_sub(before))
    }

    /// Returns true if packets of the peer have come since then. So many were received in all.
    pub(super) fn has_heard(&self, received: u64) -> bool {
        received > self.received
    }
}

/// Encodes a probe as an IP packet, of which only the payload goes through a tunnel. The outer packet by
/// `path`, to which its SA adds `overhead`, has `size` bytes then, or as near to that as a cipher's blocks
/// allow. Without a size, it is as short as can be.
pub(super) fn packet(probe: Probe, path: &Path, overhead: Overhead, size: Option<u16>) -> Vec<u8> {
    let room = size.map_or(0, |size| overhead.payload_limit(path.outer_len(), size.into()));
    let length = room.max(probe::LEN);
    let mut packet = vec![0; ip::V6_HEADER + length];
    let header = ip::emit(&mut packet, path.local, path.remote, protocol::NONE, length);
    packet.truncate(header + length);
    probe.emit(&mut packet[header..]);
    packet
}
