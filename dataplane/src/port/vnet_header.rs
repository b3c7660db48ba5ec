//! The header that the kernel puts before a frame, about the work that its sender left to hardware:
//! the rest of a checksum, and cutting (linux/virtio_net.h; VIRTIO 1.3 §5.1.6).

use crate::wire::checksum;

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

    /// Completes the checksum of `frame` if its sender left that to its hardware.
    ///
    /// # Errors
    /// `Broken` if the checksum lies outside the frame.
    #[inline]
    pub(super) fn complete_checksum(&self, frame: &mut [u8]) -> Result<(), Unusable> {
        if self.0[0] & NEEDS_CSUM == 0 {
            return Ok(());
        }
        complete(frame, self.field(6), self.field(8)).ok_or(Unusable::Broken)
    }

    fn field(&self, at: usize) -> usize {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]]).into()
    }
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
