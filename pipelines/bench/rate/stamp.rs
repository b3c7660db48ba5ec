//! What tells frames apart: a signature, the stream, the trial, the number in the stream, and the time
//! of sending. It is at the start of a UDP payload.

use std::{
    process,
    time::{SystemTime, UNIX_EPOCH},
};
use wayfarer_dataplane::wire::{
    ip::{V6_HEADER, protocol},
    udp,
};

/// Bytes of a stamp. The shortest frame of Ethernet has room for exactly so many behind the headers
/// of IPv4 and UDP.
pub(super) const LEN: usize = 18;

/// The offsets of the fields.
const SIGNATURE: usize = 0;
const STREAM: usize = 4;
const TRIAL: usize = 5;
const NUMBER: usize = 7;
const TIME: usize = 12;

/// Times count modulo this: more than three days of nanoseconds.
const TIMES: u64 = 1 << (8 * (LEN - TIME));

/// Tells the frames of one run from those of any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature(pub(super) u32);

impl Signature {
    /// Makes the signature of a run: two that run at once have different ones.
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(now.subsec_nanos() ^ (now.as_secs() as u32).rotate_left(8) ^ process::id().rotate_left(20))
    }
}

/// The content of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The index of the stream.
    pub(super) stream: u8,
    /// The number of the trial.
    pub(super) trial: u16,
    /// The number of the frame in its stream, below 2^40.
    pub(super) number: u64,
    /// When it was sent, in nanoseconds, modulo 2^48.
    pub(super) time: u64,
}

impl Stamp {
    /// Returns the bytes of the stamp.
    pub(super) fn emit(&self, signature: Signature) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[SIGNATURE..STREAM].copy_from_slice(&signature.0.to_be_bytes());
        bytes[STREAM] = self.stream;
        bytes[TRIAL..NUMBER].copy_from_slice(&self.trial.to_be_bytes());
        bytes[NUMBER..TIME].copy_from_slice(&self.number.to_be_bytes()[8 - (TIME - NUMBER)..]);
        bytes[TIME..].copy_from_slice(&self.time.to_be_bytes()[8 - (LEN - TIME)..]);
        bytes
    }

    /// Reads a stamp; returns `None` if it has another signature.
    fn parse(bytes: &[u8; LEN], signature: Signature) -> Option<Self> {
        if bytes[SIGNATURE..STREAM] != signature.0.to_be_bytes() {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(Self {
            stream: bytes[STREAM],
            trial: number(&bytes[TRIAL..NUMBER]) as u16,
            number: number(&bytes[NUMBER..TIME]),
            time: number(&bytes[TIME..]),
        })
    }

    /// Finds the stamp of an IP packet; returns `None` if it is no packet of this run. The packet is
    /// not checked any further: the signature proves enough.
    pub(super) fn find(packet: &[u8], signature: Signature) -> Option<Self> {
        let first = *packet.first()?;
        let (header, at) = match first >> 4 {
            4 => (usize::from(first & 0xf) * 4, 9),
            6 => (V6_HEADER, 6),
            _ => return None,
        };
        if *packet.get(at)? != protocol::UDP {
            return None;
        }
        Self::parse(packet.get(header + udp::HEADER..)?.first_chunk()?, signature)
    }
}

/// Returns how many nanoseconds passed from `then` to `now`, of which the former is from a stamp.
pub(super) fn since(now: u64, then: u64) -> u64 {
    now.wrapping_sub(then) % TIMES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::frames::datagram;

    #[test]
    fn packets_of_both_families_show_their_stamp_and_no_others_do() {
        let signature = Signature(0x5761_7966);
        let stamp = Stamp { stream: 200, trial: 0xfedc, number: (1 << 40) - 2, time: (1 << 48) - 3 };
        let bytes = stamp.emit(signature);
        for (src, dst) in [("198.18.0.1", "198.19.0.1"), ("2001:2::1", "2001:2:0:8000::1")] {
            let packet = datagram(src, dst, (4000, 9), &[&bytes[..], &[0; 30]].concat());
            assert_eq!(Stamp::find(&packet, signature), Some(stamp));
            assert_eq!(Stamp::find(&packet, Signature(0x5761_7967)), None);
            let end = packet.len() - 30;
            assert_eq!(Stamp::find(&packet[..end], signature), Some(stamp));
            for end in 0..end {
                assert_eq!(Stamp::find(&packet[..end], signature), None, "{end}");
            }
            let mut tcp = packet.clone();
            tcp[if src.contains(':') { 6 } else { 9 }] = protocol::TCP;
            assert_eq!(Stamp::find(&tcp, signature), None);
        }
    }

    #[test]
    fn latencies_are_right_beyond_the_largest_time() {
        let sent = |time| Stamp { stream: 0, trial: 1, number: 2, time }.emit(Signature(3));
        for (then, now, expected) in
            [(7, 19, 12), (TIMES - 5, TIMES + 7, 12), (3 * TIMES + 1, 3 * TIMES + 9, 8)]
        {
            let stamp = Stamp::parse(&sent(then), Signature(3)).unwrap();
            assert_eq!(since(now, stamp.time), expected);
        }
    }
}
