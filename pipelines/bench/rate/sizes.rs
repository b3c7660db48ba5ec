//! The sizes of frames, with their check sequence.

use super::{error::RateError, options::Size, stamp};
use wayfarer_dataplane::wire::{ethernet, ip, udp};

/// Bytes of the frame check sequence, which follows the packet on the wire.
pub(super) const FCS: usize = 4;
/// Bytes of a frame beside its IP packet.
pub(super) const AROUND: usize = ethernet::HEADER + FCS;

/// The usual sizes for IPv4 (RFC 2544 §9.1).
const V4: [u16; 7] = [64, 128, 256, 512, 1024, 1280, 1518];
/// The usual sizes for IPv6 (RFC 5180 §5.1.1), without the one for frames with a tag.
const V6: [u16; 11] = [64, 128, 256, 512, 1024, 1280, 1518, 2048, 4096, 8192, 9216];
/// The longest of them that is no jumbo frame.
const USUAL: u16 = 1518;

/// Sizes in the order of sending: 64, 594 and 1518 bytes as 7 : 4 : 1. Long frames are apart, so that
/// every part of the mix has about its share.
const IMIX: [u16; 12] = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 64, 594];

/// The sizes that frames of some traffic can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Room for the headers and a stamp.
    pub(super) shortest: u16,
    /// The largest packet that the devices carry, as it is in clear.
    pub(super) longest: u16,
}

impl Limits {
    /// Returns the limits for IP packets of up to `mtu` bytes.
    pub(super) fn new(ipv6: bool, mtu: usize) -> Self {
        let header = if ipv6 { ip::V6_HEADER } else { ip::V4_HEADER };
        let shortest = (AROUND + header + udp::HEADER + stamp::LEN) as u16;
        Self { shortest, longest: u16::try_from(AROUND + mtu).unwrap_or(u16::MAX) }
    }

    /// Returns the usual sizes. In place of those that are too short or too long it has the shortest
    /// and the longest size, but of jumbo frames only those that fit.
    pub(super) fn usual(&self, ipv6: bool) -> Vec<Size> {
        let all: &[u16] = if ipv6 { &V6 } else { &V4 };
        let fits = |size: &&u16| **size <= USUAL.max(self.longest);
        let mut sizes: Vec<_> = all.iter().filter(fits).map(|size| Size::Fixed(self.clamp(*size))).collect();
        sizes.dedup();
        sizes
    }

    /// Checks that frames can have this size. A mix is made to fit.
    ///
    /// # Errors
    /// [`RateError::Short`], [`RateError::Long`].
    pub(super) fn check(&self, size: Size) -> Result<(), RateError> {
        let Self { shortest, longest } = *self;
        match size {
            Size::Fixed(size) if size < shortest => Err(RateError::Short { size, shortest }),
            Size::Fixed(size) if size > longest => Err(RateError::Long { size, longest }),
            _ => Ok(()),
        }
    }

    /// Returns the lengths of IP packets in frames of this size, in the order of sending.
    pub(super) fn packets(&self, size: Size) -> Vec<usize> {
        match size {
            Size::Fixed(size) => vec![usize::from(size) - AROUND],
            Size::Imix => IMIX.iter().map(|size| usize::from(self.clamp(*size)) - AROUND).collect(),
            // A capture brings its own packets.
            Size::Capture => Vec::new(),
        }
    }

    fn clamp(&self, size: u16) -> u16 {
        size.min(self.longest).max(self.shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(ipv6: bool, mtu: usize) -> Vec<u16> {
        let size = |size| match size {
            Size::Fixed(size) => size,
            other => panic!("{other}"),
        };
        Limits::new(ipv6, mtu).usual(ipv6).into_iter().map(size).collect()
    }

    #[test]
    fn usual_sizes_are_those_of_the_rfcs_as_far_as_they_fit() {
        assert_eq!(usual(false, 1500), V4);
        assert_eq!(usual(false, 9000), V4);
        // 42 bytes less than 1500, as behind ESP.
        assert_eq!(usual(false, 1458), [64, 128, 256, 512, 1024, 1280, 1476]);
        assert_eq!(usual(false, 1280), [64, 128, 256, 512, 1024, 1280, 1298]);
        assert_eq!(usual(true, 1500), [84, 128, 256, 512, 1024, 1280, 1518]);
        assert_eq!(usual(true, 9000), [84, 128, 256, 512, 1024, 1280, 1518, 2048, 4096, 8192]);
        assert_eq!(usual(true, 1262), [84, 128, 256, 512, 1024, 1280]);
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused_and_mixes_are_made_to_fit() {
        let v4 = Limits::new(false, 1500);
        assert_eq!((v4.shortest, v4.longest), (64, 1518));
        assert!(v4.check(Size::Fixed(64)).is_ok() && v4.check(Size::Fixed(1518)).is_ok());
        let v6 = Limits::new(true, 1280);
        let message = |size| v6.check(Size::Fixed(size)).unwrap_err().to_string();
        assert_eq!(message(83), "frames of 83 bytes have no room for their stamp: at least 84 bytes");
        assert_eq!(message(1299), "frames of 1299 bytes do not fit the MTU: at most 1298 bytes");
        assert!(v6.check(Size::Imix).is_ok());
        let lengths = v6.packets(Size::Imix);
        let count = |size: usize| lengths.iter().filter(|length| **length + AROUND == size).count();
        assert_eq!((count(84), count(594), count(1298), lengths.len()), (7, 4, 1, 12));
        assert_eq!(v4.packets(Size::Fixed(64)), [46]);
    }
}
