//! The flows that a worker remembers, and those that it has missed.

use super::{
    super::{io::Io, keyed_hash::KeyedHash},
    entry::{InboundEntry, InnerEntry, OutboundEntry},
    key::{InboundKey, InnerKey, OutboundKey, V6Destination, V6Ends},
    ways::Ways,
    worth::Worth,
};
use arrayvec::ArrayVec;

/// The most flows that are learnt after one burst.
const MISSED: usize = 16;

/// The flows that a worker remembers.
#[derive(Debug)]
pub(super) struct Memory {
    hash: KeyedHash,
    pub outbound: Ways<OutboundEntry>,
    pub inbound: Ways<InboundEntry>,
    pub inner: Ways<InnerEntry>,
    /// Flows of this burst that are not known.
    missed: ArrayVec<Missed, MISSED>,
    pub worth: Worth,
}

/// A flow that is not known, with its addresses if they are IPv6 ones of which its key has a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    Outbound(OutboundKey, V6Ends),
    Inbound(InboundKey, V6Destination),
    Inner(InnerKey),
}

impl Memory {
    pub(super) fn new(entries: usize) -> Self {
        Self {
            hash: KeyedHash::default(),
            outbound: Ways::new(entries),
            inbound: Ways::new(entries),
            inner: Ways::new(entries),
            missed: ArrayVec::new(),
            worth: Worth::default(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.outbound.is_empty()
    }

    /// Returns the hash of keys.
    pub(super) fn hash(&self) -> &KeyedHash {
        &self.hash
    }

    /// Prefetches what is remembered of a flow from this side. Returns its slot.
    #[inline(always)]
    pub(super) fn expect_outbound(&self, key: OutboundKey) -> u32 {
        let slot = self.outbound.expect(self.hash.of(key.words()));
        if !key.is_ipv4() {
            self.outbound.expect_addresses(slot);
        }
        slot
    }

    /// Prefetches what is remembered of an SA. Returns its slot.
    #[inline(always)]
    pub(super) fn expect_inbound(&self, key: InboundKey) -> u32 {
        let slot = self.inbound.expect(self.hash.of(key.words()));
        if !key.is_ipv4() {
            self.inbound.expect_addresses(slot);
        }
        slot
    }

    /// Prefetches what is remembered of a destination. Returns its slot.
    #[inline(always)]
    pub(super) fn expect_inner(&self, key: InnerKey) -> u32 {
        self.inner.expect(self.hash.of(key.words()))
    }

    /// Notes a flow that is not known.
    #[cold]
    pub(super) fn miss(&mut self, missed: Missed, io: &Io) {
        io.counters().flow_misses.add(1);
        let misses = self.worth.miss();
        if self.missed.contains(&missed) {
            return;
        }
        // Of more flows, the later half of a burst is learnt, so that no flow is shut out for long.
        if self.missed.try_push(missed).is_err() {
            self.missed[misses % MISSED] = missed;
        }
    }

    #[inline]
    pub(super) fn has_missed(&self) -> bool {
        !self.missed.is_empty()
    }

    /// Takes out the flows that were not known, each with the hash of its key.
    pub(super) fn take_missed(&mut self) -> impl Iterator<Item = (u64, Missed)> + use<> {
        let hash = self.hash;
        std::mem::take(&mut self.missed).into_iter().map(move |missed| {
            let words = match missed {
                Missed::Outbound(key, _) => key.words(),
                Missed::Inbound(key, _) => key.words(),
                Missed::Inner(key) => key.words(),
            };
            (hash.of(words), missed)
        })
    }
}
