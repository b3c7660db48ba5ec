//! The tables' hash: one multiplication a word. The top bits of a product depend on every bit of
//! its factors, so those choose the slot; and numbers in succession, as SPIs and addresses mostly
//! are, then hardly ever meet (D. Knuth, The Art of Computer Programming 3, §6.4: Fibonacci
//! hashing). Peers choose some keys: the prefixes to which they narrow a tunnel. So each table's
//! hash begins with a random number, and which keys meet differs from one to the next.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An odd number without pattern: the golden ratio's fraction.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Another number each time.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(FACTOR)
}

/// Makes hashers that agree with each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(random())
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    #[inline]
    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

/// The state of one hash.
#[derive(Debug)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(FACTOR);
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
}
