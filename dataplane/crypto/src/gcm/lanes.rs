//! Kernel for short packets: one in each lane of the vectors, whatever their keys.
//!
//! The few blocks of one packet would wait for each other; those of several packets fill the
//! pipelines. While one group of packets passes through the cipher, the group before it is hashed.

#![allow(unsafe_code, reason = "packets are written through pointers, for one may stand in several lanes")]
#![allow(clippy::needless_range_loop, reason = "an index stands for the same slot in several arrays")]

use super::{
    ghash::{Ghash, Power, Sum},
    key::{POWERS, Schedule},
    packet::Packet,
    vector::{Block, Row, Vector},
};
use std::mem::MaybeUninit;

/// The largest number of blocks of text in a packet for this kernel.
pub(super) const MOST_BLOCKS: usize = 9;

/// Seals or opens the packets whose bits are set in `left`. All have `N` blocks of text; the last
/// one may be shorter. Returns a bit for each packet that is authentic: all of them when sealing.
///
/// # Safety
/// These packets exist, have keys of `R` rounds, and nobody else uses their text.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const R: usize, const N: usize, const SEAL: bool>(
    isa: V::Isa,
    packets: &[MaybeUninit<Packet<'_>>; 64],
    mut left: u64,
) -> u64 {
    let kernel = LaneKernel::<V> { isa, ghash: Ghash::new(isa) };
    let mut authentic = 0;
    // SAFETY: by the caller's contract, for all that follows.
    unsafe {
        let group = Group::take::<V>(packets, &mut left);
        let (mut waiting, _) = kernel.encrypt::<R, N, SEAL>(group, None);
        while left != 0 {
            let group = Group::take::<V>(packets, &mut left);
            let (next, tag) = kernel.encrypt::<R, N, SEAL>(group, Some(&waiting));
            authentic |= waiting.of.finish::<V, SEAL>(tag, waiting.received);
            waiting = next;
        }
        let mut hash = kernel.hash(&waiting);
        for i in 0..N + 2 {
            hash.step::<R, N>(&kernel, &waiting, i);
        }
        authentic | waiting.of.finish::<V, SEAL>(hash.tag(&kernel, &waiting), waiting.received)
    }
}

/// A packet for each lane. The same packet may be in several lanes, because everything is read
/// before anything is written.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    numbers: [usize; 4],
    pub(super) packets: [&'a Packet<'a>; 4],
}

impl<'a> Group<'a> {
    /// Takes the next packets of `left`. If they are fewer than the lanes, the first one fills the
    /// rest.
    ///
    /// # Safety
    /// The packets whose bits are set exist.
    #[inline(always)]
    pub(super) unsafe fn take<V: Vector>(packets: &'a [MaybeUninit<Packet<'a>>; 64], left: &mut u64) -> Self {
        let mut numbers = [left.trailing_zeros() as usize % 64; 4];
        for number in &mut numbers[..V::LANES] {
            if *left != 0 {
                *number = left.trailing_zeros() as usize % 64;
                *left &= *left - 1;
            }
        }
        // SAFETY: by the caller's contract.
        Self { numbers, packets: each!(numbers, |i| unsafe { packets[i].assume_init_ref() }) }
    }

    /// Writes the tags, or compares them with `received`. Returns a bit for each packet that is
    /// authentic.
    ///
    /// # Safety
    /// Nobody else uses the packets.
    #[inline(always)]
    pub(super) unsafe fn finish<V: Vector, const SEAL: bool>(&self, tag: V, received: V) -> u64 {
        if SEAL {
            // SAFETY: packets end with their tags. The last block of text may have overwritten
            // them.
            unsafe { tag.scatter(each!(self.packets, |p| p.tag())) };
            return !0;
        }
        let same = tag.equal(received);
        let mut authentic = 0;
        for lane in 0..V::LANES {
            authentic |= u64::from(same >> lane & 1) << self.numbers[lane];
        }
        authentic
    }
}

/// The values that every group needs.
#[derive(Clone, Copy)]
struct LaneKernel<V: Vector> {
    isa: V::Isa,
    ghash: Ghash<V>,
}

/// A group that has passed through the cipher and waits to be hashed.
struct PendingGroup<'a, V, const R: usize> {
    of: Group<'a>,
    keys: [&'a Schedule<R>; 4],
    /// Ciphertext, byte-reversed.
    blocks: [V; MOST_BLOCKS],
    aad: V,
    lengths: V,
    /// The encrypted first counter blocks, which hide the tags, and the tags that came with the
    /// packets.
    hidden: V,
    received: V,
}

/// The hash of a group, computed a block at a time.
struct Hash<V> {
    sum: Sum<V>,
    /// H⁴ to H¹ for vectors of four lanes, which are transposed when they are loaded. There are registers for
    /// them, as there are not for those of shorter vectors.
    powers: [V; POWERS],
}

impl<V: Vector> Hash<V> {
    /// Adds block `i` of additional data, text and lengths. The blocks are hashed by as many as there are
    /// powers; the hash of those before is added to the first one of the next.
    #[inline(always)]
    fn step<const R: usize, const N: usize>(
        &mut self,
        kernel: &LaneKernel<V>,
        waiting: &PendingGroup<'_, V, R>,
        i: usize,
    ) {
        let mut block = match i {
            0 => waiting.aad,
            i if i <= N => waiting.blocks[i - 1],
            _ => waiting.lengths,
        };
        let exponent = (N + 1 - i) % POWERS + 1;
        if i > 0 && exponent == POWERS {
            block = block.xor(kernel.ghash.reduce(self.sum));
            self.sum = Sum::new(kernel.isa);
        }
        let power = if V::LANES == 4 {
            self.powers[POWERS - exponent]
        } else {
            V::gather(kernel.isa, each!(waiting.keys, |k| k.power(exponent)))
        };
        self.sum.add(block, Power::new(power));
    }

    #[inline(always)]
    fn tag<const R: usize>(&self, kernel: &LaneKernel<V>, waiting: &PendingGroup<'_, V, R>) -> V {
        kernel.ghash.reverse(kernel.ghash.reduce(self.sum)).xor(waiting.hidden)
    }
}

impl<V: Vector> LaneKernel<V> {
    #[inline(always)]
    fn hash<const R: usize>(&self, waiting: &PendingGroup<'_, V, R>) -> Hash<V> {
        let powers = V::gather_rows(self.isa, each!(waiting.keys, |k| k.powers()));
        Hash { sum: Sum::new(self.isa), powers }
    }

    /// Passes a group through the cipher and hashes the group before, if there is one. Returns the
    /// new group, and the tags of the one before.
    ///
    /// # Safety
    /// The keys of the group are of `R` rounds, its packets have `N` blocks, and nobody else uses
    /// them.
    #[inline(always)]
    unsafe fn encrypt<'a, const R: usize, const N: usize, const SEAL: bool>(
        &self,
        of: Group<'a>,
        before: Option<&PendingGroup<'a, V, R>>,
    ) -> (PendingGroup<'a, V, R>, V) {
        let Self { isa, ghash } = *self;
        let packets = of.packets;
        // SAFETY: by the caller's contract.
        let keys: [&Schedule<R>; 4] = each!(packets, |p| unsafe { p.schedule() });
        let text: [*mut u8; 4] = each!(packets, |p| p.text);
        let aad = ghash.reverse(V::gather(isa, each!(packets, |p| &p.aad)));
        let mut hash =
            before.map_or(Hash { sum: Sum::new(isa), powers: [aad; POWERS] }, |before| self.hash(before));

        // The counter is 1 for the block that hides the tag, 2 for the first block of text.
        let start = V::gather(isa, each!(keys, |k| k.start())).xor(V::gather(isa, each!(packets, |p| &p.iv)));
        let mut x = [start; MOST_BLOCKS + 1];
        for i in 0..=N {
            x[i] = start.xor(V::splat(isa, &COUNTERS[i]));
        }
        let mut rounds = [start; 4];
        each_round!(r, {
            if r % 4 == 1 && r <= R {
                rounds = gather_rounds(isa, keys, r);
            }
            if r < R {
                for x in &mut x[..=N] {
                    *x = x.aesenc(rounds[(r - 1) % 4]).pin();
                }
                if let Some(before) = before {
                    for i in (r - 1) * (N + 2) / (R - 1)..r * (N + 2) / (R - 1) {
                        hash.step::<R, N>(self, before, i);
                    }
                }
            }
        });
        let last = rounds[(R - 1) % 4];

        // The last block may reach into the tag, which is as long as a block.
        let mut input = [start; MOST_BLOCKS];
        // SAFETY: `N - 1` blocks of text, the rest of it, the tag.
        unsafe { read::<V, N>(isa, text, &mut input) };
        // SAFETY: a packet ends with its tag.
        let received = V::gather(isa, each!(packets, |p| unsafe { block(p.tag()) }));
        let lengths = V::gather(isa, each!(packets, |p| &p.lengths));
        let mask = tail(isa, lengths);
        let mut output = input;
        let mut blocks = input;
        for i in 0..N {
            let stream = x[i + 1].aesenclast(last);
            if i + 1 < N {
                output[i] = input[i].xor(stream);
                blocks[i] = ghash.reverse(if SEAL { output[i] } else { input[i] });
            } else {
                output[i] = input[i].xor(stream.and(mask));
                blocks[i] = ghash.reverse(if SEAL { output[i] } else { input[i] }.and(mask));
            }
        }
        // SAFETY: as for `read`.
        unsafe { write::<V, N>(text, &output) };
        let hidden = x[0].aesenclast(last);
        let tag = before.map_or(hidden, |before| hash.tag(self, before));
        (PendingGroup { of, keys, blocks, aad, lengths, hidden, received }, tag)
    }
}

/// Returns up to four round keys, from number `r` on.
#[inline(always)]
pub(super) fn gather_rounds<V: Vector, const R: usize>(
    isa: V::Isa,
    keys: [&Schedule<R>; 4],
    r: usize,
) -> [V; 4] {
    if r + 3 <= R {
        return V::gather_rows(isa, each!(keys, |k| k.rounds(r)));
    }
    let one = V::gather(isa, each!(keys, |k| k.round(r)));
    let mut rounds = [one; 4];
    for i in 1..=R - r {
        rounds[i] = V::gather(isa, each!(keys, |k| k.round(r + i)));
    }
    rounds
}

/// Returns ones in those bytes of the last block that are text.
#[inline(always)]
pub(super) fn tail<V: Vector>(isa: V::Isa, lengths: V) -> V {
    // The last block of a packet has 8 to 128 bits of text, which follows from its length modulo
    // 128. One less, 7 to 127, is a signed byte. A byte of the block is text if eight times its
    // index is less than that.
    static LOW: Block = [127, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    static EIGHTS: Block = [0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120];
    let ones = V::splat(isa, &[0xff; 16]);
    lengths.add(ones).and(V::splat(isa, &LOW)).shuffle(V::zero(isa)).greater(V::splat(isa, &EIGHTS))
}

/// Counters from 1 on, in the form of a counter block.
static COUNTERS: [Block; MOST_BLOCKS + 1] = {
    let mut counters = [[0; 16]; MOST_BLOCKS + 1];
    let mut i = 0;
    while i <= MOST_BLOCKS {
        counters[i][15] = i as u8 + 1;
        i += 1;
    }
    counters
};

/// Returns a block of a packet.
///
/// # Safety
/// A block can be read at `at`, and nobody writes to it while it is in use.
#[inline(always)]
pub(super) unsafe fn block<'a>(at: *const u8) -> &'a Block {
    // SAFETY: by the caller's contract.
    unsafe { &*at.cast() }
}

/// Reads `N` blocks of each packet.
///
/// # Safety
/// The blocks can be read there.
#[inline(always)]
unsafe fn read<V: Vector, const N: usize>(isa: V::Isa, text: [*mut u8; 4], into: &mut [V; MOST_BLOCKS]) {
    for i in 0..N {
        let at = each!(text, |t| t.wrapping_add(16 * i));
        if i % 4 == 0 && i + 4 <= N {
            // SAFETY: by the caller's contract.
            let rows: [&Row; 4] = each!(at, |t| unsafe { &*t.cast() });
            into[i..i + 4].copy_from_slice(&V::gather_rows(isa, rows));
        } else if i >= N / 4 * 4 {
            // SAFETY: by the caller's contract.
            into[i] = V::gather(isa, each!(at, |t| unsafe { block(t) }));
        }
    }
}

/// Writes `N` blocks of each packet.
///
/// # Safety
/// The blocks can be written there.
#[inline(always)]
unsafe fn write<V: Vector, const N: usize>(text: [*mut u8; 4], from: &[V; MOST_BLOCKS]) {
    for i in 0..N {
        let at = each!(text, |t| t.wrapping_add(16 * i));
        // SAFETY: by the caller's contract.
        unsafe {
            if i % 4 == 0 && i + 4 <= N {
                V::scatter_rows([from[i], from[i + 1], from[i + 2], from[i + 3]], at);
            } else if i >= N / 4 * 4 {
                from[i].scatter(at);
            }
        }
    }
}
