//! AES-GCM (NIST SP 800-38D) on bursts of unrelated packets.
//!
//! | module | contents |
//! |---|---|
//! | [`isa`] | proofs of the processor's instruction sets |
//! | [`vector`] | one, two or four blocks, and operations on them |
//! | [`ghash`] | multiplication in the field of GHASH |
//! | [`key`] | a key as the kernels load it |
//! | [`counters`] | the counter blocks of a packet |
//! | [`lanes`] | kernel for short packets: one packet a lane |
//! | [`columns`] | kernel for long packets of the same number of blocks: one packet a lane |
//! | [`long`] | kernel for long packets: one packet in all lanes |
//! | [`burst`] | the division of a burst among the kernels |
//!
//! Neither branches nor addresses depend on secrets. Nonces have 96 bits and tags 128. The text may
//! be up to 64 KiB.

/// Repeats a block with `$i` as a constant, for each number. The compiler would not unroll loops of
/// this size, and would then keep in memory what belongs in registers.
macro_rules! unroll {
    ($i:ident in [$($number:literal)+] $body:block) => {
        $({
            let $i = $number;
            $body
        })+
    };
}

/// Repeats a block for every AES round but the last.
macro_rules! each_round {
    ($r:ident, $body:block) => {
        unroll!($r in [1 2 3 4 5 6 7 8 9 10 11 12 13] $body)
    };
}

/// Evaluates an expression for the packet of each lane.
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

mod burst;
mod columns;
mod counters;
mod ghash;
mod isa;
mod key;
mod lanes;
mod long;
mod packet;
#[cfg(test)]
mod tests;
mod vector;

pub(crate) use burst::Burst;
pub(crate) use isa::{AesNi, Vaes256, Vaes512};
pub(crate) use packet::{Input, Isa, Key};
