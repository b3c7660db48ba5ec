//! Vectors of one, two or four 128-bit blocks, and what AES-GCM does with them.
//!
//! A vector can only be made by showing the [`Isa`](Vector::Isa) whose instructions work on it, and that exists only
//! where the processor has them. So every operation on a vector that exists may be executed, and is safe to call.
//! They are inlined into the kernels' entry points, which are compiled with `#[target_feature]`.

#![allow(unsafe_code, reason = "intrinsics, which the processor must have, and their memory operands")]

use super::isa::{AesNi, Vaes256, Vaes512};
use std::arch::{asm, x86_64::*};

/// What AES works on, and GHASH.
pub(super) type Block = [u8; 16];

/// Four blocks in a row.
pub(super) type Row = [u8; 64];

/// A window that slides over it is a mask for any number of leading bytes, or for all but those.
static MASK: [u8; 192] = {
    let mut mask = [0; 192];
    let mut i = 64;
    while i < 128 {
        mask[i] = 0xff;
        i += 1;
    }
    mask
};

/// A few blocks side by side, each in a lane of its own.
///
/// Arrays of four have an element for each lane of the widest vector; a narrower one uses the first of them.
pub(super) trait Vector: Copy {
    /// Blocks in a vector.
    const LANES: usize;

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
    /// Where lane 0 stands at `at`, the blocks of these lanes can be read.
    unsafe fn load_lanes(isa: Self::Isa, at: *const u8, from: usize, to: usize) -> Self;

    /// Stores the lanes `from..to`.
    ///
    /// # Safety
    /// Where lane 0 stands at `at`, the blocks of these lanes can be written.
    unsafe fn store_lanes(self, at: *mut u8, from: usize, to: usize);

    /// The block in every lane.
    fn broadcast(isa: Self::Isa, block: Xmm) -> Self;

    /// The same block in every lane.
    fn splat(isa: Self::Isa, block: &Block) -> Self;

    /// A block from a place of its own for each lane.
    fn gather(isa: Self::Isa, blocks: [&Block; 4]) -> Self;

    /// Writes each lane to a place of its own.
    ///
    /// # Safety
    /// A block can be written at the first `LANES` of `to`.
    unsafe fn scatter(self, to: [*mut u8; 4]);

    /// First to fourth block of a row for each lane.
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

    /// Undoes [`Vector::gather_rows`].
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

    /// Carry-less product of one half of each block and one half of `other`'s; `HALVES` as the instruction has it.
    fn clmul<const HALVES: i32>(self, other: Self) -> Self;

    /// Swaps the halves of each block.
    fn swap(self) -> Self;

    /// Chooses bytes within each block.
    fn shuffle(self, by: Self) -> Self;

    /// The sum of all lanes.
    fn fold(self) -> Xmm;

    /// Ones in each byte that is greater than `other`'s, as signed numbers.
    fn greater(self, other: Self) -> Self;

    /// The same vector, computed before anything that stands behind. The compiler would rather finish one chain of
    /// AES before it begins the next, to save registers; the processor then does not find them all.
    fn pin(self) -> Self;

    /// One of the lanes.
    fn lane(self, lane: usize) -> Xmm;

    /// A bit for each lane: whether it is the same as in `other`.
    fn equal(self, other: Self) -> u32;

    /// A bit for each of `words` that is `word`.
    fn matches(isa: Self::Isa, words: &[u16; 64], word: u16) -> u64;

    /// Ones in the first `bytes` bytes of the vector, at most all of them.
    #[inline(always)]
    fn mask(isa: Self::Isa, bytes: usize) -> Self {
        // SAFETY: at most 64 bytes, from 64 to 128 on.
        unsafe { Self::load(isa, MASK.as_ptr().wrapping_add(128 - bytes.min(64))) }
    }

    /// Ones in all bytes but the first `bytes`, at most all of them.
    #[inline(always)]
    fn mask_after(isa: Self::Isa, bytes: usize) -> Self {
        // SAFETY: at most 64 bytes, from 0 to 64 on.
        unsafe { Self::load(isa, MASK.as_ptr().wrapping_add(64 - bytes.min(64))) }
    }
}

/// Ones in one lane.
#[inline(always)]
pub(super) fn at_lane<V: Vector>(isa: V::Isa, lane: usize) -> V {
    static LANES: [Block; 7] = [[0; 16], [0; 16], [0; 16], [0xff; 16], [0; 16], [0; 16], [0; 16]];
    // SAFETY: four blocks at most, from one of the first four.
    unsafe { V::load(isa, LANES[3 - lane..].as_ptr().cast()) }
}

/// One block: SSE, AES-NI and PCLMULQDQ.
#[derive(Clone, Copy)]
pub(super) struct Xmm(__m128i);

/// Two blocks: AVX2, VAES and VPCLMULQDQ.
#[derive(Clone, Copy)]
pub(super) struct Ymm(__m256i);

/// Four blocks: AVX-512, VAES and VPCLMULQDQ.
#[derive(Clone, Copy)]
pub(super) struct Zmm(__m512i);

/// The operations that differ in the names of their intrinsics only.
macro_rules! operations {
    ($xor:ident, $and:ident, $add:ident, $enc:ident, $last:ident, $clmul:ident, $swap:ident, $shuffle:ident, $pin:ident) => {
        #[inline(always)]
        fn pin(self) -> Self {
            // SAFETY: the processor has the registers, for the vector exists.
            Self(unsafe { $pin(self.0) })
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            // SAFETY: the processor has the instruction, for the vector exists.
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
            // SAFETY: no instruction at all.
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

impl Xmm {
    /// Whether it is the block at `at`; takes the same time wherever they differ.
    ///
    /// # Safety
    /// A block can be read there.
    #[inline(always)]
    pub(super) unsafe fn same(self, at: *const u8) -> bool {
        // SAFETY: SSE2 is part of every x86-64; the address by the caller's contract.
        let other = unsafe { Self(_mm_loadu_si128(at.cast())) };
        self.equal(other) == 1
    }

    /// The lane as bytes.
    #[inline(always)]
    pub(super) fn to_block(self) -> Block {
        let mut block = [0; 16];
        // SAFETY: a whole block.
        unsafe { self.store(block.as_mut_ptr()) };
        block
    }
}

impl Vector for Xmm {
    const LANES: usize = 1;
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

impl Vector for Ymm {
    const LANES: usize = 2;
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
        // SAFETY: by the caller's contract; each arm reads the lanes asked for alone.
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
        // SAFETY: by the caller's contract; each arm writes the lanes asked for alone.
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
        // SAFETY: the processor has the instructions, for the vector exists.
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

impl Zmm {
    /// Transposes four vectors of four blocks.
    #[inline(always)]
    fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: the processor has the instructions, for the vectors exist.
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

    /// A mask of 64-bit halves for the lanes `from..to`.
    #[inline(always)]
    fn halves(from: usize, to: usize) -> __mmask8 {
        ((1_u32 << (2 * to)) - (1_u32 << (2 * from))) as __mmask8
    }
}

impl Vector for Zmm {
    const LANES: usize = 4;
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
        // SAFETY: the processor has the instruction, for the vector exists.
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
