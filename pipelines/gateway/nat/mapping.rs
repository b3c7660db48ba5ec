//! One mapping of an inner address and port to a port outside.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use wayfarer_dataplane::wire::{
    Address,
    ip::protocol,
    tcp::{ACK, FIN, PSH, RST, SYN},
};

// What a mapping has seen, most of it of its TCP connections.
/// A packet from outside.
const ANSWERED: u8 = 0x01;
/// The end of a handshake.
const OPEN: u8 = 0x02;
/// The last data from inside.
const ENDED_INSIDE: u8 = 0x04;
/// The last data from outside.
const ENDED_OUTSIDE: u8 = 0x08;
const RESET: u8 = 0x10;
const ENDED: u8 = ENDED_INSIDE | ENDED_OUTSIDE;

/// How long after a FIN the inside may still acknowledge the end of that connection, in seconds. A sender
/// that lacks the acknowledgement repeats its FIN, and the time begins anew.
const LAST_ACK: u32 = 5;
/// The idle time in seconds for which each mapping of UDP must live (RFC 4787 REQ-5).
const LEAST_UDP: u32 = 120;

/// A mapping. Workers note their packets on it, and the slow path removes it after it was idle.
#[derive(Debug)]
pub struct Mapping {
    /// Index of the NAT.
    pub nat: u8,
    /// TCP, UDP or ICMP.
    pub protocol: u8,
    /// The inner address.
    pub inside: Address,
    /// The inner port, or the identifier of ICMP queries.
    pub inside_port: u16,
    /// The port, or identifier, outside.
    pub outside_port: u16,
    /// The time of the last packet from inside, in seconds by the NAT's clock.
    used: AtomicU32,
    /// The time of the last FIN of either side, in seconds by the NAT's clock.
    fin: AtomicU32,
    seen: AtomicU8,
}

impl Mapping {
    /// Makes a mapping that was used now.
    pub fn new(
        nat: u8,
        protocol: u8,
        (inside, inside_port): (Address, u16),
        outside_port: u16,
        now: u32,
    ) -> Self {
        let (used, fin, seen) = (AtomicU32::new(now), AtomicU32::new(0), AtomicU8::new(0));
        Self { nat, protocol, inside, inside_port, outside_port, used, fin, seen }
    }

    /// Notes a packet from inside, with TCP's `flags`. Only such packets keep a mapping in use (RFC
    /// 4787 §4.3), so that nobody outside can.
    #[inline]
    pub fn sent(&self, now: u32, flags: u8) {
        if self.used.load(Relaxed) != now {
            self.used.store(now, Relaxed);
        }
        if self.protocol == protocol::TCP {
            self.note(now, flags, |seen| match (flags & (SYN | FIN | RST), seen) {
                (SYN, seen) if is_over(seen) => 0,
                (0, seen) if flags & ACK != 0 && seen & ANSWERED != 0 => {
                    let over = if self.shows_another(now, flags, seen) { RESET | ENDED } else { RESET };
                    (seen | OPEN) & !over
                }
                (ends, seen) => seen | ended(ends, ENDED_INSIDE),
            });
        }
    }

    /// Notes a packet from outside, with TCP's `flags`; other protocols have none.
    #[inline]
    pub fn received(&self, now: u32, flags: u8) {
        self.note(now, flags, |seen| seen | ANSWERED | ended(flags, ENDED_OUTSIDE));
    }

    /// Returns whether both sides have ended a connection so long ago that a segment from inside with these
    /// flags, but without SYN, FIN and RST, shows another one by this mapping, which must stay (RFC 5382
    /// REQ-5). It has data: an acknowledgement alone may be one of TIME-WAIT, which old segments cause.
    #[inline]
    fn shows_another(&self, now: u32, flags: u8, seen: u8) -> bool {
        flags & PSH != 0 && seen & ENDED == ENDED && now.saturating_sub(self.fin.load(Relaxed)) > LAST_ACK
    }

    /// Changes what is noted by a packet with these flags of TCP. Workers may overwrite each other's
    /// changes, which costs a longer or shorter life at most.
    #[inline]
    fn note(&self, now: u32, flags: u8, change: impl Fn(u8) -> u8) {
        if flags & FIN != 0 {
            self.fin.store(now, Relaxed);
        }
        let seen = self.seen.load(Relaxed);
        let new = change(seen);
        if new != seen {
            self.seen.store(new, Relaxed);
        }
    }

    /// Returns the time of the last packet from inside, in seconds by the NAT's clock.
    pub fn last_used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Returns whether it is for a TCP connection that was opened and has not ended: by FIN from both
    /// sides, or RST (RFC 5382 §5). An RST may be forged, so another segment from inside undoes it (RFC
    /// 7857 §2.2). So does one with data some seconds after both FINs, because it is of another connection
    /// from the same port.
    pub fn is_established(&self) -> bool {
        let seen = self.seen.load(Relaxed);
        seen & OPEN != 0 && !is_over(seen)
    }

    /// Returns whether its inner address can spare it for another one: its TCP connection is over, or its
    /// UDP was never answered. It was idle for so long that no last acknowledgement follows, that whatever
    /// undoes a forged RST has come, or that a mapping of UDP may end.
    pub fn is_spare(&self, now: u32) -> bool {
        let (seen, idle) = (self.seen.load(Relaxed), now.saturating_sub(self.last_used()));
        match self.protocol {
            protocol::TCP => is_over(seen) && idle > LAST_ACK,
            protocol::UDP => seen & ANSWERED == 0 && idle > LEAST_UDP,
            _ => false,
        }
    }
}

fn is_over(seen: u8) -> bool {
    seen & RESET != 0 || seen & ENDED == ENDED
}

/// Returns what a segment with these flags ends, if its FIN means `by_fin`.
fn ended(flags: u8, by_fin: u8) -> u8 {
    let reset = if flags & RST != 0 { RESET } else { 0 };
    reset | if flags & FIN != 0 { by_fin } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN: bool = true;
    const OUT: bool = false;

    /// Returns whether a mapping is established after these segments.
    fn after(segments: &[(bool, u8)]) -> bool {
        let mapping = Mapping::new(0, protocol::TCP, (Address::v4(1), 2), 3, 0);
        for &(is_inward, flags) in segments {
            if is_inward { mapping.received(0, flags) } else { mapping.sent(0, flags) }
        }
        mapping.is_established()
    }

    #[test]
    fn a_handshake_opens_and_both_ends_close() {
        let open = [(OUT, SYN), (IN, SYN | ACK), (OUT, ACK)];
        assert!(!after(&open[..1]) && !after(&open[..2]) && after(&open));
        let and = |more: &[(bool, u8)]| after(&[&open[..], more].concat());
        assert!(and(&[(OUT, FIN | ACK)]) && and(&[(IN, FIN | ACK), (OUT, ACK)]));
        let closed = [(OUT, FIN | ACK), (IN, FIN | ACK), (OUT, ACK)];
        assert!(!and(&closed), "the last acknowledgement opens nothing");
        assert!(!and(&[&closed[..], &open[..2]].concat()) && and(&[&closed[..], &open[..]].concat()));
    }

    #[test]
    fn a_forged_reset_is_undone_by_the_next_segment_from_inside() {
        let open = [(OUT, SYN), (IN, SYN | ACK), (OUT, ACK), (IN, RST)];
        assert!(!after(&open));
        assert!(after(&[&open[..], &[(OUT, ACK)]].concat()));
        assert!(!after(&[&open[..], &[(IN, ACK)]].concat()), "nobody outside undoes it");
    }

    #[test]
    fn nobody_outside_opens_a_mapping_or_keeps_it_in_use() {
        assert!(!after(&[(OUT, SYN), (IN, ACK), (IN, ACK)]));
        assert!(!after(&[(OUT, ACK), (OUT, ACK)]), "nor the inside alone");
        let mapping = Mapping::new(0, protocol::UDP, (Address::v4(1), 2), 3, 7);
        mapping.received(9, 0);
        assert_eq!(mapping.last_used(), 7);
        mapping.sent(9, 0);
        assert_eq!((mapping.last_used(), mapping.is_established()), (9, false));
    }

    #[test]
    fn what_is_over_or_was_never_answered_is_spare_after_a_while() {
        let made = |protocol| Mapping::new(0, protocol, (Address::v4(1), 2), 3, 100);
        let spare = |mapping: &Mapping, at: [u32; 2]| at.map(|now| mapping.is_spare(now));
        let tcp = made(protocol::TCP);
        assert!(!tcp.is_spare(7000), "half-open");
        tcp.sent(100, SYN);
        tcp.received(100, SYN | ACK);
        tcp.sent(100, ACK);
        tcp.received(100, FIN | ACK);
        assert!(!tcp.is_spare(7000), "half-closed");
        tcp.sent(200, FIN | ACK);
        assert_eq!(spare(&tcp, [205, 206]), [false, true]);
        tcp.sent(206, ACK);
        assert_eq!(spare(&tcp, [206, 212]), [false, true], "something followed");
        tcp.sent(300, SYN);
        assert!(!tcp.is_spare(400), "the next connection");
        tcp.received(400, RST | ACK);
        assert_eq!(spare(&tcp, [305, 306]), [false, true]);
        let udp = made(protocol::UDP);
        assert_eq!(spare(&udp, [220, 221]), [false, true]);
        udp.sent(200, 0);
        assert_eq!(spare(&udp, [320, 321]), [false, true]);
        udp.received(201, 0);
        assert!(!udp.is_spare(7000) && !made(protocol::ICMP).is_spare(7000));
    }

    /// Two connections from one port to two servers.
    #[test]
    fn end_of_one_connection_leaves_the_other_established_once_it_is_used() {
        let mapping = Mapping::new(0, protocol::TCP, (Address::v4(1), 2), 3, 100);
        mapping.sent(100, SYN);
        mapping.received(100, SYN | ACK);
        mapping.sent(100, ACK);
        let sent = |now, flags| {
            mapping.sent(now, flags);
            mapping.is_established()
        };
        assert!(sent(200, FIN | ACK));
        mapping.received(210, FIN | ACK);
        assert!(!sent(210, ACK), "the last acknowledgement");
        mapping.received(214, FIN | ACK);
        assert!(!sent(214, ACK) && !sent(219, ACK), "again, because the first was lost");
        mapping.received(300, ACK);
        assert!(!mapping.is_established(), "nobody outside shows another connection");
        assert!(!sent(300, RST), "nor does the end of it");
        assert!(!sent(300, ACK), "nor what the first one still acknowledges");
        assert!(sent(300, ACK | PSH) && sent(301, ACK), "the other connection");
        // Whose end counts as the first one's did.
        mapping.received(400, FIN | ACK);
        assert!(!sent(400, FIN | ACK) && !sent(402, ACK));
    }
}
