//! The order of packets that take the whole way, so that no flow is reordered.

use arrayvec::ArrayVec;
use wayfarer_dataplane::packet::{BURST, Burst, Packet, Taken};

/// The most flows of a burst that are told apart.
const FLOWS: usize = 8;

/// Flows of a burst of which one packet takes the whole way, and so those behind it too.
#[derive(Debug)]
pub(super) struct HeldFlows<K> {
    keys: ArrayVec<K, FLOWS>,
    /// `true` if there are more.
    are_all: bool,
    /// `true` if there are any.
    are_some: bool,
}

impl<K> Default for HeldFlows<K> {
    #[inline]
    fn default() -> Self {
        Self { keys: ArrayVec::new(), are_all: false, are_some: false }
    }
}

impl<K: PartialEq> HeldFlows<K> {
    /// Holds the packets of this flow from now on.
    #[cold]
    pub(super) fn hold(&mut self, key: K) {
        if !self.has(&key) {
            self.are_all |= self.keys.try_push(key).is_err();
            self.are_some = true;
        }
    }

    /// Holds all packets from now on.
    #[cold]
    pub(super) fn hold_all(&mut self) {
        (self.are_all, self.are_some) = (true, true);
    }

    /// Returns whether packets of this flow are held.
    #[inline(always)]
    pub(super) fn has(&self, key: &K) -> bool {
        self.are_some && (self.are_all || self.keys.contains(key))
    }
}

/// Packets that take the whole way.
#[derive(Debug, Default)]
pub struct Rest {
    packets: Burst,
    /// The place of each in the burst that came.
    places: ArrayVec<u8, BURST>,
}

impl Rest {
    /// Appends the packet that came at `place` of its burst.
    #[inline(always)]
    pub(super) fn push(&mut self, packet: Packet, place: u8) {
        self.packets.push(packet);
        self.places.push(place);
    }

    /// Takes all packets out, in the order in which they came.
    #[inline]
    pub fn in_order(&mut self) -> Taken<'_> {
        if !self.places.is_sorted() {
            self.sort();
        }
        self.places.clear();
        self.packets.take(BURST)
    }

    #[cold]
    fn sort(&mut self) {
        let places = &mut self.places;
        for end in 1..places.len() {
            let mut at = end;
            while at > 0 && places[at - 1] > places[at] {
                places.swap(at - 1, at);
                self.packets.swap(at - 1, at);
                at -= 1;
            }
        }
    }
}
