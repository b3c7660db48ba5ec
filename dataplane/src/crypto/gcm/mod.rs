//! AES-GCM (NIST SP 800-38D) on bursts of unrelated packets.
//!
//! | module | what |
//! |---|---|
//! | [`isa`] | which instructions the processor has |
//! | [`vector`] | one, two or four blocks, and what is done with them |
//! | [`ghash`] | multiplication in GHASH's field |
//! | [`key`] | a key as the kernels load it |
//! | [`lanes`] | kernel for short packets: one packet a lane |
//! | [`columns`] | kernel for long packets of the same number of blocks: one packet a lane |
//! | [`long`] | kernel for long packets: one packet in all lanes |
//! | [`burst`] | which packets go to which kernel, together |
//!
//! Nothing here depends on a secret but the values computed: neither branches nor addresses do.
//! Nonces are of 96 bits and tags of 128; the text may be up to 64 KiB.

/// The same with `$i` a constant, from the first number to the last. Loops of so much the compiler
/// would not unroll, and would then keep in memory what belongs into registers.
macro_rules! unroll {
    ($i:ident in [$($number:literal)+] $body:block) => {
        $({
            let $i = $number;
            $body
        })+
    };
}

/// The same for every round of AES but the last.
macro_rules! each_round {
    ($r:ident, $body:block) => {
        unroll!($r in [1 2 3 4 5 6 7 8 9 10 11 12 13] $body)
    };
}

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

mod burst;
mod columns;
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
pub(crate) use packet::{Isa, Key, Packet};
