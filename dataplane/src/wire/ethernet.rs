//! Ethernet II frames (IEEE 802.3).

use super::{FormatError, be16};
use crate::port::Mac;

/// Length of the header in bytes.
pub const HEADER: usize = 14;
/// The EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// The EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// The EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// The EtherType of a VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// The EtherType of the outer one of two VLAN tags (IEEE 802.1ad).
pub const OUTER_VLAN: u16 = 0x88a8;
/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// EtherType.
    pub ethertype: u16,
}

impl Ethernet {
    /// Reads the header of `frame`.
    ///
    /// # Errors
    /// `Truncated` below 14 bytes.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, FormatError> {
        let h = frame.first_chunk::<HEADER>().ok_or(FormatError::Truncated)?;
        Ok(Self {
            dst: [h[0], h[1], h[2], h[3], h[4], h[5]],
            src: [h[6], h[7], h[8], h[9], h[10], h[11]],
            ethertype: be16(h, 12),
        })
    }

    /// Writes the header to the first 14 bytes of `frame`.
    #[inline]
    pub fn emit(&self, frame: &mut [u8]) {
        let h: &mut [u8; HEADER] = frame.first_chunk_mut().expect("room for an Ethernet header");
        h[..6].copy_from_slice(&self.dst);
        h[6..12].copy_from_slice(&self.src);
        h[12..].copy_from_slice(&self.ethertype.to_be_bytes());
    }
}

/// Returns whether `mac` is a group address: multicast or broadcast.
#[inline]
pub fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// Removes the tags of VLAN 0 at the front of `frame`, which state a priority and name no VLAN
/// (IEEE 802.1Q), by moving the MAC addresses over them. Returns how many bytes at the front are no
/// longer part of the frame.
pub fn strip_priority(frame: &mut [u8]) -> usize {
    const ADDRESSES: usize = 12;
    let tags = frame.get(ADDRESSES..).unwrap_or_default().chunks_exact(4);
    let is_priority = |tag: &&[u8]| matches!(be16(tag, 0), VLAN | OUTER_VLAN) && be16(tag, 2) & 0x0fff == 0;
    let length = 4 * tags.take_while(is_priority).count();
    if length > 0 {
        frame.copy_within(..ADDRESSES, length);
    }
    length
}

/// Returns the EtherType and the payload of `frame` behind its VLAN tags, of which there may be
/// two.
///
/// # Errors
/// `Truncated` if the frame ends within its header or tags, `Field` if it has more tags.
pub fn untagged(frame: &[u8]) -> Result<(u16, &[u8]), FormatError> {
    const ADDRESSES: usize = 12;
    let mut rest = frame.get(ADDRESSES..).ok_or(FormatError::Truncated)?;
    for _ in 0..=2 {
        let (ethertype, payload) = rest.split_first_chunk::<2>().ok_or(FormatError::Truncated)?;
        match u16::from_be_bytes(*ethertype) {
            // Two bytes name the VLAN, and an EtherType follows.
            VLAN | OUTER_VLAN => rest = payload.get(2..).ok_or(FormatError::Truncated)?,
            other => return Ok((other, payload)),
        }
    }
    Err(FormatError::Field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_vlan_0_are_stripped_and_no_others() {
        let frame = |tags: &[[u8; 4]]| [&[7; 12][..], &tags.concat(), &[8, 0, 0x45]].concat();
        let (priority, outer, vlan) = ([0x81, 0, 0xa0, 0], [0x88, 0xa8, 0x10, 0], [0x81, 0, 0, 5]);
        for (tags, left) in [
            (&[][..], &[][..]),
            (&[priority], &[]),
            (&[outer], &[]),
            (&[priority; 9], &[]),
            (&[outer, priority, vlan, priority], &[vlan, priority]),
            (&[vlan, priority], &[vlan, priority]),
        ] {
            let mut stripped = frame(tags);
            let gone = strip_priority(&mut stripped);
            assert_eq!(stripped[gone..], frame(left), "{tags:x?}");
        }
        for end in 0..16 {
            let mut short = frame(&[priority])[..end].to_vec();
            assert_eq!(strip_priority(&mut short), 0, "{end}");
        }
    }

    #[test]
    fn looks_through_up_to_two_tags() {
        let frame = |tags: &[u16]| {
            let tags = tags.iter().flat_map(|tag| [(tag >> 8) as u8, *tag as u8, 0, 7]);
            [0; 12].into_iter().chain(tags).chain([8, 0, 0x45]).collect::<Vec<u8>>()
        };
        for tags in [&[][..], &[VLAN], &[OUTER_VLAN, VLAN]] {
            let frame = frame(tags);
            assert_eq!(untagged(&frame), Ok((IPV4, &[0x45][..])), "{tags:x?}");
            for end in 0..frame.len() - 1 {
                assert_eq!(untagged(&frame[..end]), Err(FormatError::Truncated), "{tags:x?} {end}");
            }
        }
        assert_eq!(untagged(&frame(&[VLAN; 3])), Err(FormatError::Field));
    }
}
