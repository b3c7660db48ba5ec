//! Decides which packets of a burst go to which kernel together.

#![allow(unsafe_code, reason = "calls kernels compiled for instructions that the processor has")]

use super::{
    columns, lanes, long,
    packet::{Input, Isa, Key, Packet},
    vector::Vector,
};
use std::mem::MaybeUninit;

/// The largest number of packets in a burst.
const MOST_PACKETS: usize = 64;

/// The class that no packet has.
const NONE: u16 = !0;

/// Returns the class of a packet. Packets of a class are worked on together. The key size is in the
/// upper bits, the blocks of text in the lower ones.
#[inline(always)]
fn class(size: usize, blocks: usize) -> u16 {
    (size << BLOCKS | blocks.min(MOST_BLOCKS)) as u16
}

/// Bits for the number of blocks. Packets of [`MOST_BLOCKS`] blocks or more have the same class.
const BLOCKS: u32 = 13;
const MOST_BLOCKS: usize = (1 << BLOCKS) - 1;

/// Packets of any keys and lengths, to be sealed or to be opened.
pub(crate) struct Burst<'a, const SEAL: bool> {
    /// The instructions that the packets at hand are for.
    isa: Option<Isa>,
    packets: [MaybeUninit<Packet<'a>>; MOST_PACKETS],
    /// The [`class`] of each packet at hand.
    classes: [u16; MOST_PACKETS],
    authentic: u64,
}

impl<'a, const SEAL: bool> Burst<'a, SEAL> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            isa: None,
            packets: [const { MaybeUninit::uninit() }; MOST_PACKETS],
            classes: [NONE; MOST_PACKETS],
            authentic: 0,
        }
    }

    /// Adds a packet as number `i`, which no other packet has.
    ///
    /// # Panics
    /// Panics unless `i` is less than [`MOST_PACKETS`], or if the text is shorter than the tag.
    #[inline(always)]
    pub(crate) fn push(&mut self, i: usize, key: &'a Key, input: Input<'a>) {
        if self.isa != Some(key.isa()) {
            self.switch(key.isa());
        }
        let (packet, class_of) = (&mut self.packets[i], &mut self.classes[i]);
        let packet = packet.write(Packet::new(key, input));
        // The kernels rely on the packet's key being of this size.
        *class_of = class(key.size().0, packet.blocks());
    }

    /// Seals or opens every packet. Returns a bit for each that is authentic. The text of the
    /// others is then all zeros.
    #[inline]
    pub(crate) fn finish(&mut self) -> u64 {
        self.run();
        self.authentic
    }

    /// Switches to other instructions. Outside of tests, a burst needs only one kind.
    #[cold]
    #[inline(never)]
    fn switch(&mut self, isa: Isa) {
        self.run();
        self.isa = Some(isa);
    }

    fn run(&mut self) {
        // SAFETY: a value of `Isa` proves that the processor has the features that the kernels are
        // compiled for.
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
        self.classes = [NONE; MOST_PACKETS];
        self.authentic |= authentic & all;
    }
}

/// Returns those of `same`, long packets of `blocks` blocks, that are better worked on one by one:
/// those that would fill no more than half of the lanes, and all for which that is quicker anyway.
#[inline(always)]
fn singles<V: Vector>(mut same: u64, blocks: usize) -> u64 {
    const { assert!(V::ALONE <= MOST_BLOCKS, "packets of the longest class differ in length") };
    if blocks >= V::ALONE {
        return same;
    }
    let over = same.count_ones() as usize % V::LANES;
    let together = if over > V::LANES / 2 { 64 } else { same.count_ones() as usize - over };
    for _ in 0..together {
        same &= same.wrapping_sub(1);
    }
    same
}

/// Defines the kernels for one width of vectors, each compiled for the features it needs.
macro_rules! kernels {
    ($name:ident, $vector:ident, $features:literal) => {
        mod $name {
            use super::super::vector::{align_frame, $vector};
            use super::*;

            type Isa = <$vector as Vector>::Isa;

            /// Seals or opens all packets. Returns a bit for each packet, and a bit for each
            /// authentic one.
            #[target_feature(enable = $features)]
            pub(super) fn run<const SEAL: bool>(isa: Isa, burst: &Burst<'_, SEAL>) -> (u64, u64) {
                align_frame::<$vector>();
                let all = !$vector::matches(isa, &burst.classes, NONE);
                let packets = &burst.packets;
                let (mut left, mut authentic) = (all, 0);
                // Packets to be worked on one by one, for each key size.
                let mut single = [0; 3];
                while left != 0 {
                    let class = burst.classes[left.trailing_zeros() as usize % MOST_PACKETS];
                    let mut same = $vector::matches(isa, &burst.classes, class);
                    left &= !same;
                    let size = usize::from(class >> BLOCKS);
                    let blocks = usize::from(class) & MOST_BLOCKS;
                    if blocks > lanes::MOST_BLOCKS {
                        let one = singles::<$vector>(same, blocks);
                        single[size % 3] |= one;
                        same &= !one;
                    }
                    if same != 0 {
                        // SAFETY: packets of a class have keys of the same size.
                        authentic |= unsafe {
                            match size {
                                0 => together::<10, SEAL>(isa, packets, blocks, same),
                                1 => together::<12, SEAL>(isa, packets, blocks, same),
                                _ => together::<14, SEAL>(isa, packets, blocks, same),
                            }
                        };
                    }
                }
                // SAFETY: as above.
                unsafe {
                    if single[0] != 0 {
                        authentic |= long::<10, SEAL>(isa, packets, single[0]);
                    }
                    if single[1] != 0 {
                        authentic |= long::<12, SEAL>(isa, packets, single[1]);
                    }
                    if single[2] != 0 {
                        authentic |= long::<14, SEAL>(isa, packets, single[2]);
                    }
                }
                (all, authentic)
            }

            /// # Safety
            /// The packets whose bits are set in `same` were pushed, and have keys of `R` rounds
            /// and `blocks` blocks.
            #[target_feature(enable = $features)]
            unsafe fn together<const R: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST_PACKETS],
                blocks: usize,
                same: u64,
            ) -> u64 {
                // SAFETY: by the caller's contract.
                unsafe {
                    match blocks {
                        0 => short::<R, 0, SEAL>(isa, packets, same),
                        1 => short::<R, 1, SEAL>(isa, packets, same),
                        2 => short::<R, 2, SEAL>(isa, packets, same),
                        3 => short::<R, 3, SEAL>(isa, packets, same),
                        4 => short::<R, 4, SEAL>(isa, packets, same),
                        5 => short::<R, 5, SEAL>(isa, packets, same),
                        6 => short::<R, 6, SEAL>(isa, packets, same),
                        7 => short::<R, 7, SEAL>(isa, packets, same),
                        8 => short::<R, 8, SEAL>(isa, packets, same),
                        9 => short::<R, 9, SEAL>(isa, packets, same),
                        _ => columns::<R, SEAL>(isa, packets, same, blocks),
                    }
                }
            }

            /// # Safety
            /// As for [`lanes::run`].
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn short<const R: usize, const N: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST_PACKETS],
                left: u64,
            ) -> u64 {
                align_frame::<$vector>();
                // SAFETY: by the caller's contract.
                unsafe { lanes::run::<$vector, R, N, SEAL>(isa, packets, left) }
            }

            /// # Safety
            /// As for [`columns::run`].
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn columns<const R: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST_PACKETS],
                left: u64,
                blocks: usize,
            ) -> u64 {
                align_frame::<$vector>();
                // SAFETY: by the caller's contract.
                unsafe { columns::run::<$vector, R, SEAL>(isa, packets, left, blocks) }
            }

            /// # Safety
            /// As for [`long::run`].
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn long<const R: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST_PACKETS],
                left: u64,
            ) -> u64 {
                align_frame::<$vector>();
                // SAFETY: by the caller's contract.
                unsafe { long::run::<$vector, R, SEAL>(isa, packets, left) }
            }
        }
    };
}

kernels!(vaes512, Zmm, "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl");
kernels!(vaes256, Ymm, "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq");
kernels!(aes_ni, Xmm, "aes,pclmulqdq,ssse3,sse4.1");
