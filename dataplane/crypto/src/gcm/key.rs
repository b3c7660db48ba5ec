//! A key as the kernels load it: round keys and powers of the hash key in one aligned block of
//! memory.

#![allow(unsafe_code, reason = "calls functions compiled for instructions that the processor has")]

use super::{
    ghash::Ghash,
    isa::AesNi,
    vector::{Block, Row, Vector, Xmm},
};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use zeroize::Zeroize;

/// The number of powers of the hash key that follow one another.
pub(super) const POWERS: usize = 4;

/// Everything that sealing and opening read of a key, for AES of `R` rounds.
///
/// The powers follow one another, so that they are loaded at once. With 10 and 14 rounds, they begin a cache
/// line. With more powers, the schedule of AES-128 would not fit four lines, and a million tunnels have two
/// million schedules.
#[repr(C, align(64))]
pub(super) struct Schedule<const R: usize> {
    /// Round keys 1 to `R`.
    rounds: [Block; R],
    /// Round key 0 and the salt: the counter block without IV and counter, after the first step of
    /// AES.
    start: Block,
    /// H⁸.
    eighth: Block,
    /// H⁴ to H¹.
    powers: [Block; POWERS],
}

const _: () = assert!(size_of::<Schedule<10>>() == 256 && size_of::<Schedule<14>>() == 320);

impl<const R: usize> Schedule<R> {
    /// Returns the schedule of a key. `R` must fit its length.
    pub(super) fn new(isa: AesNi, key: &[u8], salt: [u8; 4]) -> Box<Self> {
        const ZERO: Block = [0; 16];
        let mut this =
            Box::new(Self { rounds: [ZERO; R], start: ZERO, eighth: ZERO, powers: [ZERO; POWERS] });
        // SAFETY: `AesNi` proves the features.
        unsafe { this.expand(isa, key) };
        // SAFETY: as above.
        unsafe { this.raise(isa) };
        this.start.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
        this
    }

    /// Expands the key (FIPS 197 §5.2). `start` becomes round key 0.
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    fn expand(&mut self, isa: AesNi, key: &[u8]) {
        let words = key.len() / 4;
        let mut w = [0; 60];
        for (word, bytes) in w.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        let mut constant = 1_u32;
        for i in words..4 * (R + 1) {
            let mut t = w[i - 1];
            if i % words == 0 {
                t = substitute(isa, t.rotate_right(8)) ^ constant;
                constant = (constant << 1) ^ (0x11b * (constant >> 7));
            } else if words > 6 && i % words == 4 {
                t = substitute(isa, t);
            }
            w[i] = w[i - words] ^ t;
        }
        let (keys, _) = w.as_chunks::<4>();
        for (key, words) in [&mut self.start].into_iter().chain(&mut self.rounds).zip(keys) {
            for (bytes, word) in key.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        w.zeroize();
    }

    /// Computes the powers of the hash key, which is an encrypted block of zeros. `start` is round key 0.
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    fn raise(&mut self, isa: AesNi) {
        let mut x = Xmm::splat(isa, &self.start);
        let (last, rounds) = self.rounds.split_last().expect("ten rounds at least");
        for key in rounds {
            x = x.aesenc(Xmm::splat(isa, key));
        }
        let h = u128::from_be_bytes(x.aesenclast(Xmm::splat(isa, last)).to_block());
        let reduced = (h << 1) ^ (0xc200_0000_0000_0000_0000_0000_0000_0001 * (h >> 127));
        let h = Xmm::splat(isa, &reduced.to_le_bytes());
        let ghash = Ghash::new(isa);
        let mut power = h;
        for place in self.powers.iter_mut().rev() {
            *place = power.to_block();
            power = ghash.multiply(isa, power, h);
        }
        let fourth = Xmm::splat(isa, self.power(4));
        self.eighth = ghash.multiply(isa, fourth, fourth).to_block();
    }

    /// Prefetches the cache lines that sealing and opening read: round keys and powers lie in all
    /// of them.
    #[inline]
    pub(super) fn prefetch(&self) {
        let first: *const i8 = (&raw const *self).cast();
        for line in 0..size_of::<Self>() / 64 {
            // SAFETY: part of every x86-64; a prefetch does not fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(64 * line)) };
        }
    }

    /// Hashes all blocks of `first` and `rest` but the last, and returns the sum of that hash and
    /// the last block.
    pub(super) fn absorb(&self, isa: AesNi, first: Option<&Block>, rest: &[u8]) -> Block {
        // SAFETY: `AesNi` proves the features.
        unsafe { self.absorb_blocks(isa, first, rest) }
    }

    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    fn absorb_blocks(&self, isa: AesNi, first: Option<&Block>, rest: &[u8]) -> Block {
        let ghash = Ghash::new(isa);
        let h = Xmm::splat(isa, self.power(1));
        let mut sum = first.map_or(Xmm::zero(isa), |first| ghash.reverse(Xmm::splat(isa, first)));
        let (blocks, tail) = rest.as_chunks::<16>();
        for block in blocks {
            sum = ghash.multiply(isa, sum, h).xor(ghash.reverse(Xmm::splat(isa, block)));
        }
        if !tail.is_empty() {
            let mut block = [0; 16];
            block[..tail.len()].copy_from_slice(tail);
            sum = ghash.multiply(isa, sum, h).xor(ghash.reverse(Xmm::splat(isa, &block)));
        }
        ghash.reverse(sum).to_block()
    }

    /// Returns round key `i`, from 1.
    #[inline(always)]
    pub(super) fn round(&self, i: usize) -> &Block {
        &self.rounds[i - 1]
    }

    /// Returns round keys `i` to `i + 3`.
    #[inline(always)]
    pub(super) fn rounds(&self, i: usize) -> &Row {
        row(&self.rounds, i - 1)
    }

    /// Returns Hⁱ, up to H⁴.
    #[inline(always)]
    pub(super) fn power(&self, i: usize) -> &Block {
        &self.powers[POWERS - i]
    }

    /// Returns H⁴ to H¹.
    #[inline(always)]
    pub(super) fn powers(&self) -> &Row {
        row(&self.powers, 0)
    }

    /// Returns H⁸.
    #[inline(always)]
    pub(super) fn eighth(&self) -> &Block {
        &self.eighth
    }

    /// Returns the block that all counter blocks start from.
    #[inline(always)]
    pub(super) fn start(&self) -> &Block {
        &self.start
    }
}

/// Returns four blocks of `blocks`, from number `i` on.
#[inline(always)]
fn row(blocks: &[Block], i: usize) -> &Row {
    blocks[i..i + 4].as_flattened().as_array().expect("four blocks")
}

/// Applies the S-box of AES to each byte of a word, in constant time.
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn substitute(isa: AesNi, word: u32) -> u32 {
    // All columns hold the same word, so shifting the rows changes nothing.
    let mut columns = [0; 16];
    columns.chunks_exact_mut(4).for_each(|column| column.copy_from_slice(&word.to_le_bytes()));
    let block = Xmm::splat(isa, &columns).aesenclast(Xmm::zero(isa)).to_block();
    u32::from_le_bytes([block[0], block[1], block[2], block[3]])
}

impl<const R: usize> Drop for Schedule<R> {
    fn drop(&mut self) {
        self.rounds.zeroize();
        self.start.zeroize();
        self.eighth.zeroize();
        self.powers.zeroize();
    }
}
