//! A quick hash of what a sender chose, for tables that a worker asks for each packet.

use std::hash::{BuildHasher, RandomState};

/// The hash of keys: seeded, so that nobody outside can choose keys that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyedHash([u64; 3]);

impl Default for KeyedHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self([1, 2, 3].map(|n: u64| random.hash_one(n) | 1))
    }
}

impl KeyedHash {
    /// Returns the hash of a key of two words. Folded twice: once would be linear in what differs between
    /// flows.
    #[inline(always)]
    pub(super) fn of(&self, [a, b]: [u64; 2]) -> u64 {
        fold(fold(a ^ self.0[0], b ^ self.0[1]), self.0[2])
    }

    /// Returns the hash of a number.
    #[inline(always)]
    pub(super) fn of_wide(&self, number: u128) -> u64 {
        self.of([number as u64, (number >> 64) as u64])
    }

    /// Returns the hash of IPv6 addresses.
    pub(super) fn of_v6<const N: usize>(&self, addresses: &[u8; N]) -> u64 {
        let (words, _) = addresses.as_chunks::<8>();
        words.iter().fold(0, |hash, word| self.of([hash, u64::from_le_bytes(*word)]))
    }
}

/// Returns the two halves of a product, mixed.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_bit_of_ipv6_addresses_counts() {
        let hash = KeyedHash::default();
        let mut seen = BTreeSet::from([hash.of_v6(&[0; 32])]);
        for bit in 0..256 {
            let mut addresses = [0_u8; 32];
            addresses[bit / 8] |= 1 << (bit % 8);
            assert!(seen.insert(hash.of_v6(&addresses)), "bit {bit}");
        }
    }

    #[test]
    fn every_bit_of_a_number_counts() {
        let hash = KeyedHash::default();
        let mut seen = BTreeSet::from([hash.of_wide(0)]);
        assert!((0..128).all(|bit| seen.insert(hash.of_wide(1 << bit))));
    }

    #[test]
    fn each_hash_has_a_seed_of_its_own() {
        let [one, other] = [(); 2].map(|()| KeyedHash::default());
        assert!((0..4).any(|number| one.of_wide(number) != other.of_wide(number)));
    }
}
