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
//! A group of vectors is hashed while the next group is encrypted.

#![allow(unsafe_code, reason = "packets are read and written a vector at a time, by pointer")]
#![allow(clippy::needless_range_loop, reason = "an index stands for the same slot in several arrays")]

use super::{
    ghash::{Ghash, Power, Sum},
    key::{POWERS, Schedule},
    packet::Packet,
    vector::{Block, Vector, Xmm, at_lane},
};
use std::mem::MaybeUninit;

/// Vectors in a group. The first group may have fewer.
const GROUP: usize = 4;

/// Shuffles the counter, which is added up in the machine's byte order, into that of the packet.
static ORDER: Block = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12];

/// Counters from -2 on, in the machine's byte order.
static COUNTERS: [[u32; 4]; 8] = {
    let mut counters = [[0; 4]; 8];
    let mut i = 0;
    while i < 8 {
        counters[i][3] = (i as u32).wrapping_sub(2);
        i += 1;
    }
    counters
};

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
    let mut tail = Tail::none(isa, nowhere.as_mut_ptr());
    while left != 0 {
        let number = left.trailing_zeros() as usize % 64;
        left &= left - 1;
        // SAFETY: by the caller's contract.
        unsafe {
            let packet = packets[number].assume_init_ref();
            let slots = packet.len().div_ceil(16) + 2;
            let vectors = slots.div_ceil(V::LANES);
            let groups = (vectors - 1) / GROUP;
            let empty = vectors * V::LANES - slots;
            let mut state = State::<V, R, SEAL>::new(isa, packet, empty);
            authentic |= match vectors - GROUP * groups {
                1 => state.walk::<1>(groups, &tail),
                2 => state.walk::<2>(groups, &tail),
                3 => state.walk::<3>(groups, &tail),
                _ => state.walk::<GROUP>(groups, &tail),
            };
            tail = state.tail(1 << number);
        }
    }
    let mut progress = TailProgress::new(isa);
    for step in 1..=STEPS {
        // SAFETY: by the caller's contract.
        authentic |= unsafe { tail.step::<SEAL>(isa, &mut progress, step) };
    }
    authentic
}

/// The rest of the work on a packet that has passed through the cipher: its last group is not
/// hashed yet.
struct Tail<V> {
    pending: [V; GROUP],
    hash: V,
    powers: [Power<V>; GROUP - 1],
    /// Hᵂ to H, for W lanes.
    last: Power<V>,
    hidden: Xmm,
    tag: *mut u8,
    /// The bit of the packet.
    bit: u64,
}

/// The progress of the work on a [`Tail`].
struct TailProgress<V> {
    ghash: Ghash<V>,
    sum: Sum<V>,
    hash: V,
}

/// Steps of a [`Tail`], one in each AES round of the next packet.
const STEPS: usize = 8;

impl<V: Vector> TailProgress<V> {
    #[inline(always)]
    fn new(isa: V::Isa) -> Self {
        Self { ghash: Ghash::new(isa), sum: Sum::new(isa), hash: V::zero(isa) }
    }
}

impl<V: Vector> Tail<V> {
    #[inline(always)]
    fn none(isa: V::Isa, tag: *mut u8) -> Self {
        let zero = V::zero(isa);
        let power = Power::new(zero);
        Self {
            pending: [zero; GROUP],
            hash: zero,
            powers: [power; GROUP - 1],
            last: power,
            hidden: zero.fold(),
            tag,
            bit: 0,
        }
    }

    /// Hashes a part of the last group. The last step writes or compares the tag, and returns the
    /// packet's bit if it is authentic.
    ///
    /// # Safety
    /// The tag can be read and written at its pointer.
    #[inline(always)]
    unsafe fn step<const SEAL: bool>(&self, isa: V::Isa, progress: &mut TailProgress<V>, step: usize) -> u64 {
        match step {
            1 | 2 => progress.sum.add(self.pending[step], self.powers[GROUP - 2 - step]),
            3 => progress.sum.add(self.pending[0].xor(self.hash), self.powers[GROUP - 2]),
            4 => progress.hash = progress.ghash.reduce(progress.sum).xor(self.pending[GROUP - 1]),
            5 => {
                progress.sum = Sum::new(isa);
                progress.sum.add(progress.hash, self.last);
            }
            6 => progress.hash = progress.ghash.reverse(progress.ghash.reduce(progress.sum)),
            STEPS => {
                let tag = progress.hash.fold().xor(self.hidden);
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
}

/// A packet while it is sealed or opened.
struct State<'a, V: Vector, const R: usize, const SEAL: bool> {
    isa: V::Isa,
    packet: &'a Packet<'a>,
    key: &'a Schedule<R>,
    ghash: Ghash<V>,
    /// H to the power of the number of lanes, and the second to fourth power of that.
    powers: [Power<V>; GROUP],
    /// The counter blocks without the counter.
    start: V,
    counter: V,
    /// The number of slots of the first vector that stay empty.
    empty: usize,
    /// The start of the next vector in the packet, and the number of bytes of text left from there
    /// on.
    at: *mut u8,
    left: usize,
    /// The group that has passed through the cipher and waits to be hashed.
    pending: [V; GROUP],
    hash: V,
    /// The encrypted first counter block, which hides the tag.
    hidden: Xmm,
}

impl<'a, V: Vector, const R: usize, const SEAL: bool> State<'a, V, R, SEAL> {
    /// # Safety
    /// The packet's key is of `R` rounds.
    #[inline(always)]
    unsafe fn new(isa: V::Isa, packet: &'a Packet<'a>, empty: usize) -> Self {
        // SAFETY: by the caller's contract.
        let key = unsafe { packet.schedule::<R>() };
        let ghash = Ghash::<V>::new(isa);
        let start = V::splat(isa, key.start()).xor(V::splat(isa, &packet.iv));
        Self {
            isa,
            packet,
            key,
            ghash,
            powers: powers(isa, ghash, key),
            start,
            // SAFETY: `empty` is at most 3, and a vector at most four blocks.
            counter: unsafe { V::load(isa, COUNTERS.as_ptr().wrapping_add(3 - empty).cast()) },
            empty,
            at: packet.text.wrapping_sub(16 * (empty + 1)),
            left: packet.len() + 16 * (empty + 1),
            pending: [V::zero(isa); GROUP],
            hash: V::zero(isa),
            hidden: start.fold(),
        }
    }

    /// Processes the first group, of `F` vectors, then `groups` more. Meanwhile finishes the packet
    /// before, and returns its bit if it is authentic.
    ///
    /// # Safety
    /// The packet has exactly these vectors.
    #[inline(always)]
    unsafe fn walk<const F: usize>(&mut self, groups: usize, before: &Tail<V>) -> u64 {
        // SAFETY: by the caller's contract.
        unsafe {
            match groups {
                0 => {
                    let bit = self.group::<F, 0, true, true>(before);
                    self.pending.rotate_right(GROUP - F);
                    bit
                }
                1 => {
                    let bit = self.group::<F, 0, true, false>(before);
                    self.group::<GROUP, F, false, true>(before);
                    bit
                }
                _ => {
                    let bit = self.group::<F, 0, true, false>(before);
                    self.group::<GROUP, F, false, false>(before);
                    for _ in 2..groups {
                        self.group::<GROUP, GROUP, false, false>(before);
                    }
                    self.group::<GROUP, GROUP, false, true>(before);
                    bit
                }
            }
        }
    }

    /// Passes the next `N` vectors through the cipher, and hashes the `P` vectors that wait. The
    /// first group finishes the packet before instead, and returns its bit.
    ///
    /// # Safety
    /// This many vectors are left. `FIRST` and `LAST` say whether it is the first and the last
    /// group.
    #[inline(always)]
    unsafe fn group<const N: usize, const P: usize, const FIRST: bool, const LAST: bool>(
        &mut self,
        before: &Tail<V>,
    ) -> u64 {
        let isa = self.isa;
        let order = V::splat(isa, &ORDER);
        // SAFETY: four counters.
        let step = V::splat(isa, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, V::LANES as u8, 0, 0, 0]);
        let mut x = [self.start; GROUP];
        for x in &mut x[..N] {
            *x = self.counter.shuffle(order).xor(self.start);
            self.counter = self.counter.add(step);
        }
        let mut sum = Sum::new(isa);
        let mut progress = TailProgress::new(isa);
        let mut bit = 0;
        each_round!(r, {
            if r < R {
                let round = V::splat(isa, self.key.round(r));
                for x in &mut x[..N] {
                    *x = x.aesenc(round).pin();
                }
                if FIRST && r <= STEPS {
                    // SAFETY: by the caller's contract.
                    bit |= unsafe { before.step::<SEAL>(isa, &mut progress, r) };
                }
                if r <= P {
                    // The block that needs the hash of all before it goes last.
                    let i = r % P.max(1);
                    let block = if i == 0 { self.pending[0].xor(self.hash) } else { self.pending[i] };
                    sum.add(block, self.powers[(P + 3 - i) % GROUP]);
                }
                if P > 0 && r == P + 1 {
                    self.hash = self.ghash.reduce(sum);
                }
            }
        });
        let last = V::splat(isa, self.key.round(R));
        for i in 0..N {
            let from = if FIRST && i == 0 { self.empty + 1 } else { 0 };
            let to = if LAST && i == N - 1 { V::LANES - 1 } else { V::LANES };
            let whole = from == 0 && to == V::LANES;
            let stream = x[i].aesenclast(last);
            // The last block of text, whole or not, is in one of these two vectors.
            let tail = LAST && i + 2 >= N;
            let mask = V::mask(isa, self.left);
            // SAFETY: these lanes hold text. The last block may reach into the tag, which is as
            // long as a block.
            unsafe {
                let input = if whole { V::load(isa, self.at) } else { V::load_lanes(isa, self.at, from, to) };
                let output = input.xor(if tail { stream.and(mask) } else { stream });
                if whole {
                    output.store(self.at);
                } else {
                    output.store_lanes(self.at, from, to);
                }
                let mut cipher = if SEAL { output } else { input };
                if tail {
                    cipher = cipher.and(mask);
                }
                if FIRST && i == 0 {
                    cipher = cipher.and(V::mask_after(isa, 16 * from));
                }
                self.pending[i] = self.ghash.reverse(cipher);
            }
            if FIRST && i == 0 {
                let place = at_lane::<V>(isa, self.empty);
                self.hidden = stream.and(place).fold();
                let aad = self.ghash.reverse(V::splat(isa, &self.packet.aad));
                self.pending[0] = self.pending[0].xor(aad.and(place));
            }
            if LAST && i == N - 1 {
                let lengths = V::splat(isa, &self.packet.lengths);
                self.pending[i] = self.pending[i].xor(lengths.and(at_lane::<V>(isa, V::LANES - 1)));
            }
            self.at = self.at.wrapping_add(16 * V::LANES);
            self.left = self.left.saturating_sub(16 * V::LANES);
        }
        bit
    }

    /// Returns the rest of the work on the packet.
    #[inline(always)]
    fn tail(&self, bit: u64) -> Tail<V> {
        let [one, two, three, _] = self.powers;
        // SAFETY: there are as many powers as the vector has lanes, down to the first.
        let last = unsafe { V::load(self.isa, self.key.power(V::LANES).as_ptr()) };
        Tail {
            pending: self.pending,
            hash: self.hash,
            powers: [one, two, three],
            last: Power::new(last),
            hidden: self.hidden,
            tag: self.packet.tag(),
            bit,
        }
    }
}

/// Returns Hᵂ, H²ᵂ, H³ᵂ and H⁴ᵂ for vectors of W lanes.
#[inline(always)]
fn powers<V: Vector, const R: usize>(isa: V::Isa, ghash: Ghash<V>, key: &Schedule<R>) -> [Power<V>; GROUP] {
    let one = V::splat(isa, key.power(V::LANES));
    let two = V::splat(isa, key.power(2 * V::LANES));
    let (three, four) = if GROUP * V::LANES <= POWERS {
        (V::splat(isa, key.power(3 * V::LANES)), V::splat(isa, key.power(4 * V::LANES)))
    } else {
        let blocks = [key.power(V::LANES), key.power(2 * V::LANES)];
        let both = ghash.multiply(isa, V::gather(isa, [blocks[0], blocks[1], blocks[0], blocks[1]]), two);
        (V::broadcast(isa, both.lane(0)), V::broadcast(isa, both.lane(1)))
    };
    [Power::new(one), Power::new(two), Power::new(three), Power::new(four)]
}
