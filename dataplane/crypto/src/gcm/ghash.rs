//! GHASH (NIST SP 800-38D §6.4) on vectors of blocks.
//!
//! As POLYVAL does (RFC 8452, appendix A), blocks and powers of the hash key are byte-reversed, and
//! the key is multiplied by x once. Then neither a product nor its reduction needs any bits
//! reversed.

use super::vector::{Block, Vector};

/// The shuffle that reverses the bytes of a block.
static REVERSE: Block = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// The factor of the reduction, in the upper half.
static POLYNOMIAL: Block = (0xc200_0000_0000_0000_0000_0000_0000_0001_u128).to_le_bytes();

/// The constants of GHASH, kept in registers.
#[derive(Clone, Copy)]
pub(super) struct Ghash<V> {
    reverse: V,
    polynomial: V,
}

impl<V: Vector> Ghash<V> {
    #[inline(always)]
    pub(super) fn new(isa: V::Isa) -> Self {
        Self { reverse: V::splat(isa, &REVERSE), polynomial: V::splat(isa, &POLYNOMIAL) }
    }

    /// Converts blocks from the byte order of a packet to that of the arithmetic, or back.
    #[inline(always)]
    pub(super) fn reverse(self, blocks: V) -> V {
        blocks.shuffle(self.reverse)
    }

    /// Reduces a sum of products modulo the field's polynomial.
    #[inline(always)]
    pub(super) fn reduce(self, sum: Sum<V>) -> V {
        let middle = sum.middle.xor3(sum.low, sum.high);
        let middle = middle.xor3(sum.low.swap(), self.polynomial.clmul::<0x01>(sum.low));
        sum.high.xor3(middle.swap(), self.polynomial.clmul::<0x01>(middle))
    }

    /// Returns the product of two vectors, lane by lane.
    #[inline(always)]
    pub(super) fn multiply(self, isa: V::Isa, a: V, b: V) -> V {
        let mut sum = Sum::new(isa);
        sum.add(a, Power::new(b));
        self.reduce(sum)
    }
}

/// A power of the hash key, and the sum of its halves, by which Karatsuba's method multiplies.
#[derive(Clone, Copy)]
pub(super) struct Power<V> {
    power: V,
    halves: V,
}

impl<V: Vector> Power<V> {
    #[inline(always)]
    pub(super) fn new(power: V) -> Self {
        Self { power, halves: power.xor(power.swap()) }
    }
}

/// A sum of products that is not yet reduced, as Karatsuba's method gives it: three multiplications
/// a block instead of four. Carry-less multiplication is the processor's scarcest resource.
#[derive(Clone, Copy)]
pub(super) struct Sum<V> {
    low: V,
    middle: V,
    high: V,
}

impl<V: Vector> Sum<V> {
    #[inline(always)]
    pub(super) fn new(isa: V::Isa) -> Self {
        let zero = V::zero(isa);
        Self { low: zero, middle: zero, high: zero }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, blocks: V, by: Power<V>) {
        let halves = blocks.xor(blocks.swap());
        self.low = self.low.xor(blocks.clmul::<0x00>(by.power));
        self.middle = self.middle.xor(halves.clmul::<0x00>(by.halves));
        self.high = self.high.xor(blocks.clmul::<0x11>(by.power));
    }

    /// Has the sum computed before anything that follows in the code.
    #[inline(always)]
    pub(super) fn pin(&mut self) {
        self.low = self.low.pin();
        self.middle = self.middle.pin();
        self.high = self.high.pin();
    }
}
