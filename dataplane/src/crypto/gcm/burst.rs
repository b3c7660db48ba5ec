//! Which packets of a burst go to which kernel, together.

#![allow(unsafe_code, reason = "calls kernels compiled for instructions that the processor has")]

use super::{
    lanes, long,
    packet::{Isa, Key, Packet},
};
use std::mem::MaybeUninit;

/// Packets in a burst, at most.
const MOST: usize = 64;

/// The class of a number that no packet has.
const NONE: u8 = !0;

/// The class of packets longer than [`lanes::MOST`] blocks, among those of their size of key.
const LONG: usize = lanes::MOST + 1;

/// Packets of the same class are worked on together: size of key in the upper half, blocks of text in the lower.
#[inline(always)]
fn class(size: usize, blocks: usize) -> u8 {
    (size << 4 | blocks.min(LONG)) as u8
}

/// Packets of any keys and lengths, to be sealed or to be opened.
pub(crate) struct Burst<'a, const SEAL: bool> {
    /// The instructions that the packets at hand are for.
    isa: Option<Isa>,
    packets: [MaybeUninit<Packet<'a>>; MOST],
    /// For each packet at hand, its [`class`].
    classes: [u8; MOST],
    authentic: u64,
}

impl<'a, const SEAL: bool> Burst<'a, SEAL> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            isa: None,
            packets: [const { MaybeUninit::uninit() }; MOST],
            classes: [NONE; MOST],
            authentic: 0,
        }
    }

    /// Adds a packet, made with `key`, as number `i`, which no other has.
    ///
    /// # Panics
    /// Unless `i` is less than [`MOST`].
    #[inline(always)]
    pub(crate) fn push(&mut self, i: usize, key: &'a Key, packet: Packet<'a>) {
        if self.isa != Some(key.isa()) {
            self.run();
            self.isa = Some(key.isa());
        }
        self.classes[i] = class(key.size().0, packet.len().div_ceil(16));
        self.packets[i].write(packet);
    }

    /// Seals or opens every packet. Answers with a bit for each that is authentic; the text of the others is all
    /// zeros then.
    #[inline]
    pub(crate) fn finish(&mut self) -> u64 {
        self.run();
        self.authentic
    }

    fn run(&mut self) {
        // SAFETY: a value of `Isa` is proof of the features that the kernels are compiled for.
        let (all, authentic) = unsafe {
            match self.isa {
                None => return,
                Some(Isa::Vaes512(isa)) => vaes512::run(isa, self),
                Some(Isa::Vaes256(isa)) => vaes256::run(isa, self),
                Some(Isa::AesNi(isa)) => aes_ni::run(isa, self),
            }
        };
        let mut forged = all & !authentic;
        while !SEAL && forged != 0 {
            // SAFETY: its bit is set, so it was pushed.
            unsafe { self.packets[forged.trailing_zeros() as usize].assume_init_mut() }.wipe();
            forged &= forged - 1;
        }
        self.classes = [NONE; MOST];
        self.authentic |= authentic;
    }
}

/// The kernels for one width of vectors, each compiled for the features it needs.
macro_rules! kernels {
    ($name:ident, $vector:ident, $features:literal) => {
        mod $name {
            use super::super::vector::{Vector, $vector};
            use super::*;

            type Isa = <$vector as Vector>::Isa;

            /// Seals or opens all packets; a bit for each of them, and for each that is authentic.
            #[target_feature(enable = $features)]
            pub(super) fn run<const SEAL: bool>(isa: Isa, burst: &Burst<'_, SEAL>) -> (u64, u64) {
                let all = !$vector::matches(isa, &burst.classes, NONE);
                let (mut left, mut authentic) = (all, 0);
                while left != 0 {
                    let class = burst.classes[left.trailing_zeros() as usize % MOST];
                    let same = $vector::matches(isa, &burst.classes, class);
                    let blocks = usize::from(class & 15);
                    // SAFETY: packets of a class have keys of the same size.
                    authentic |= unsafe {
                        match class >> 4 {
                            0 => size::<10, SEAL>(isa, &burst.packets, blocks, same),
                            1 => size::<12, SEAL>(isa, &burst.packets, blocks, same),
                            _ => size::<14, SEAL>(isa, &burst.packets, blocks, same),
                        }
                    };
                    left &= !same;
                }
                (all, authentic)
            }

            /// # Safety
            /// The packets whose bits are set in `left` were pushed, and have keys of `R` rounds and so many blocks.
            #[target_feature(enable = $features)]
            unsafe fn size<const R: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST],
                blocks: usize,
                mut left: u64,
            ) -> u64 {
                let mut authentic = 0;
                while blocks == LONG && left != 0 {
                    let i = left.trailing_zeros() as usize;
                    // SAFETY: by the caller's contract.
                    let one = unsafe { long::<R, SEAL>(isa, packets[i].assume_init_ref()) };
                    authentic |= u64::from(one) << i;
                    left &= left - 1;
                }
                if left != 0 {
                    // SAFETY: by the caller's contract.
                    authentic = unsafe {
                        match blocks {
                            0 => short::<R, 0, SEAL>(isa, packets, left),
                            1 => short::<R, 1, SEAL>(isa, packets, left),
                            2 => short::<R, 2, SEAL>(isa, packets, left),
                            3 => short::<R, 3, SEAL>(isa, packets, left),
                            4 => short::<R, 4, SEAL>(isa, packets, left),
                            5 => short::<R, 5, SEAL>(isa, packets, left),
                            6 => short::<R, 6, SEAL>(isa, packets, left),
                            7 => short::<R, 7, SEAL>(isa, packets, left),
                            8 => short::<R, 8, SEAL>(isa, packets, left),
                            _ => short::<R, 9, SEAL>(isa, packets, left),
                        }
                    };
                }
                authentic
            }

            /// # Safety
            /// As for [`lanes::run`].
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn short<const R: usize, const N: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST],
                left: u64,
            ) -> u64 {
                // SAFETY: by the caller's contract.
                unsafe { lanes::run::<$vector, R, N, SEAL>(isa, packets, left) }
            }

            /// # Safety
            /// As for [`long::run`].
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn long<const R: usize, const SEAL: bool>(isa: Isa, packet: &Packet<'_>) -> bool {
                // SAFETY: by the caller's contract.
                unsafe { long::run::<$vector, R, SEAL>(isa, packet) }
            }
        }
    };
}

kernels!(vaes512, Zmm, "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl");
kernels!(vaes256, Ymm, "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq");
kernels!(aes_ni, Xmm, "aes,pclmulqdq,ssse3,sse4.1");
