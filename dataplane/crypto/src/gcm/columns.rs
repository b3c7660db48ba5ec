//! Kernel for long packets with the same number of blocks: one in each lane of the vectors,
//! whatever their keys.
//!
//! As in [`long`](super::long), additional data, text and lengths are hashed in slots, and the
//! first slots are empty, so that groups of eight slots end with the lengths. A group is hashed
//! while the next one is encrypted. But here a slot is a vector, with a block of each packet. So
//! nothing has to be summed up across lanes, and each step is done for all packets at once.

#![allow(unsafe_code, reason = "packets are written through pointers, for one may stand in several lanes")]
#![allow(clippy::needless_range_loop, reason = "an index stands for the same slot in several arrays")]

use super::{
    counters::ORDER,
    ghash::{Ghash, Power, Sum},
    key::Schedule,
    lanes::{Group, block, gather_rounds, tail},
    packet::Packet,
    vector::{Row, Vector},
};
use std::mem::MaybeUninit;

/// Slots in a group. The first group has half as many if they suffice. Eight are enough for the steps of AES
/// to follow each other without a pause.
const GROUP: usize = 8;
const HALF: usize = GROUP / 2;

/// Seals or opens the packets whose bits are set in `left`. All have `blocks` blocks of text, more
/// than eight; the last one may be shorter. Returns a bit for each packet that is authentic: all of
/// them when sealing.
///
/// # Safety
/// These packets exist, have keys of `R` rounds, and nobody else uses their text.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const R: usize, const SEAL: bool>(
    isa: V::Isa,
    packets: &[MaybeUninit<Packet<'_>>; 64],
    mut left: u64,
    blocks: usize,
) -> u64 {
    let slots = blocks + 2;
    let groups = (slots - 1) / GROUP;
    let first = slots - groups * GROUP;
    let empty = if first <= HALF { HALF - first } else { GROUP - first };
    let mut authentic = 0;
    while left != 0 {
        // SAFETY: by the caller's contract; the groups are those of the packets.
        unsafe {
            let group = Group::take::<V>(packets, &mut left);
            let mut columns = Columns::<V, R, SEAL>::new(isa, group, empty);
            match (first <= HALF, groups) {
                (true, 1) => {
                    columns.group::<HALF, 0, false>();
                    columns.group::<GROUP, HALF, true>();
                }
                (true, _) => {
                    columns.group::<HALF, 0, false>();
                    columns.group::<GROUP, HALF, false>();
                    columns.rest(groups - 1);
                }
                (false, _) => {
                    columns.group::<GROUP, 0, false>();
                    columns.rest(groups);
                }
            }
            authentic |= columns.finish();
        }
    }
    authentic
}

/// Packets while they are sealed or opened.
struct Columns<'a, V: Vector, const R: usize, const SEAL: bool> {
    isa: V::Isa,
    ghash: Ghash<V>,
    of: Group<'a>,
    rounds: [V; 16],
    /// H to H⁸.
    powers: [Power<V>; GROUP],
    start: V,
    counter: V,
    /// The number of slots of the first group that stay empty.
    empty: usize,
    /// The start of the next group in each packet.
    at: [*mut u8; 4],
    lengths: V,
    pending: [V; GROUP],
    hash: V,
    /// The encrypted first counter blocks, which hide the tags, and the tags that came with the
    /// packets.
    hidden: V,
    received: V,
}

impl<'a, V: Vector, const R: usize, const SEAL: bool> Columns<'a, V, R, SEAL> {
    /// # Safety
    /// The packets' keys are of `R` rounds.
    #[inline(always)]
    unsafe fn new(isa: V::Isa, of: Group<'a>, empty: usize) -> Self {
        let packets = of.packets;
        // SAFETY: by the caller's contract.
        let keys: [&Schedule<R>; 4] = each!(packets, |p| unsafe { p.schedule() });
        let start = V::gather(isa, each!(keys, |k| k.start())).xor(V::gather(isa, each!(packets, |p| &p.iv)));
        let mut rounds = [start; 16];
        for r in [1, 5, 9, 13] {
            if r <= R {
                rounds[r - 1..r + 3].copy_from_slice(&gather_rounds(isa, keys, r));
            }
        }
        let ghash = Ghash::new(isa);
        let [four, three, two, one] = V::gather_rows(isa, each!(keys, |k| k.powers()));
        let mut powers = [Power::new(V::gather(isa, each!(keys, |k| k.eighth()))); GROUP];
        unroll!(i in [0 1 2 3] {
            let power = [one, two, three, four][i];
            powers[i] = Power::new(power);
            if i < 3 {
                powers[4 + i] = Power::new(ghash.multiply(isa, power, four));
            }
        });
        let mut counter = [0; 16];
        counter[12..].copy_from_slice(&1_u32.wrapping_sub(empty as u32).to_le_bytes());
        // SAFETY: a packet ends with its tag.
        let received = V::gather(isa, each!(packets, |p| unsafe { block(p.tag()) }));
        Self {
            isa,
            ghash,
            of,
            rounds,
            powers,
            start,
            counter: V::splat(isa, &counter),
            empty,
            at: each!(packets, |p| p.text.wrapping_sub(16 * (empty + 1))),
            lengths: V::gather(isa, each!(packets, |p| &p.lengths)),
            pending: [start; GROUP],
            hash: V::zero(isa),
            hidden: start,
            received,
        }
    }

    /// Processes the last `groups` groups, which come after a whole one.
    ///
    /// # Safety
    /// The packets have this many groups left.
    #[inline(always)]
    unsafe fn rest(&mut self, groups: usize) {
        // SAFETY: by the caller's contract.
        unsafe {
            for _ in 1..groups {
                self.group::<GROUP, GROUP, false>();
            }
            self.group::<GROUP, GROUP, true>();
        }
    }

    /// Passes the next `N` slots through the cipher, and hashes the `P` slots that wait. In the
    /// first group none wait.
    ///
    /// # Safety
    /// The packets have these slots. `LAST` says whether they are the last.
    #[inline(always)]
    unsafe fn group<const N: usize, const P: usize, const LAST: bool>(&mut self) {
        let isa = self.isa;
        let order = V::splat(isa, &ORDER);
        let one = V::splat(isa, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let mut x = [self.start; GROUP];
        for x in &mut x[..N] {
            *x = self.counter.shuffle(order).xor(self.start);
            self.counter = self.counter.add(one);
        }
        let mut sum = Sum::new(isa);
        each_round!(r, {
            if r < R {
                for x in &mut x[..N] {
                    *x = x.aesenc(self.rounds[r - 1]).pin();
                }
                if r <= P {
                    // The block that needs the hash of all before it goes last.
                    let i = r % P.max(1);
                    let block = if i == 0 { self.pending[0].xor(self.hash) } else { self.pending[i] };
                    sum.add(block, self.powers[(P + GROUP - 1 - i) % GROUP]);
                }
                if P > 0 && r == P + 1 {
                    self.hash = self.ghash.reduce(sum);
                }
            }
        });
        let last = self.rounds[R - 1];
        let at = self.at;
        if P > 0 && !LAST {
            for half in [0, HALF] {
                let at = each!(at, |at| at.wrapping_add(16 * half));
                // SAFETY: by the caller's contract.
                let mut blocks = V::gather_rows(isa, each!(at, |at| unsafe { whole(at) }));
                for i in 0..HALF {
                    let input = blocks[i];
                    blocks[i] = input.xor(x[half + i].aesenclast(last));
                    self.pending[half + i] = self.ghash.reverse(if SEAL { blocks[i] } else { input });
                }
                // SAFETY: by the caller's contract.
                unsafe { V::scatter_rows(blocks, at) };
            }
        } else {
            unroll!(i in [0 1 2 3 4 5 6 7] {
                let stream = x[i].aesenclast(last);
                if i >= N {
                } else if P == 0 && i < self.empty {
                    self.pending[i] = V::zero(isa);
                } else if P == 0 && i == self.empty {
                    self.hidden = stream;
                    self.pending[i] = self.ghash.reverse(V::gather(isa, each!(self.of.packets, |p| &p.aad)));
                } else if LAST && i == N - 1 {
                    self.pending[i] = self.lengths;
                } else {
                    let at = each!(at, |at| at.wrapping_add(16 * i));
                    // The last block may reach into the tag, which is as long as a block.
                    // SAFETY: by the caller's contract.
                    let input = V::gather(isa, each!(at, |at| unsafe { block(at) }));
                    let mask = if LAST && i == N - 2 { Some(tail(isa, self.lengths)) } else { None };
                    let output = input.xor(mask.map_or(stream, |mask| stream.and(mask)));
                    // SAFETY: by the caller's contract.
                    unsafe { output.scatter(at) };
                    let cipher = if SEAL { output } else { input };
                    self.pending[i] = self.ghash.reverse(mask.map_or(cipher, |mask| cipher.and(mask)));
                }
            });
        }
        self.at = each!(at, |at| at.wrapping_add(16 * N));
    }

    /// Hashes the last group, and writes or compares the tags.
    ///
    /// # Safety
    /// The packets have passed through the cipher.
    #[inline(always)]
    unsafe fn finish(&self) -> u64 {
        let mut sum = Sum::new(self.isa);
        for i in 0..GROUP {
            let block = if i == 0 { self.pending[0].xor(self.hash) } else { self.pending[i] };
            sum.add(block, self.powers[GROUP - 1 - i]);
        }
        let tag = self.ghash.reverse(self.ghash.reduce(sum)).xor(self.hidden);
        // SAFETY: by the caller's contract.
        unsafe { self.of.finish::<V, SEAL>(tag, self.received) }
    }
}

/// Returns four blocks of a packet.
///
/// # Safety
/// Four blocks can be read at `at`, and nobody writes to them while they are in use.
#[inline(always)]
unsafe fn whole<'a>(at: *const u8) -> &'a Row {
    // SAFETY: by the caller's contract.
    unsafe { &*at.cast() }
}
