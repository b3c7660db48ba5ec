//! Two blocks: AVX2, VAES and VPCLMULQDQ.

#![allow(unsafe_code, reason = "intrinsics, which the processor must have, and their memory operands")]

use super::{super::isa::Vaes256, *};

/// Two blocks.
#[derive(Clone, Copy)]
pub(in super::super) struct Ymm(__m256i);

impl Vector for Ymm {
    const LANES: usize = 2;
    const ALONE: usize = 20;
    type Isa = Vaes256;

    operations!(
        _mm256_xor_si256,
        _mm256_and_si256,
        _mm256_add_epi32,
        _mm256_aesenc_epi128,
        _mm256_aesenclast_epi128,
        _mm256_clmulepi64_epi128,
        _mm256_shuffle_epi32,
        _mm256_shuffle_epi8,
        pin_ymm
    );

    #[inline(always)]
    fn zero(_: Vaes256) -> Self {
        // SAFETY: the processor has the instruction, as `Vaes256` proves.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(_: Vaes256, at: *const u8) -> Self {
        // SAFETY: by the caller's contract.
        Self(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: by the caller's contract.
        unsafe { _mm256_storeu_si256(at.cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn load_lanes(isa: Vaes256, at: *const u8, from: usize, to: usize) -> Self {
        // SAFETY: by the caller's contract; each arm reads only the lanes requested.
        unsafe {
            match (from, to) {
                (0, 2) => Self::load(isa, at),
                (0, 1) => Self(_mm256_zextsi128_si256(_mm_loadu_si128(at.cast()))),
                (1, 2) => {
                    let high = _mm_loadu_si128(at.wrapping_add(16).cast());
                    Self(_mm256_inserti128_si256::<1>(_mm256_setzero_si256(), high))
                }
                _ => Self::zero(isa),
            }
        }
    }

    #[inline(always)]
    unsafe fn store_lanes(self, at: *mut u8, from: usize, to: usize) {
        // SAFETY: by the caller's contract; each arm writes only the lanes requested.
        unsafe {
            match (from, to) {
                (0, 2) => self.store(at),
                (0, 1) => self.lane(0).store(at),
                (1, 2) => self.lane(1).store(at.wrapping_add(16)),
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn broadcast(_: Vaes256, block: Xmm) -> Self {
        // SAFETY: the processor has the instruction, as `Vaes256` proves.
        Self(unsafe { _mm256_broadcastsi128_si256(block.0) })
    }

    #[inline(always)]
    fn splat(_: Vaes256, block: &Block) -> Self {
        // SAFETY: a whole block; the instruction as `Vaes256` proves.
        Self(unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(block.as_ptr().cast())) })
    }

    #[inline(always)]
    fn gather(_: Vaes256, [a, b, ..]: [&Block; 4]) -> Self {
        // SAFETY: as for `splat`.
        Self(unsafe {
            let low = _mm256_castsi128_si256(_mm_loadu_si128(a.as_ptr().cast()));
            _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(b.as_ptr().cast()))
        })
    }

    #[inline(always)]
    unsafe fn scatter(self, to: [*mut u8; 4]) {
        // SAFETY: by the caller's contract.
        unsafe {
            self.lane(0).store(to[0]);
            self.lane(1).store(to[1]);
        }
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self.xor(b).xor(c)
    }

    #[inline(always)]
    fn fold(self) -> Xmm {
        self.lane(0).xor(self.lane(1))
    }

    #[inline(always)]
    fn lane(self, lane: usize) -> Xmm {
        // SAFETY: the vector exists, so the processor has the instructions.
        Xmm(unsafe {
            match lane {
                0 => _mm256_castsi256_si128(self.0),
                _ => _mm256_extracti128_si256::<1>(self.0),
            }
        })
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_cmpgt_epi8(self.0, other.0) })
    }

    #[inline(always)]
    fn equal(self, other: Self) -> u32 {
        // SAFETY: as above.
        let same = unsafe { _mm256_movemask_epi8(_mm256_cmpeq_epi8(self.0, other.0)) } as u32;
        u32::from(same & 0xffff == 0xffff) | u32::from(same >> 16 == 0xffff) << 1
    }

    #[inline(always)]
    fn matches(isa: Vaes256, words: &[u16; 64], word: u16) -> u64 {
        Xmm::matches(isa.into(), words, word)
    }
}
