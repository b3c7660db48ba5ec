//! Four blocks: AVX-512, VAES and VPCLMULQDQ.

#![allow(unsafe_code, reason = "intrinsics, which the processor must have, and their memory operands")]

use super::{super::isa::Vaes512, *};

/// Four blocks.
#[derive(Clone, Copy)]
pub(in super::super) struct Zmm(__m512i);

impl Zmm {
    /// Transposes four vectors of four blocks.
    #[inline(always)]
    fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: the vectors exist, so the processor has the instructions.
        unsafe {
            let ab = _mm512_shuffle_i32x4::<0x44>(a.0, b.0);
            let cd = _mm512_shuffle_i32x4::<0x44>(c.0, d.0);
            let ab_high = _mm512_shuffle_i32x4::<0xee>(a.0, b.0);
            let cd_high = _mm512_shuffle_i32x4::<0xee>(c.0, d.0);
            [
                Self(_mm512_shuffle_i32x4::<0x88>(ab, cd)),
                Self(_mm512_shuffle_i32x4::<0xdd>(ab, cd)),
                Self(_mm512_shuffle_i32x4::<0x88>(ab_high, cd_high)),
                Self(_mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high)),
            ]
        }
    }

    /// Returns a mask of 64-bit halves for the lanes `from..to`.
    #[inline(always)]
    fn halves(from: usize, to: usize) -> __mmask8 {
        ((1_u32 << (2 * to)) - (1_u32 << (2 * from))) as __mmask8
    }
}

impl Vector for Zmm {
    const LANES: usize = 4;
    const ALONE: usize = 40;
    type Isa = Vaes512;

    operations!(
        _mm512_xor_si512,
        _mm512_and_si512,
        _mm512_add_epi32,
        _mm512_aesenc_epi128,
        _mm512_aesenclast_epi128,
        _mm512_clmulepi64_epi128,
        _mm512_shuffle_epi32,
        _mm512_shuffle_epi8,
        pin_zmm
    );

    #[inline(always)]
    fn zero(_: Vaes512) -> Self {
        // SAFETY: the processor has the instruction, as `Vaes512` proves.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(_: Vaes512, at: *const u8) -> Self {
        // SAFETY: by the caller's contract.
        Self(unsafe { _mm512_loadu_si512(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_storeu_si512(at.cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn load_lanes(_: Vaes512, at: *const u8, from: usize, to: usize) -> Self {
        // SAFETY: by the caller's contract; lanes that are masked out are not read.
        Self(unsafe { _mm512_maskz_loadu_epi64(Self::halves(from, to), at.cast()) })
    }

    #[inline(always)]
    unsafe fn store_lanes(self, at: *mut u8, from: usize, to: usize) {
        // SAFETY: by the caller's contract; lanes that are masked out are not written.
        unsafe { _mm512_mask_storeu_epi64(at.cast(), Self::halves(from, to), self.0) };
    }

    #[inline(always)]
    fn broadcast(_: Vaes512, block: Xmm) -> Self {
        // SAFETY: the processor has the instruction, as `Vaes512` proves.
        Self(unsafe { _mm512_broadcast_i32x4(block.0) })
    }

    #[inline(always)]
    fn splat(_: Vaes512, block: &Block) -> Self {
        // SAFETY: a whole block; the instruction as `Vaes512` proves.
        Self(unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(block.as_ptr().cast())) })
    }

    #[inline(always)]
    fn gather(_: Vaes512, [a, b, c, d]: [&Block; 4]) -> Self {
        // SAFETY: as for `splat`.
        Self(unsafe {
            let v = _mm512_castsi128_si512(_mm_loadu_si128(a.as_ptr().cast()));
            let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(b.as_ptr().cast()));
            let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(c.as_ptr().cast()));
            _mm512_inserti32x4::<3>(v, _mm_loadu_si128(d.as_ptr().cast()))
        })
    }

    #[inline(always)]
    unsafe fn scatter(self, to: [*mut u8; 4]) {
        // SAFETY: by the caller's contract.
        unsafe {
            self.lane(0).store(to[0]);
            self.lane(1).store(to[1]);
            self.lane(2).store(to[2]);
            self.lane(3).store(to[3]);
        }
    }

    #[inline(always)]
    fn gather_rows(isa: Vaes512, [a, b, c, d]: [&Row; 4]) -> [Self; 4] {
        // SAFETY: whole rows.
        Self::transpose(unsafe {
            [
                Self::load(isa, a.as_ptr()),
                Self::load(isa, b.as_ptr()),
                Self::load(isa, c.as_ptr()),
                Self::load(isa, d.as_ptr()),
            ]
        })
    }

    #[inline(always)]
    unsafe fn scatter_rows(columns: [Self; 4], to: [*mut u8; 4]) {
        let [a, b, c, d] = Self::transpose(columns);
        // SAFETY: by the caller's contract.
        unsafe {
            a.store(to[0]);
            b.store(to[1]);
            c.store(to[2]);
            d.store(to[3]);
        }
    }

    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        // SAFETY: the vector exists, so the processor has the instruction.
        Self(unsafe { _mm512_ternarylogic_epi64::<0x96>(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn fold(self) -> Xmm {
        // SAFETY: as above.
        Xmm(unsafe {
            let half =
                _mm256_xor_si256(_mm512_castsi512_si256(self.0), _mm512_extracti64x4_epi64::<1>(self.0));
            _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
        })
    }

    #[inline(always)]
    fn lane(self, lane: usize) -> Xmm {
        // SAFETY: as above.
        Xmm(unsafe {
            match lane {
                0 => _mm512_castsi512_si128(self.0),
                1 => _mm512_extracti32x4_epi32::<1>(self.0),
                2 => _mm512_extracti32x4_epi32::<2>(self.0),
                _ => _mm512_extracti32x4_epi32::<3>(self.0),
            }
        })
    }

    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_movm_epi8(_mm512_cmpgt_epi8_mask(self.0, other.0)) })
    }

    #[inline(always)]
    fn equal(self, other: Self) -> u32 {
        // SAFETY: as above.
        let same = u32::from(unsafe { _mm512_cmpeq_epi64_mask(self.0, other.0) });
        let both = same & (same >> 1) & 0b0101_0101;
        both & 1 | (both >> 1) & 2 | (both >> 2) & 4 | (both >> 3) & 8
    }

    #[inline(always)]
    fn matches(_: Vaes512, words: &[u16; 64], word: u16) -> u64 {
        let (low, high) = words.split_at(32);
        // SAFETY: 32 words each; the instructions as `Vaes512` proves.
        unsafe {
            let word = _mm512_set1_epi16(word as i16);
            let low = _mm512_cmpeq_epi16_mask(_mm512_loadu_si512(low.as_ptr().cast()), word);
            let high = _mm512_cmpeq_epi16_mask(_mm512_loadu_si512(high.as_ptr().cast()), word);
            u64::from(low) | u64::from(high) << 32
        }
    }
}
