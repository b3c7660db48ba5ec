//! The header that the kernel puts before a frame, about the work that its sender left to hardware:
//! the rest of a checksum, and cutting (linux/virtio_net.h; VIRTIO 1.3 §5.1.6).

use super::link_layer::LinkLayer;
use crate::wire::{
    checksum,
    ip::{Fragment, IpHeader, protocol},
    sctp,
};

/// Its length in bytes.
pub(super) const LEN: usize = 10;

/// The flag of a frame whose checksum must be completed.
const NEEDS_CSUM: u8 = 1;
/// The type of a frame that stands for one packet.
const NONE: u8 = 0;
/// The bit of the type that says that a TCP sender tells of congestion (CWR, RFC 3168 §6.1.2).
const ECN: u8 = 0x80;

/// The reason why a received frame is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Longer than a frame of the pool.
    Oversize,
    /// Not consistent in itself.
    Broken,
}

/// The packets that a joined frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// TCP segments over IPv4.
    TcpV4 = 1,
    /// TCP segments over IPv6.
    TcpV6 = 4,
    /// UDP datagrams, each with a header of its own.
    Udp = 5,
}

/// A header as the kernel wrote it, in the byte order of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VnetHeader(pub(super) [u8; LEN]);

impl VnetHeader {
    /// Returns whether the frame stands for one packet.
    #[inline]
    pub(super) fn is_single(&self) -> bool {
        self.0[1] == NONE
    }

    /// Returns the kind of the packets that a joined frame stands for, and the payload of each but the
    /// last in bytes. `None` if the kind is not known.
    pub(super) fn joined(&self) -> Option<(Joined, usize)> {
        let kind = [Joined::TcpV4, Joined::TcpV6, Joined::Udp];
        let kind = kind.into_iter().find(|kind| *kind as u8 == self.0[1] & !ECN)?;
        Some((kind, self.field(4)))
    }

    /// Completes the checksum of `frame`, of a device with this `link` layer, if its sender left that to
    /// its hardware.
    ///
    /// # Errors
    /// `Broken` if the checksum lies outside the frame.
    #[inline]
    pub(super) fn complete_checksum(&self, frame: &mut [u8], link: LinkLayer) -> Result<(), Unusable> {
        if self.0[0] & NEEDS_CSUM == 0 {
            return Ok(());
        }
        let (start, offset) = (self.field(6), self.field(8));
        if offset == sctp::CHECKSUM
            && let Some(packet) = sctp_at(frame, start, link)
        {
            sctp::set_checksum(packet);
            return Ok(());
        }
        complete(frame, start, offset).ok_or(Unusable::Broken)
    }

    fn field(&self, at: usize) -> usize {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]]).into()
    }
}

/// Returns the SCTP packet at `start` of `frame`, without padding behind it. `None` if there is none. Its
/// sender leaves a CRC32c to the hardware, and the header has no flag that says so.
#[cold]
fn sctp_at(frame: &mut [u8], start: usize, link: LinkLayer) -> Option<&mut [u8]> {
    let packet = link.packet(frame)?;
    let at = frame.len() - packet.len();
    let header = IpHeader::parse(packet).ok()?;
    let is_it = header.protocol == protocol::SCTP
        && header.fragment == Fragment::Whole
        && at + header.header_len() == start
        && header.payload(packet).len() >= sctp::HEADER;
    frame.get_mut(start..at + header.total_len()).filter(|_| is_it)
}

/// Completes a checksum (RFC 1071) that covers `frame[start..]`. Its field at `start + offset`
/// holds the sum of the pseudo-header.
fn complete(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = frame.get_mut(start..)?;
    let checksum = never_zero(checksum::of(covered));
    covered.get_mut(offset..offset + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Returns `checksum` in the form that UDP needs: zero would mean that there is none (RFC 768). For
/// TCP both forms are the same number.
pub(super) fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip;
    use std::net::IpAddr;

    #[test]
    fn a_partial_checksum_is_completed() {
        // RFC 1071 §3: the sum of these is ddf2.
        let mut frame = [9, 9, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0];
        complete(&mut frame, 2, 8).unwrap();
        assert_eq!(frame[10..], (!0xddf2u16).to_be_bytes());
        let mut odd = [0xff, 0xff, 0x00, 0x00, 0x01];
        complete(&mut odd, 0, 2).unwrap();
        assert_eq!(odd[2..4], (!0x0100u16).to_be_bytes());
        let mut never_zero = [0xff, 0xff, 0x00, 0x00];
        complete(&mut never_zero, 0, 2).unwrap();
        assert_eq!(never_zero[2..], [0xff, 0xff]);
    }

    /// Returns the header of a frame whose checksum at `start + offset` is not complete.
    fn unfinished(start: usize, offset: usize) -> VnetHeader {
        let [[a, b], [c, d]] = [start, offset].map(|at| (at as u16).to_ne_bytes());
        VnetHeader([NEEDS_CSUM, NONE, 0, 0, 0, 0, a, b, c, d])
    }

    /// Returns the offset of the payload in an IP packet of this protocol that carries `bytes`, and the
    /// packet with some padding.
    fn padded(family: &str, protocol: u8, bytes: &[u8]) -> (usize, Vec<u8>) {
        let address: IpAddr = family.parse().unwrap();
        let mut packet = vec![0; ip::V6_HEADER];
        let at = ip::emit(&mut packet, address, address, protocol, bytes.len());
        packet.truncate(at);
        (at, [&packet[..], bytes, &[0; 6]].concat())
    }

    /// A COOKIE ACK of SCTP (RFC 9260 §3.3.12), and its checksum.
    const COOKIE_ACK: [u8; 16] = [0x13, 0x88, 0x96, 0x0c, 1, 2, 3, 4, 0, 0, 0, 0, 11, 0, 0, 4];
    const SUM: [u8; 4] = [0x87, 0x00, 0xc8, 0xe5];

    #[test]
    fn sctp_gets_a_crc32c_whatever_comes_before_and_behind() {
        let (tag, addresses) = ([0x81u8, 0, 0, 7], [2u8; 12]);
        for (family, ethertype) in [("192.0.2.1", [8u8, 0]), ("2001:db8::1", [0x86, 0xdd])] {
            let (header, packet) = padded(family, protocol::SCTP, &COOKIE_ACK);
            for (link, before) in [
                (LinkLayer::Ip, vec![]),
                (LinkLayer::Ethernet, [&addresses[..], &ethertype].concat()),
                (LinkLayer::Ethernet, [&addresses[..], &tag, &ethertype].concat()),
            ] {
                let mut frame = [&before[..], &packet].concat();
                let (mut expected, start) = (frame.clone(), before.len() + header);
                expected[start + 8..start + 12].copy_from_slice(&SUM);
                assert_eq!(unfinished(start, 8).complete_checksum(&mut frame, link), Ok(()));
                assert_eq!(frame, expected, "{family} {link:?}");
            }
        }
    }

    #[test]
    fn what_is_not_sctp_gets_the_checksum_of_the_internet() {
        // Another protocol, a header that is cut short, and sums that are not SCTP's.
        for (number, length, start, offset) in [
            (17, 16, 20, 8),
            (protocol::SCTP, 11, 20, 8),
            (protocol::SCTP, 16, 24, 8),
            (protocol::SCTP, 16, 20, 6),
        ] {
            let (_, mut frame) = padded("192.0.2.1", number, &COOKIE_ACK[..length]);
            let mut expected = frame.clone();
            complete(&mut expected, start, offset).unwrap();
            unfinished(start, offset).complete_checksum(&mut frame, LinkLayer::Ip).unwrap();
            assert_eq!(frame, expected, "{number} {length} {start} {offset}");
        }
        let (_, mut frame) = padded("192.0.2.1", protocol::SCTP, &COOKIE_ACK);
        let outside = unfinished(frame.len(), 8).complete_checksum(&mut frame, LinkLayer::Ip);
        assert_eq!(outside, Err(Unusable::Broken));
    }

    #[test]
    fn a_checksum_outside_the_frame_is_refused() {
        for (start, offset) in [(5, 0), (4, 0), (0, 3), (65_535, 65_535)] {
            assert!(complete(&mut [0; 4], start, offset).is_none(), "{start} {offset}");
        }
    }

    #[test]
    fn every_kind_of_joined_frame_is_known_and_no_other() {
        let of = |kind: u8| {
            let [low, high] = 1448u16.to_ne_bytes();
            VnetHeader([0, kind, 0, 0, low, high, 0, 0, 0, 0]).joined()
        };
        assert_eq!(of(1), Some((Joined::TcpV4, 1448)));
        assert_eq!(of(0x81), Some((Joined::TcpV4, 1448)));
        assert_eq!(of(4), Some((Joined::TcpV6, 1448)));
        assert_eq!(of(5), Some((Joined::Udp, 1448)));
        // 3 cuts a UDP datagram into IP fragments, which the kernel no longer does.
        assert_eq!([2, 3, 6, 0x20, 0x40].map(of), [None; 5]);
    }
}
