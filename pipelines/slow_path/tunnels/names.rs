//! The names of tunnels.

use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use wayfarer_dataplane::sa::TunnelId;

/// The tunnels that have a name. It holds their numbers alone, for there may be a million of them, which have
/// their names already: whoever asks says whether a tunnel is called so.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: HashTable<Named>,
    /// Keeps peers, whose names are parts of those of tunnels, from having all in one place.
    random: RandomState,
}

/// A tunnel that has a name. With its hash, the table grows without a look at the tunnel.
#[derive(Debug)]
struct Named {
    hash: u32,
    id: TunnelId,
}

impl Named {
    /// Returns the hash for the table, which takes its bits from both ends.
    fn wide_hash(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }

    /// Returns whether this one has the same name as `other`.
    fn is_like(&self, other: &Self, is_called_so: impl Fn(TunnelId) -> bool) -> bool {
        self.hash == other.hash && is_called_so(self.id)
    }
}

impl Names {
    fn named(&self, id: TunnelId, name: &str) -> Named {
        Named { hash: self.random.hash_one(name) as u32, id }
    }

    /// Returns the number of the tunnel with this name.
    pub(super) fn get(&self, name: &str, is_called_so: impl Fn(TunnelId) -> bool) -> Option<TunnelId> {
        let sought = self.named(TunnelId(0), name);
        let found = self.named.find(sought.wide_hash(), |named| named.is_like(&sought, &is_called_so));
        found.map(|named| named.id)
    }

    /// Gives tunnel `id` its name, unless another one has that.
    pub(super) fn add(&mut self, id: TunnelId, name: &str, is_called_so: impl Fn(TunnelId) -> bool) {
        let new = self.named(id, name);
        let has_it = |named: &Named| named.is_like(&new, &is_called_so);
        self.named.entry(new.wide_hash(), has_it, Named::wide_hash).or_insert(new);
    }

    /// Takes its name from tunnel `id`, if it has it.
    pub(super) fn remove(&mut self, id: TunnelId, name: &str) {
        let hash = self.named(id, name).wide_hash();
        if let Ok(found) = self.named.find_entry(hash, |named| named.id == id) {
            found.remove();
        }
    }
}

#[cfg(all(test, feature = "bench"))]
mod tests;
