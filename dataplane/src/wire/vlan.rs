//! VLAN tags (IEEE 802.1Q), between the addresses and the EtherType of an Ethernet frame.

use super::{
    be16,
    ethernet::{OUTER_VLAN, VLAN},
    put16,
};
use std::fmt;

/// Length of a tag in bytes: an EtherType, then a priority and the number of the VLAN.
pub const TAG: usize = 4;
/// The largest length of the tags of a [`Vlan`] in bytes.
pub const MAX_TAGS: usize = 2 * TAG;
/// The largest number of a VLAN. 0 names none, and 4095 is reserved.
pub const MAX_ID: u16 = 4094;

/// Length of the two addresses of a frame in bytes.
const ADDRESSES: usize = 12;
/// The bits of a tag that name the VLAN.
const ID: u16 = 0x0fff;
/// The position of a tag's priority.
const PRIORITY: u32 = 13;

/// A VLAN: by one tag of 802.1Q, or by one of 802.1ad and one of 802.1Q behind it (QinQ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan {
    outer: Option<u16>,
    inner: u16,
}

impl Vlan {
    /// Returns the VLAN `inner`, which is within the VLAN `outer` of 802.1ad if there is one. Returns
    /// `None` unless the numbers are from 1 to 4094.
    pub fn new(outer: Option<u16>, inner: u16) -> Option<Self> {
        let is_valid = |id: &u16| (1..=MAX_ID).contains(id);
        (is_valid(&inner) && outer.iter().all(is_valid)).then_some(Self { outer, inner })
    }

    /// Returns the number in the 802.1ad tag, if there is one.
    pub fn outer(self) -> Option<u16> {
        self.outer
    }

    /// Returns the number in the 802.1Q tag.
    pub fn inner(self) -> u16 {
        self.inner
    }

    /// Returns the length of its tags in bytes.
    pub fn tags(self) -> usize {
        if self.outer.is_some() { MAX_TAGS } else { TAG }
    }

    /// Returns by how many bytes its largest IP packet is shorter than the MTU of its device. Linux,
    /// like most NICs, lets one 802.1Q tag exceed the MTU, but no tag of 802.1ad.
    pub fn mtu_cost(self) -> usize {
        if self.outer.is_some() { MAX_TAGS } else { 0 }
    }

    /// Returns the VLAN that a single tag of 802.1Q names, if it names one. `value` is the tag's priority and
    /// number.
    pub fn of_tag(value: u16) -> Option<Self> {
        Self::new(None, value & ID)
    }

    /// Returns the value of its tag of 802.1Q with this priority (0 to 7).
    pub fn tag(self, priority: u8) -> u16 {
        u16::from(priority) << PRIORITY | self.inner
    }

    /// Writes its tags, with this priority (0 to 7), into a frame that begins with as many free bytes,
    /// before its addresses. Panics on a shorter frame than that.
    pub fn put_tags(self, frame: &mut [u8], priority: u8) {
        let length = self.tags();
        frame.copy_within(length..length + ADDRESSES, 0);
        let ids = self.outer.map(|id| (OUTER_VLAN, id)).into_iter().chain([(VLAN, self.inner)]);
        for (at, (ethertype, id)) in (ADDRESSES..).step_by(TAG).zip(ids) {
            put16(frame, at, ethertype);
            put16(frame, at + 2, u16::from(priority) << PRIORITY | id);
        }
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outer {
            Some(outer) => write!(f, "[{outer}, {}]", self.inner),
            None => write!(f, "{}", self.inner),
        }
    }
}

/// Returns the priority in the value of a tag, 0 to 7.
pub fn priority(value: u16) -> u8 {
    (value >> PRIORITY) as u8
}

/// The VLAN of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is in no VLAN.
    None,
    /// It is in this VLAN.
    Of(Vlan),
    /// Its tags are not those of a [`Vlan`].
    Other,
}

/// The tags of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// The VLAN that they name. Tags of VLAN 0 name none.
    pub vlan: Membership,
    /// The priority in the outermost tag of a VLAN, 0 to 7.
    pub priority: u8,
    /// The length of all tags in bytes.
    pub length: usize,
}

impl Tags {
    /// Reads the tags of `frame`, which may be any bytes. A tag that the frame cuts short is none.
    pub fn read(frame: &[u8]) -> Self {
        let all = frame.get(ADDRESSES..).unwrap_or_default().chunks_exact(TAG);
        let mut all = all.map(|tag| (be16(tag, 0), be16(tag, 2)));
        let (mut tags, mut outer) = (Self { vlan: Membership::None, priority: 0, length: 0 }, None);
        while let Some((ethertype @ (VLAN | OUTER_VLAN), value)) = all.next() {
            tags.length += TAG;
            let id = value & ID;
            if id == 0 {
                continue;
            }
            if tags.vlan == Membership::None && outer.is_none() {
                tags.priority = priority(value);
            }
            // A tag of 802.1ad must not be the last one.
            let named = match (tags.vlan, outer, ethertype) {
                (Membership::None, None, OUTER_VLAN) => {
                    outer = Some(id);
                    continue;
                }
                (Membership::None, _, VLAN) => Vlan::new(outer, id),
                _ => None,
            };
            tags.vlan = named.map_or(Membership::Other, Membership::Of);
        }
        if outer.is_some() && tags.vlan == Membership::None {
            tags.vlan = Membership::Other;
        }
        tags
    }
}

/// Moves the addresses of `frame` over its first `length` bytes of tags. These bytes at the front are
/// then no longer part of the frame. Panics if the frame is shorter than its addresses and the tags.
pub fn cut_tags(frame: &mut [u8], length: usize) {
    frame.copy_within(..ADDRESSES, length);
}

/// Puts back the tag that a kernel took out of a frame, into a frame that begins with [`TAG`] free
/// bytes, before its addresses. `value` is the priority and number. Panics on a shorter frame.
pub fn put_back(frame: &mut [u8], ethertype: u16, value: u16) {
    frame.copy_within(TAG..TAG + ADDRESSES, 0);
    put16(frame, ADDRESSES, ethertype);
    put16(frame, ADDRESSES + 2, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMER: [u8; 4] = [0x81, 0, 0xa0, 100];
    const PROVIDER: [u8; 4] = [0x88, 0xa8, 0x20, 7];
    const PRIORITY_ONLY: [u8; 4] = [0x81, 0, 0xe0, 0];

    fn frame(tags: &[[u8; 4]]) -> Vec<u8> {
        [&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12][..], &tags.concat(), &[8, 0, 0x45]].concat()
    }

    fn vlan(outer: Option<u16>, inner: u16) -> Membership {
        Membership::Of(Vlan::new(outer, inner).unwrap())
    }

    #[test]
    fn names_the_vlan_whatever_priority_tags_are_between() {
        for (tags, vlan, priority) in [
            (&[][..], Membership::None, 0),
            (&[PRIORITY_ONLY; 12], Membership::None, 0),
            (&[CUSTOMER], vlan(None, 100), 5),
            (&[PRIORITY_ONLY, CUSTOMER, PRIORITY_ONLY], vlan(None, 100), 5),
            (&[PROVIDER, CUSTOMER], vlan(Some(7), 100), 1),
            (&[PRIORITY_ONLY, PROVIDER, PRIORITY_ONLY, CUSTOMER], vlan(Some(7), 100), 1),
            (&[PROVIDER], Membership::Other, 1),
            (&[CUSTOMER, PROVIDER], Membership::Other, 5),
            (&[CUSTOMER, CUSTOMER], Membership::Other, 5),
            (&[PROVIDER, PROVIDER, CUSTOMER], Membership::Other, 1),
            (&[PROVIDER, CUSTOMER, CUSTOMER], Membership::Other, 1),
            (&[[0x81, 0, 0x0f, 0xff]], Membership::Other, 0),
            (&[CUSTOMER; 10], Membership::Other, 5),
        ] {
            let length = TAG * tags.len();
            assert_eq!(Tags::read(&frame(tags)), Tags { vlan, priority, length }, "{tags:x?}");
        }
    }

    #[test]
    fn every_truncation_is_read() {
        for tags in [&[PROVIDER, CUSTOMER][..], &[CUSTOMER; 10], &[PRIORITY_ONLY, CUSTOMER]] {
            let whole = frame(tags);
            for end in 0..whole.len() {
                let tags = Tags::read(&whole[..end]);
                assert!(tags.length == 0 || ADDRESSES + tags.length <= end);
                if tags.length > 0 {
                    cut_tags(&mut whole[..end].to_vec(), tags.length);
                }
            }
        }
    }

    #[test]
    fn tags_are_put_into_a_frame_and_cut_out_again() {
        for (outer, inner, tags) in
            [(None, 100, &[[0x81, 0, 0xa0, 100]][..]), (Some(7), 100, &[[0x88, 0xa8, 0xa0, 7], CUSTOMER])]
        {
            let vlan = Vlan::new(outer, inner).unwrap();
            let mut tagged = [vec![0; vlan.tags()], frame(&[])].concat();
            vlan.put_tags(&mut tagged, 5);
            assert_eq!(tagged, frame(tags));
            cut_tags(&mut tagged, vlan.tags());
            assert_eq!(tagged[vlan.tags()..], frame(&[]));
        }
        let mut tagged = [vec![0; TAG], frame(&[CUSTOMER])].concat();
        put_back(&mut tagged, OUTER_VLAN, 0x2007);
        assert_eq!(tagged, frame(&[PROVIDER, CUSTOMER]));
    }

    #[test]
    fn value_of_a_tag_has_its_number_and_priority() {
        let vlan = Vlan::new(None, MAX_ID).unwrap();
        let value = vlan.tag(5);
        assert_eq!((value, Vlan::of_tag(value), priority(value)), (0xaffe, Some(vlan), 5));
        // The bit in between marks frames to be dropped first.
        assert_eq!(Vlan::of_tag(value | 0x1000), Some(vlan));
        assert_eq!([0xe000, 0xefff].map(Vlan::of_tag), [None; 2]);
    }

    #[test]
    fn numbers_of_vlans_have_limits() {
        assert_eq!(Vlan::new(None, 0).or(Vlan::new(Some(0), 1)).or(Vlan::new(None, 4095)), None);
        let [single, double] = [None, Some(1)].map(|outer| Vlan::new(outer, MAX_ID).unwrap().to_string());
        assert_eq!((&single[..], &double[..]), ("4094", "[1, 4094]"));
    }
}
