//! Short packets: one in each lane of the vectors, whatever their keys.
//!
//! One packet's few blocks would wait on each other; those of several packets fill the pipes.

#![allow(unsafe_code, reason = "packets are written through pointers, for one may stand in several lanes")]

use super::{
    Packet,
    ghash::{Ghash, Power, Sum},
    key::{POWERS, Schedule},
    vector::{Block, Row, Vector, block_mask},
};

/// Blocks of text that a packet may have at most.
pub(super) const MOST: usize = 9;

/// The same expression for the packet of each lane.
macro_rules! each {
    ($of:expr, |$one:pat_param| $value:expr) => {{
        let [a, b, c, d] = $of;
        [
            {
                let $one = a;
                $value
            },
            {
                let $one = b;
                $value
            },
            {
                let $one = c;
                $value
            },
            {
                let $one = d;
                $value
            },
        ]
    }};
}

/// Seals or opens packets of `N` blocks of text each, the last of which may be shorter. Answers with a bit for each
/// that is authentic; when sealing, they all are.
///
/// The same packet may stand in more than one lane: nothing is written before everything is read.
///
/// # Safety
/// The packets' keys are of `R` rounds, and nobody else uses their text.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const R: usize, const N: usize, const SEAL: bool>(
    isa: V::Isa,
    packets: [&Packet<'_>; 4],
) -> u32 {
    // SAFETY: by the caller's contract.
    let keys: [&Schedule<R>; 4] = each!(packets, |p| unsafe { p.schedule() });
    let text: [*mut u8; 4] = each!(packets, |p| p.text);
    let ghash = Ghash::<V>::new(isa);

    // The counter is 1 for the block that hides the tag, 2 for the first block of text.
    let start = V::gather(isa, each!(keys, |k| k.start())).xor(V::gather(isa, each!(packets, |p| &p.iv)));
    let mut x = [start; MOST + 1];
    for i in 0..=N {
        let mut counter = [0; 16];
        counter[15] = i as u8 + 1;
        x[i] = start.xor(V::splat(isa, &counter));
    }
    let mut last = start;
    let mut r = 1;
    while r <= R {
        let mut round = [start; 4];
        if r + 3 <= R {
            round = V::gather_rows(isa, each!(keys, |k| k.rounds(r)));
        } else {
            for j in 0..=R - r {
                round[j] = V::gather(isa, each!(keys, |k| k.round(r + j)));
            }
        }
        for j in 0..4 {
            if r + j < R {
                for x in &mut x[..=N] {
                    *x = x.aesenc(round[j]);
                }
            } else if r + j == R {
                last = round[j];
            }
        }
        r += 4;
    }

    // The last block may reach into the tag, which is as long as a block.
    let mut input = [start; MOST];
    // SAFETY: `N - 1` blocks of text, the rest of it, the tag.
    unsafe { read::<V, N>(isa, text, &mut input) };
    let tags = each!(packets, |p| p.tag());
    // SAFETY: a packet ends with its tag.
    let received = V::gather(isa, each!(tags, |t| unsafe { block(t) }));
    let mut output = input;
    let mut cipher = input;
    for i in 0..N {
        let stream = x[i + 1].aesenclast(last);
        if i + 1 < N {
            output[i] = input[i].xor(stream);
            cipher[i] = if SEAL { output[i] } else { input[i] };
        } else {
            let mask = V::gather(isa, each!(packets, |p| block_mask(p.len() - 16 * (N - 1))));
            output[i] = input[i].xor(stream.and(mask));
            cipher[i] = if SEAL { output[i] } else { input[i] }.and(mask);
        }
    }

    // Additional data, text, lengths. Where there are more blocks than powers, the first ones go first.
    let blocks = N + 2;
    let mut sum = Sum::new(isa);
    let mut earlier = V::zero(isa);
    for i in 0..blocks {
        let block = match i {
            0 => ghash.reverse(V::gather(isa, each!(packets, |p| &p.aad))),
            i if i <= N => ghash.reverse(cipher[i - 1]),
            _ => V::gather(isa, each!(packets, |p| &p.lengths)),
        };
        if blocks > POWERS && i == blocks - POWERS {
            earlier = ghash.reduce(sum);
            sum = Sum::new(isa);
        }
        let exponent = if blocks > POWERS && i < blocks - POWERS { blocks - POWERS - i } else { blocks - i };
        let power = V::gather(isa, each!(keys, |k| k.power(exponent)));
        sum.add(
            if blocks > POWERS && i == blocks - POWERS { block.xor(earlier) } else { block },
            Power::new(power),
        );
    }
    let tag = ghash.reverse(ghash.reduce(sum)).xor(x[0].aesenclast(last));

    let authentic = if SEAL { !0 } else { tag.equal(received) };
    // SAFETY: as for `read`; the tag goes last, for the last block of text may have touched it.
    unsafe {
        write::<V, N>(text, &output);
        if SEAL {
            tag.scatter(tags);
        }
    }
    authentic
}

/// A block of a packet.
///
/// # Safety
/// It can be read there, and nobody writes to it while it is.
#[inline(always)]
unsafe fn block<'a>(at: *const u8) -> &'a Block {
    // SAFETY: by the caller's contract.
    unsafe { &*at.cast() }
}

/// Reads `N` blocks of each packet.
///
/// # Safety
/// They can be read there.
#[inline(always)]
unsafe fn read<V: Vector, const N: usize>(isa: V::Isa, text: [*mut u8; 4], into: &mut [V; MOST]) {
    let mut i = 0;
    while i + 4 <= N {
        // SAFETY: by the caller's contract.
        let rows: [&Row; 4] = each!(text, |t| unsafe { &*t.wrapping_add(16 * i).cast() });
        into[i..i + 4].copy_from_slice(&V::gather_rows(isa, rows));
        i += 4;
    }
    for i in N / 4 * 4..N {
        // SAFETY: by the caller's contract.
        into[i] = V::gather(isa, each!(text, |t| unsafe { block(t.wrapping_add(16 * i)) }));
    }
}

/// Writes `N` blocks of each packet.
///
/// # Safety
/// They can be written there.
#[inline(always)]
unsafe fn write<V: Vector, const N: usize>(text: [*mut u8; 4], from: &[V; MOST]) {
    let mut i = 0;
    while i + 4 <= N {
        let columns = [from[i], from[i + 1], from[i + 2], from[i + 3]];
        // SAFETY: by the caller's contract.
        unsafe { V::scatter_rows(columns, each!(text, |t| t.wrapping_add(16 * i))) };
        i += 4;
    }
    for i in N / 4 * 4..N {
        // SAFETY: by the caller's contract.
        unsafe { from[i].scatter(each!(text, |t| t.wrapping_add(16 * i))) };
    }
}
