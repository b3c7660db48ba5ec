//! Vectors of one, two or four 128-bit blocks, and what AES-GCM does with them.
//!
//! A vector can only be made from an [`Isa`](Vector::Isa), the proof that the processor has the
//! instructions. So every operation on an existing vector may be executed, and is safe to call. All
//! are inlined into the kernels' entry points, which are compiled with `#[target_feature]`.

#![allow(unsafe_code, reason = "intrinsics, which the processor must have, and their memory operands")]

use std::{
    arch::{asm, x86_64::*},
    mem::MaybeUninit,
};

/// The block that AES and GHASH work on.
pub(super) type Block = [u8; 16];

/// Four blocks in a row.
pub(super) type Row = [u8; 64];

/// A window that slides over this is a mask for any number of leading bytes, or for all other
/// bytes.
static MASK: [u8; 192] = {
    let mut mask = [0; 192];
    let mut i = 64;
    while i < 128 {
        mask[i] = 0xff;
        i += 1;
    }
    mask
};

/// One block. Every vector has it as its lane, whatever its own width.
#[derive(Clone, Copy)]
pub(super) struct Xmm(__m128i);

/// Has the compiler align the stack frame of the function that this is inlined into, so that no vector
/// there lies across two cache lines: to read back one that does takes many times as long.
#[inline(always)]
pub(super) fn align_frame<V: Vector>() {
    let vector = MaybeUninit::<V>::uninit();
    // SAFETY: this is no instruction. It asks for the address of a vector on the stack.
    unsafe { asm!("/* {} */", in(reg) vector.as_ptr(), options(readonly, nostack, preserves_flags)) };
}

/// A few blocks side by side, each in its own lane.
///
/// Arrays of four have an element for each lane of the widest vector. A narrower vector uses the
/// first ones.
pub(super) trait Vector: Copy {
    /// Number of blocks in a vector.
    const LANES: usize;

    /// The least blocks of a packet for which it is quicker to work on it alone than to have one packet
    /// in each lane, at most as many as the class of the longest packets has.
    const ALONE: usize;

    /// Proof that the processor has the instructions.
    type Isa: Copy;

    fn zero(isa: Self::Isa) -> Self;

    /// # Safety
    /// `LANES` blocks can be read at `at`.
    unsafe fn load(isa: Self::Isa, at: *const u8) -> Self;

    /// # Safety
    /// `LANES` blocks can be written at `at`.
    unsafe fn store(self, at: *mut u8);

    /// Loads the lanes `from..to`; the others are zero.
    ///
    /// # Safety
    /// With lane 0 at `at`, the blocks of these lanes can be read.
    unsafe fn load_lanes(isa: Self::Isa, at: *const u8, from: usize, to: usize) -> Self;

    /// Stores the lanes `from..to`.
    ///
    /// # Safety
    /// With lane 0 at `at`, the blocks of these lanes can be written.
    unsafe fn store_lanes(self, at: *mut u8, from: usize, to: usize);

    /// Returns `block` in every lane.
    fn broadcast(isa: Self::Isa, block: Xmm) -> Self;

    /// Returns `block`, read from memory, in every lane.
    fn splat(isa: Self::Isa, block: &Block) -> Self;

    /// Loads each lane from its own address.
    fn gather(isa: Self::Isa, blocks: [&Block; 4]) -> Self;

    /// Writes each lane to its own address.
    ///
    /// # Safety
    /// A block can be written at the first `LANES` of `to`.
    unsafe fn scatter(self, to: [*mut u8; 4]);

    /// Returns the first to fourth block of a row for each lane.
    #[inline(always)]
    fn gather_rows(isa: Self::Isa, rows: [&Row; 4]) -> [Self; 4] {
        let [a, b, c, d] = each!(rows, |row| row.as_chunks::<16>().0);
        [
            Self::gather(isa, [&a[0], &b[0], &c[0], &d[0]]),
            Self::gather(isa, [&a[1], &b[1], &c[1], &d[1]]),
            Self::gather(isa, [&a[2], &b[2], &c[2], &d[2]]),
            Self::gather(isa, [&a[3], &b[3], &c[3], &d[3]]),
        ]
    }

    /// Reverses [`Vector::gather_rows`].
    ///
    /// # Safety
    /// A row can be written at the first `LANES` of `to`.
    #[inline(always)]
    unsafe fn scatter_rows(columns: [Self; 4], to: [*mut u8; 4]) {
        for (i, column) in columns.into_iter().enumerate() {
            // SAFETY: block `i` of each row, by the caller's contract.
            unsafe { column.scatter(each!(to, |row| row.wrapping_add(16 * i))) };
        }
    }

    fn xor(self, other: Self) -> Self;
    fn xor3(self, b: Self, c: Self) -> Self;
    fn and(self, other: Self) -> Self;

    /// Adds 32-bit words.
    fn add(self, other: Self) -> Self;

    fn aesenc(self, key: Self) -> Self;
    fn aesenclast(self, key: Self) -> Self;

    /// Returns the carry-less product of one half of each block and one half of the other vector's.
    /// `HALVES` is the operand of the instruction.
    fn clmul<const HALVES: i32>(self, other: Self) -> Self;

    /// Swaps the halves of each block.
    fn swap(self) -> Self;

    /// Chooses bytes within each block, by the indices in `by`.
    fn shuffle(self, by: Self) -> Self;

    /// Returns the sum of all lanes.
    fn fold(self) -> Xmm;

    /// Returns ones in each byte that is greater than the other vector's, as signed numbers.
    fn greater(self, other: Self) -> Self;

    /// Returns the same vector, computed before anything that follows in the code. Otherwise the
    /// compiler would finish one chain of AES before it begins the next, to save registers, and the
    /// processor would not find enough independent work.
    fn pin(self) -> Self;

    /// Returns one of the lanes.
    fn lane(self, lane: usize) -> Xmm;

    /// Returns a bit for each lane: whether it is the same as in `other`.
    fn equal(self, other: Self) -> u32;

    /// Returns a bit for each of `words` that equals `word`.
    fn matches(isa: Self::Isa, words: &[u16; 64], word: u16) -> u64;

    /// Returns ones in the first `bytes` bytes of the vector, at most in all of them.
    #[inline(always)]
    fn mask(isa: Self::Isa, bytes: usize) -> Self {
        // SAFETY: at most 64 bytes, starting at 64 to 128.
        unsafe { Self::load(isa, MASK.as_ptr().wrapping_add(128 - bytes.min(64))) }
    }

    /// Returns ones in all bytes but the first `bytes`.
    #[inline(always)]
    fn mask_after(isa: Self::Isa, bytes: usize) -> Self {
        // SAFETY: at most 64 bytes, starting at 0 to 64.
        unsafe { Self::load(isa, MASK.as_ptr().wrapping_add(64 - bytes.min(64))) }
    }
}

/// Returns ones in one lane.
#[inline(always)]
pub(super) fn at_lane<V: Vector>(isa: V::Isa, lane: usize) -> V {
    static LANES: [Block; 7] = [[0; 16], [0; 16], [0; 16], [0xff; 16], [0; 16], [0; 16], [0; 16]];
    // SAFETY: at most four blocks, starting at one of the first four.
    unsafe { V::load(isa, LANES[3 - lane..].as_ptr().cast()) }
}

/// Defines the operations that differ only in the names of their intrinsics.
macro_rules! operations {
    ($xor:ident, $and:ident, $add:ident, $enc:ident, $last:ident, $clmul:ident, $swap:ident, $shuffle:ident, $pin:ident) => {
        #[inline(always)]
        fn pin(self) -> Self {
            // SAFETY: the vector exists, so the processor has the registers.
            Self(unsafe { $pin(self.0) })
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            // SAFETY: the vector exists, so the processor has the instruction.
            Self(unsafe { $xor(self.0, other.0) })
        }

        #[inline(always)]
        fn and(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $and(self.0, other.0) })
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $add(self.0, other.0) })
        }

        #[inline(always)]
        fn aesenc(self, key: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $enc(self.0, key.0) })
        }

        #[inline(always)]
        fn aesenclast(self, key: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $last(self.0, key.0) })
        }

        #[inline(always)]
        fn clmul<const HALVES: i32>(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $clmul::<HALVES>(self.0, other.0) })
        }

        #[inline(always)]
        fn swap(self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $swap::<0x4e>(self.0) })
        }

        #[inline(always)]
        fn shuffle(self, by: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { $shuffle(self.0, by.0) })
        }
    };
}

macro_rules! pins {
    ($($pin:ident, $raw:ty, $register:ident, $feature:literal;)+) => {
        $(#[inline]
        #[target_feature(enable = $feature)]
        fn $pin(mut x: $raw) -> $raw {
            // SAFETY: this is no instruction at all.
            unsafe { asm!("/* {0} */", inout($register) x, options(nomem, nostack, preserves_flags)) };
            x
        })+
    };
}

pins! {
    pin_xmm, __m128i, xmm_reg, "sse2";
    pin_ymm, __m256i, ymm_reg, "avx2";
    pin_zmm, __m512i, zmm_reg, "avx512f";
}

mod xmm;
mod ymm;
mod zmm;

pub(super) use ymm::Ymm;
pub(super) use zmm::Zmm;
