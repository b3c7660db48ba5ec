//! One block: SSE, AES-NI and PCLMULQDQ.

#![allow(unsafe_code, reason = "intrinsics, which the processor must have, and their memory operands")]

use super::{super::isa::AesNi, *};

impl Xmm {
    /// Returns whether this is the block at `at`. Takes the same time wherever they differ.
    ///
    /// # Safety
    /// A block can be read at `at`.
    #[inline(always)]
    pub(in super::super) unsafe fn same(self, at: *const u8) -> bool {
        // SAFETY: SSE2 is part of every x86-64; the address by the caller's contract.
        let other = unsafe { Self(_mm_loadu_si128(at.cast())) };
        self.equal(other) == 1
    }

    /// Returns the lane as bytes.
    #[inline(always)]
    pub(in super::super) fn to_block(self) -> Block {
        let mut block = [0; 16];
        // SAFETY: a whole block.
        unsafe { self.store(block.as_mut_ptr()) };
        block
    }
}

impl Vector for Xmm {
    const LANES: usize = 1;
    const ALONE: usize = 0;
    type Isa = AesNi;

    operations!(
        _mm_xor_si128,
        _mm_and_si128,
        _mm_add_epi32,
        _mm_aesenc_si128,
        _mm_aesenclast_si128,
        _mm_clmulepi64_si128,
        _mm_shuffle_epi32,
        _mm_shuffle_epi8,
        pin_xmm
    );

    #[inline(always)]
    fn zero(_: AesNi) -> Self {
        // SAFETY: SSE2 is part of every x86-64.
        Self(unsafe { _mm_setzero_si128() })
    }

    #[inline(always)]
    unsafe fn load(_: AesNi, at: *const u8) -> Self {
        // SAFETY: by the caller's contract.
        Self(unsafe { _mm_loadu_si128(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: by the caller's contract.
        unsafe { _mm_storeu_si128(at.cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn load_lanes(isa: AesNi, at: *const u8, from: usize, to: usize) -> Self {
        match (from, to) {
            // SAFETY: by the caller's contract.
            (0, 1) => unsafe { Self::load(isa, at) },
            _ => Self::zero(isa),
        }
    }

    #[inline(always)]
    unsafe fn store_lanes(self, at: *mut u8, from: usize, to: usize) {
        if (from, to) == (0, 1) {
            // SAFETY: by the caller's contract.
            unsafe { self.store(at) };
        }
    }

    #[inline(always)]
    fn broadcast(_: AesNi, block: Xmm) -> Self {
        block
    }

    #[inline(always)]
    fn splat(isa: AesNi, block: &Block) -> Self {
        // SAFETY: a whole block.
        unsafe { Self::load(isa, block.as_ptr()) }
    }

    #[inline(always)]
    fn gather(isa: AesNi, blocks: [&Block; 4]) -> Self {
        Self::splat(isa, blocks[0])
    }

    #[inline(always)]
    unsafe fn scatter(self, to: [*mut u8; 4]) {
        // SAFETY: by the caller's contract.
        unsafe { self.store(to[0]) };
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self.xor(b).xor(c)
    }

    #[inline(always)]
    fn fold(self) -> Xmm {
        self
    }

    #[inline(always)]
    fn lane(self, _: usize) -> Xmm {
        self
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        // SAFETY: SSE2.
        Self(unsafe { _mm_cmpgt_epi8(self.0, other.0) })
    }

    #[inline(always)]
    fn equal(self, other: Self) -> u32 {
        // SAFETY: SSE2.
        let same = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(self.0, other.0)) };
        u32::from(same == 0xffff)
    }

    #[inline(always)]
    fn matches(_: AesNi, words: &[u16; 64], word: u16) -> u64 {
        let mut all = 0;
        for (i, [low, high]) in words.as_chunks::<8>().0.as_chunks::<2>().0.iter().enumerate() {
            // SAFETY: SSE2; whole blocks.
            let same = unsafe {
                let word = _mm_set1_epi16(word as i16);
                let low = _mm_cmpeq_epi16(_mm_loadu_si128(low.as_ptr().cast()), word);
                let high = _mm_cmpeq_epi16(_mm_loadu_si128(high.as_ptr().cast()), word);
                _mm_movemask_epi8(_mm_packs_epi16(low, high))
            };
            all |= (same as u64) << (16 * i);
        }
        all
    }
}
