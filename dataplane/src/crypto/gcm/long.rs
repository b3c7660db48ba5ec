//! Long packets, one at a time: its blocks stand side by side in the lanes of the vectors.
//!
//! The hash is over the additional data, the text and the lengths; the cipher hides the tag, then the text. So both
//! run over the same vectors, with counter 1 where the additional data stands. Empty slots come first, so that the
//! lengths are always in the last lane, and a vector's powers of the hash key are the same for any length:
//!
//! ```text
//! hash     │   -  aad   c0   c1 │  c2   c3 ...      │ ...  cn  len │
//! counter  │   -    1    2    3 │   4    5 ...      │ ... n+2    - │
//! ```
//!
//! The hash of a group of vectors runs while the next group is encrypted.

#![allow(unsafe_code, reason = "packets are read and written a vector at a time, by pointer")]

use super::{
    Packet,
    ghash::{Ghash, Power, Sum},
    key::{POWERS, Schedule},
    vector::{Block, Vector, Xmm, at_lane},
};

/// Vectors in a group, all but the first.
const GROUP: usize = 4;

/// Rounds of AES at most.
const ROUNDS: usize = 14;

/// Puts the counter, which is added up in the machine's order, in the order of the packet.
static ORDER: Block = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12];

/// Counters from -2 on, in the machine's order.
static COUNTERS: [[u32; 4]; 8] = {
    let mut counters = [[0; 4]; 8];
    let mut i = 0;
    while i < 8 {
        counters[i][3] = (i as u32).wrapping_sub(2);
        i += 1;
    }
    counters
};

/// Seals or opens a packet; says whether it is authentic, which it always is when sealed.
///
/// # Safety
/// The packet's key is of `R` rounds, nobody else uses its text, and that fills two vectors or more.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const R: usize, const SEAL: bool>(
    isa: V::Isa,
    packet: &Packet<'_>,
) -> bool {
    // SAFETY: by the caller's contract.
    let key = unsafe { packet.schedule::<R>() };
    let slots = packet.len().div_ceil(16) + 2;
    let vectors = slots.div_ceil(V::LANES);
    let groups = (vectors - 1) / GROUP;
    // SAFETY: by the caller's contract.
    unsafe {
        let mut state = State::<V, R, SEAL>::new(isa, packet, key, vectors * V::LANES - slots);
        match vectors - GROUP * groups {
            1 => state.walk::<1>(groups),
            2 => state.walk::<2>(groups),
            3 => state.walk::<3>(groups),
            _ => state.walk::<GROUP>(groups),
        }
    }
}

/// A packet on its way through.
struct State<'a, V: Vector, const R: usize, const SEAL: bool> {
    isa: V::Isa,
    packet: &'a Packet<'a>,
    key: &'a Schedule<R>,
    ghash: Ghash<V>,
    /// The round keys from the first on.
    rounds: [V; ROUNDS],
    /// H to the number of lanes, and its second to fourth power.
    powers: [Power<V>; GROUP],
    /// The counter blocks, but for the counter.
    start: V,
    counter: V,
    /// Slots of the first vector that stay empty.
    empty: usize,
    /// Where the next vector stands in the packet, and how many bytes of text are left from there on.
    at: *mut u8,
    left: usize,
    /// The group that went through the cipher and waits to be hashed.
    pending: [V; GROUP],
    hash: V,
    /// What hides the tag.
    hidden: Xmm,
}

impl<'a, V: Vector, const R: usize, const SEAL: bool> State<'a, V, R, SEAL> {
    #[inline(always)]
    fn new(isa: V::Isa, packet: &'a Packet<'a>, key: &'a Schedule<R>, empty: usize) -> Self {
        let ghash = Ghash::<V>::new(isa);
        let mut rounds = [V::zero(isa); ROUNDS];
        for r in 1..=R {
            rounds[r - 1] = V::splat(isa, key.round(r));
        }
        let start = V::splat(isa, key.start()).xor(V::splat(isa, &packet.iv));
        Self {
            isa,
            packet,
            key,
            ghash,
            rounds,
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

    /// The first group, of `F` vectors, then as many more as `groups` says.
    ///
    /// # Safety
    /// These are the packet's vectors.
    #[inline(always)]
    unsafe fn walk<const F: usize>(&mut self, groups: usize) -> bool {
        // SAFETY: by the caller's contract.
        unsafe {
            if groups == 0 {
                self.group::<F, 0, true, true>();
                return self.finish::<F>();
            }
            self.group::<F, 0, true, false>();
            if groups == 1 {
                self.group::<GROUP, F, false, true>();
            } else {
                self.group::<GROUP, F, false, false>();
                for _ in 2..groups {
                    self.group::<GROUP, GROUP, false, false>();
                }
                self.group::<GROUP, GROUP, false, true>();
            }
            self.finish::<GROUP>()
        }
    }

    /// Passes the next `N` vectors through the cipher, and hashes the `P` that wait.
    ///
    /// # Safety
    /// So many vectors are left; `FIRST` and `LAST` say whether it is the first and the last group.
    #[inline(always)]
    unsafe fn group<const N: usize, const P: usize, const FIRST: bool, const LAST: bool>(&mut self) {
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
        for r in 1..R {
            for x in &mut x[..N] {
                *x = x.aesenc(self.rounds[r - 1]).pin();
            }
            if r <= P {
                // The one that needs the hash so far goes last.
                let i = r % P;
                let block = if i == 0 { self.pending[0].xor(self.hash) } else { self.pending[i] };
                sum.add(block, self.powers[P - 1 - i]);
                sum.pin();
            }
            if P > 0 && r == P + 2 {
                self.hash = self.ghash.reduce(sum);
            }
        }
        for i in 0..N {
            let from = if FIRST && i == 0 { self.empty + 1 } else { 0 };
            let to = if LAST && i == N - 1 { V::LANES - 1 } else { V::LANES };
            let whole = from == 0 && to == V::LANES;
            let stream = x[i].aesenclast(self.rounds[R - 1]);
            // The last block of text, whole or not, ends in these two vectors.
            let tail = LAST && i + 2 >= N;
            let mask = V::mask(isa, self.left);
            // SAFETY: these lanes hold text, of which the last block may reach into the tag, as long as a block.
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
    }

    /// Hashes the last `P` vectors; writes or compares the tag.
    ///
    /// # Safety
    /// The packet has gone through the cipher.
    #[inline(always)]
    unsafe fn finish<const P: usize>(&self) -> bool {
        let isa = self.isa;
        let mut sum = Sum::new(isa);
        for i in 0..P - 1 {
            let block = if i == 0 { self.pending[0].xor(self.hash) } else { self.pending[i] };
            sum.add(block, self.powers[P - 2 - i]);
        }
        let hash = if P == 1 { self.hash } else { self.ghash.reduce(sum) };
        // SAFETY: as many powers as the vector has lanes, down to the first.
        let powers = unsafe { V::load(isa, self.key.power(V::LANES).as_ptr()) };
        let hash = self.ghash.multiply(isa, hash.xor(self.pending[P - 1]), powers);
        let tag = self.ghash.reverse(hash).fold().xor(self.hidden);
        // SAFETY: a packet ends with its tag.
        unsafe {
            if SEAL {
                tag.store(self.packet.tag());
                return true;
            }
            tag.same(self.packet.tag())
        }
    }
}

/// Hᵂ, H²ᵂ, H³ᵂ and H⁴ᵂ for vectors of W lanes.
#[inline(always)]
fn powers<V: Vector, const R: usize>(isa: V::Isa, ghash: Ghash<V>, key: &Schedule<R>) -> [Power<V>; GROUP] {
    let [one, two] = [1, 2].map(|i| V::splat(isa, key.power(i * V::LANES)));
    let (three, four) = if GROUP * V::LANES <= POWERS {
        (V::splat(isa, key.power(3 * V::LANES)), V::splat(isa, key.power(4 * V::LANES)))
    } else {
        let blocks = [key.power(V::LANES), key.power(2 * V::LANES)];
        let both = ghash.multiply(isa, V::gather(isa, [blocks[0], blocks[1], blocks[0], blocks[1]]), two);
        (V::broadcast(isa, both.lane(0)), V::broadcast(isa, both.lane(1)))
    };
    [Power::new(one), Power::new(two), Power::new(three), Power::new(four)]
}
