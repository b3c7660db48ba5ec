//! Kernel for long packets, one at a time: its blocks are side by side in the lanes of the vectors.
//!
//! The hash covers the additional data, the text and the lengths. The cipher hides the tag, then
//! the text. So both run over the same vectors, with counter 1 in the slot of the additional data.
//! Empty slots come first. So the lengths are always in the last lane, and the powers of the hash
//! key for a vector are the same for any length:
//!
//! ```text
//! hash     │   -  aad   c0   c1 │  c2   c3 ...      │ ...  cn  len │
//! counter  │   -    1    2    3 │   4    5 ...      │ ... n+2    - │
//! ```
//!
//! A group of vectors is hashed while the next group is encrypted. The last group of a packet is
//! hashed while the first group of the next packet is encrypted.

#![allow(unsafe_code, reason = "packets are read and written a vector at a time, by pointer")]
#![allow(clippy::needless_range_loop, reason = "an index stands for the same slot in several arrays")]

use super::{
    counters::Counters,
    ghash::{Ghash, Power, Sum},
    key::Schedule,
    packet::Packet,
    vector::{Vector, at_lane},
};
use std::{arch::asm, mem::MaybeUninit};

/// Vectors in half a group: the hash is reduced after each half.
const HALF: usize = 4;

/// The number of vectors that pass through the cipher together: enough for the steps of AES to follow each
/// other without a pause. The first group of a packet may have fewer.
const GROUP: usize = 2 * HALF;

/// Seals or opens the packets whose bits are set in `left`. Returns a bit for each packet that is
/// authentic: all of them when sealing.
///
/// # Safety
/// These packets exist, have keys of `R` rounds and text that fills two vectors or more, and nobody
/// else uses their text.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const R: usize, const SEAL: bool>(
    isa: V::Isa,
    packets: &[MaybeUninit<Packet<'_>>; 64],
    mut left: u64,
) -> u64 {
    let mut authentic = 0;
    // No packet comes before the first one; the tag of that empty packet is discarded.
    let mut nowhere = [0; 16];
    // Not in the hasher: `forget` would keep all of that in memory.
    let mut powers = [Power::new(V::zero(isa)); HALF];
    let mut hasher = Hasher::<V, SEAL>::new(isa, nowhere.as_mut_ptr(), &mut powers);
    while left != 0 {
        let number = left.trailing_zeros() as usize % 64;
        left &= left - 1;
        // SAFETY: by the caller's contract.
        unsafe {
            let packet = packets[number].assume_init_ref();
            let slots = packet.blocks() + 2;
            let vectors = slots.div_ceil(V::LANES);
            let groups = (vectors - 1) / GROUP;
            let mut text = Text::<V, R>::new(isa, packet, vectors * V::LANES - slots);
            let last = groups == 0;
            authentic |= match vectors - GROUP * groups {
                1 => hasher.first::<R, 1>(&mut text, last),
                2 => hasher.first::<R, 2>(&mut text, last),
                3 => hasher.first::<R, 3>(&mut text, last),
                4 => hasher.first::<R, 4>(&mut text, last),
                5 => hasher.first::<R, 5>(&mut text, last),
                6 => hasher.first::<R, 6>(&mut text, last),
                7 => hasher.first::<R, 7>(&mut text, last),
                _ => hasher.first::<R, 8>(&mut text, last),
            };
            hasher.take(&text, 1 << number);
            match (groups, hasher.halves) {
                (0, _) => {}
                (1, 1) => hasher.group::<R, 1, true>(&mut text),
                (1, _) => hasher.group::<R, 2, true>(&mut text),
                (_, halves) => {
                    let mut middle = 1;
                    if halves == 1 {
                        hasher.group::<R, 1, false>(&mut text);
                        middle += 1;
                    }
                    for _ in middle..groups {
                        hasher.group::<R, 2, false>(&mut text);
                    }
                    hasher.group::<R, 2, true>(&mut text);
                }
            }
        }
    }
    // SAFETY: the tag is that of the last packet.
    authentic | unsafe { hasher.finish() }
}

/// A packet on its way through the cipher.
struct Text<'a, V, const R: usize> {
    packet: &'a Packet<'a>,
    key: &'a Schedule<R>,
    counters: Counters<V>,
    /// The number of slots of the first vector that stay empty.
    empty: usize,
    /// The start of the next vector in the packet, and the number of bytes of text left from there
    /// on.
    at: *mut u8,
    left: usize,
}

impl<'a, V: Vector, const R: usize> Text<'a, V, R> {
    /// # Safety
    /// The packet's key is of `R` rounds.
    #[inline(always)]
    unsafe fn new(isa: V::Isa, packet: &'a Packet<'a>, empty: usize) -> Self {
        // SAFETY: by the caller's contract.
        let key = unsafe { packet.schedule::<R>() };
        let start = V::splat(isa, key.start()).xor(V::splat(isa, &packet.iv));
        Self {
            packet,
            key,
            counters: Counters::new(start, empty),
            empty,
            at: packet.text.wrapping_sub(16 * (empty + 1)),
            left: packet.len() + 16 * (empty + 1),
        }
    }

    /// Encrypts or decrypts the lanes `from..to` of the next vector, of which the others hold no text.
    /// Returns the ciphertext in the byte order of the hash. `ends` if the text may end in it.
    ///
    /// # Safety
    /// This vector is left.
    #[inline(always)]
    unsafe fn apply<const SEAL: bool>(
        &mut self,
        isa: V::Isa,
        ghash: Ghash<V>,
        stream: V,
        (from, to): (usize, usize),
        ends: bool,
    ) -> V {
        let whole = from == 0 && to == V::LANES;
        let mask = V::mask(isa, self.left);
        // SAFETY: these lanes hold text. The last block may reach into the tag, which is as long as
        // a block.
        let (input, output) = unsafe {
            let input = if whole { V::load(isa, self.at) } else { V::load_lanes(isa, self.at, from, to) };
            let output = input.xor(if ends { stream.and(mask) } else { stream });
            if whole {
                output.store(self.at);
            } else {
                output.store_lanes(self.at, from, to);
            }
            (input, output)
        };
        self.at = self.at.wrapping_add(16 * V::LANES);
        self.left = self.left.saturating_sub(16 * V::LANES);
        let cipher = if SEAL { output } else { input };
        ghash.reverse(if ends { cipher.and(mask) } else { cipher })
    }
}

/// The hash of a packet, as far as it is computed.
struct Hasher<'p, V: Vector, const SEAL: bool> {
    isa: V::Isa,
    ghash: Ghash<V>,
    /// H to the power of the number of lanes, and the second to fourth power of that.
    powers: &'p mut [Power<V>; HALF],
    /// Hᵂ to H, for W lanes.
    last: Power<V>,
    /// The group that has passed through the cipher and waits to be hashed: its last half or both.
    pending: [V; GROUP],
    halves: usize,
    hash: V,
    /// The encrypted first counter block, which hides the tag, in one of the lanes.
    hidden: V,
    tag: *mut u8,
    /// The bit of the packet.
    bit: u64,
}

/// The progress of the work on the last half of a packet.
struct TailProgress<V> {
    sum: Sum<V>,
    hash: V,
}

impl<V: Vector> TailProgress<V> {
    #[inline(always)]
    fn new(isa: V::Isa) -> Self {
        Self { sum: Sum::new(isa), hash: V::zero(isa) }
    }
}

/// Steps in which the last half is hashed, one in each AES round of the next packet.
const STEPS: usize = 8;

impl<'p, V: Vector, const SEAL: bool> Hasher<'p, V, SEAL> {
    #[inline(always)]
    fn new(isa: V::Isa, tag: *mut u8, powers: &'p mut [Power<V>; HALF]) -> Self {
        let zero = V::zero(isa);
        let power = Power::new(zero);
        Self {
            isa,
            ghash: Ghash::new(isa),
            powers,
            last: power,
            pending: [zero; GROUP],
            halves: 1,
            hash: zero,
            hidden: zero,
            tag,
            bit: 0,
        }
    }

    /// Passes the first group of a packet, of `N` vectors, through the cipher. `last` if no other
    /// follows. Meanwhile finishes the packet before, and returns its bit if it is authentic.
    ///
    /// # Safety
    /// The packet has these vectors. The tag of the one before is still there.
    #[inline(always)]
    unsafe fn first<const R: usize, const N: usize>(&mut self, text: &mut Text<'_, V, R>, last: bool) -> u64 {
        let isa = self.isa;
        let mut x = text.counters.next::<N>(isa);
        self.first_half();
        let mut progress = TailProgress::new(isa);
        let mut bit = 0;
        each_round!(r, {
            if r < R {
                let round = V::splat(isa, text.key.round(r));
                for x in &mut x {
                    *x = x.aesenc(round).pin();
                }
                if r <= STEPS {
                    // SAFETY: by the caller's contract.
                    bit |= unsafe { self.step(&mut progress, r) };
                }
            }
        });
        let key = V::splat(isa, text.key.round(R));
        self.halves = N.div_ceil(HALF);
        self.hash = V::zero(isa);
        let padding = N.next_multiple_of(HALF) - N;
        unroll!(i in [0 1 2 3 4 5 6 7] {
            let to = if last && i == N - 1 { V::LANES - 1 } else { V::LANES };
            // SAFETY: by the caller's contract.
            unsafe {
                if i == 0 {
                    let stream = x[i].aesenclast(key);
                    let from = text.empty + 1;
                    let cipher = text.apply::<SEAL>(isa, self.ghash, stream, (from, to), N <= 2);
                    let place = at_lane::<V>(isa, text.empty);
                    let aad = self.ghash.reverse(V::splat(isa, &text.packet.aad));
                    self.pending[GROUP - N] = cipher.and(V::mask_after(isa, 16 * from)).xor(aad.and(place));
                    self.hidden = stream.and(place);
                } else if i < N {
                    let stream = x[i].aesenclast(key);
                    self.pending[GROUP - N + i] =
                        text.apply::<SEAL>(isa, self.ghash, stream, (0, to), i + 2 >= N);
                }
            }
            if i < padding {
                self.pending[GROUP - N - padding + i] = V::zero(isa);
            }
        });
        if last {
            self.end(text);
        }
        bit
    }

    /// Adds the lengths of a packet to its last slot.
    #[inline(always)]
    fn end<const R: usize>(&mut self, text: &Text<'_, V, R>) {
        let lengths = V::splat(self.isa, &text.packet.lengths);
        let slot = &mut self.pending[GROUP - 1];
        *slot = slot.xor(lengths.and(at_lane::<V>(self.isa, V::LANES - 1)));
    }

    /// Turns to a packet whose first group waits.
    #[inline(always)]
    fn take<const R: usize>(&mut self, text: &Text<'_, V, R>, bit: u64) {
        *self.powers = powers(self.isa, self.ghash, text.key);
        // SAFETY: there are as many powers as the vector has lanes, down to the first.
        self.last = Power::new(unsafe { V::load(self.isa, text.key.power(V::LANES).as_ptr()) });
        self.tag = text.packet.tag();
        self.bit = bit;
    }

    /// Passes the next group through the cipher, and hashes what waits.
    ///
    /// # Safety
    /// The group is left, `LAST` if it is the last one. `HALVES` wait.
    #[inline(always)]
    unsafe fn group<const R: usize, const HALVES: usize, const LAST: bool>(
        &mut self,
        text: &mut Text<'_, V, R>,
    ) {
        let isa = self.isa;
        let mut x = text.counters.next::<GROUP>(isa);
        let mut sum = Sum::new(isa);
        each_round!(r, {
            if r < R {
                let round = V::splat(isa, text.key.round(r));
                for x in &mut x {
                    *x = x.aesenc(round).pin();
                }
                if r > HALF && r % HALF == 1 && r <= HALF * HALVES + 1 {
                    self.hash = self.ghash.reduce(sum);
                    sum = Sum::new(isa);
                    if r < HALF * HALVES {
                        forget(self.powers);
                    }
                }
                if r <= HALF * HALVES {
                    // The vector that needs the hash of all before it goes last.
                    self.add(&mut sum, (2 - HALVES + (r - 1) / HALF) * HALF + r % HALF);
                    sum.pin();
                }
            }
        });
        let key = V::splat(isa, text.key.round(R));
        unroll!(i in [0 1 2 3 4 5 6 7] {
            let to = if LAST && i == GROUP - 1 { V::LANES - 1 } else { V::LANES };
            // The last block of text, whole or not, is in one of the last two vectors.
            let ends = LAST && i + 2 >= GROUP;
            // SAFETY: by the caller's contract.
            self.pending[i] =
                unsafe { text.apply::<SEAL>(isa, self.ghash, x[i].aesenclast(key), (0, to), ends) };
        });
        if LAST {
            self.end(text);
        }
        self.halves = GROUP / HALF;
    }

    /// Adds the product of vector `i` of those that wait to the sum of its half.
    #[inline(always)]
    fn add(&self, sum: &mut Sum<V>, i: usize) {
        let block = if i.is_multiple_of(HALF) { self.pending[i].xor(self.hash) } else { self.pending[i] };
        sum.add(block, self.powers[HALF - 1 - i % HALF]);
    }

    /// Hashes the first half of what waits, if both wait.
    #[inline(always)]
    fn first_half(&mut self) {
        if self.halves == 2 {
            let mut sum = Sum::new(self.isa);
            unroll!(i in [1 2 3 0] {
                self.add(&mut sum, i);
            });
            self.hash = self.ghash.reduce(sum);
        }
    }

    /// Hashes a part of the last half. The last step writes or compares the tag, and returns the
    /// packet's bit if it is authentic.
    ///
    /// # Safety
    /// The tag can be read and written at its pointer.
    #[inline(always)]
    unsafe fn step(&self, progress: &mut TailProgress<V>, step: usize) -> u64 {
        let pending = |i: usize| self.pending[HALF + i];
        match step {
            1 | 2 => progress.sum.add(pending(step), self.powers[HALF - 2 - step]),
            3 => progress.sum.add(pending(0).xor(self.hash), self.powers[HALF - 2]),
            4 => progress.hash = self.ghash.reduce(progress.sum).xor(pending(HALF - 1)),
            5 => {
                progress.sum = Sum::new(self.isa);
                progress.sum.add(progress.hash, self.last);
            }
            6 => progress.hash = self.ghash.reverse(self.ghash.reduce(progress.sum)),
            STEPS => {
                let tag = progress.hash.xor(self.hidden).fold();
                // SAFETY: by the caller's contract.
                let same = unsafe {
                    if SEAL {
                        tag.store(self.tag);
                        true
                    } else {
                        tag.same(self.tag)
                    }
                };
                return if same { self.bit } else { 0 };
            }
            _ => {}
        }
        0
    }

    /// Finishes the last packet. Returns its bit if it is authentic.
    ///
    /// # Safety
    /// The tag can be read and written at its pointer.
    #[inline(always)]
    unsafe fn finish(&mut self) -> u64 {
        self.first_half();
        let mut progress = TailProgress::new(self.isa);
        let mut bit = 0;
        unroll!(step in [1 2 3 4 5 6 7 8] {
            // SAFETY: by the caller's contract.
            bit |= unsafe { self.step(&mut progress, step) };
        });
        bit
    }
}

/// Returns Hᵂ, H²ᵂ, H³ᵂ and H⁴ᵂ for vectors of W lanes.
#[inline(always)]
fn powers<V: Vector, const R: usize>(isa: V::Isa, ghash: Ghash<V>, key: &Schedule<R>) -> [Power<V>; HALF] {
    let one = V::splat(isa, key.power(V::LANES));
    let (two, three, four) = match V::LANES {
        1 => (V::splat(isa, key.power(2)), V::splat(isa, key.power(3)), V::splat(isa, key.power(4))),
        2 => {
            let two = V::splat(isa, key.power(4));
            (two, ghash.multiply(isa, one, two), V::splat(isa, key.eighth()))
        }
        _ => {
            let two = V::splat(isa, key.eighth());
            let blocks = [key.power(V::LANES), key.eighth()];
            let both = ghash.multiply(isa, V::gather(isa, [blocks[0], blocks[1], blocks[0], blocks[1]]), two);
            (two, V::broadcast(isa, both.lane(0)), V::broadcast(isa, both.lane(1)))
        }
    };
    [Power::new(one), Power::new(two), Power::new(three), Power::new(four)]
}

/// Has values be read from memory again where they are used next. Otherwise the compiler would copy
/// them within the stack, for lack of registers.
#[inline(always)]
fn forget<T>(values: &mut T) {
    // SAFETY: this is no instruction. It lets the compiler assume that the values were written.
    unsafe { asm!("/* {} */", in(reg) &raw mut *values, options(nostack, preserves_flags)) };
}
