//! Which packets of a burst go to which kernel, together.

#![allow(unsafe_code, reason = "calls kernels compiled for instructions that the processor has")]

use super::{
    lanes, long,
    packet::{Isa, Key, Packet},
};
use std::mem::MaybeUninit;

/// Packets in a burst, at most.
const MOST: usize = 64;

/// Short packets by number of blocks, and then all longer ones.
const CLASSES: usize = lanes::MOST + 2;

/// Packets of any keys and lengths, to be sealed or to be opened.
pub(crate) struct Burst<'a, const SEAL: bool> {
    /// The instructions that the packets at hand are for.
    isa: Option<Isa>,
    packets: [MaybeUninit<Packet<'a>>; MOST],
    /// For each size of key and each class of length, a bit for each packet at hand.
    classes: [[u64; CLASSES]; 3],
    authentic: u64,
}

impl<'a, const SEAL: bool> Burst<'a, SEAL> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            isa: None,
            packets: [const { MaybeUninit::uninit() }; MOST],
            classes: [[0; CLASSES]; 3],
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
        let class = packet.len().div_ceil(16).min(CLASSES - 1);
        self.packets[i].write(packet);
        self.classes[key.size().0][class] |= 1 << i;
    }

    /// Seals or opens every packet. Answers with a bit for each that is authentic; the text of the others is all
    /// zeros then.
    #[inline]
    pub(crate) fn finish(mut self) -> u64 {
        self.run();
        self.authentic
    }

    fn run(&mut self) {
        // SAFETY: a value of `Isa` is proof of the features that the kernels are compiled for.
        let authentic = unsafe {
            match self.isa {
                None => return,
                Some(Isa::Vaes512(isa)) => vaes512::run(isa, self),
                Some(Isa::Vaes256(isa)) => vaes256::run(isa, self),
                Some(Isa::AesNi(isa)) => aes_ni::run(isa, self),
            }
        };
        let mut forged = !authentic & self.classes.iter().flatten().fold(0, |all, class| all | class);
        while !SEAL && forged != 0 {
            // SAFETY: its bit is set, so it was pushed.
            unsafe { self.packets[forged.trailing_zeros() as usize].assume_init_mut() }.wipe();
            forged &= forged - 1;
        }
        self.classes = [[0; CLASSES]; 3];
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

            #[target_feature(enable = $features)]
            pub(super) fn run<const SEAL: bool>(isa: Isa, burst: &Burst<'_, SEAL>) -> u64 {
                // SAFETY: packets are in the class of their key.
                unsafe {
                    size::<10, SEAL>(isa, &burst.packets, &burst.classes[0])
                        | size::<12, SEAL>(isa, &burst.packets, &burst.classes[1])
                        | size::<14, SEAL>(isa, &burst.packets, &burst.classes[2])
                }
            }

            /// # Safety
            /// The packets in these classes were pushed, with keys of `R` rounds.
            #[target_feature(enable = $features)]
            unsafe fn size<const R: usize, const SEAL: bool>(
                isa: Isa,
                packets: &[MaybeUninit<Packet<'_>>; MOST],
                classes: &[u64; CLASSES],
            ) -> u64 {
                let mut authentic = 0;
                let (&more, classes) = classes.split_last().expect("classes");
                for (blocks, &class) in classes.iter().enumerate() {
                    let mut left = class;
                    while left != 0 {
                        // A lane for which there is none left takes the first once more.
                        let mut numbers = [left.trailing_zeros() as usize; 4];
                        for lane in 0..$vector::LANES {
                            if left != 0 {
                                numbers[lane] = left.trailing_zeros() as usize;
                            }
                            left &= left.wrapping_sub(1);
                        }
                        // SAFETY: as this function's.
                        let bits = unsafe {
                            let group = numbers.map(|i| packets[i % MOST].assume_init_ref());
                            match blocks {
                                0 => short::<R, 0, SEAL>(isa, group),
                                1 => short::<R, 1, SEAL>(isa, group),
                                2 => short::<R, 2, SEAL>(isa, group),
                                3 => short::<R, 3, SEAL>(isa, group),
                                4 => short::<R, 4, SEAL>(isa, group),
                                5 => short::<R, 5, SEAL>(isa, group),
                                6 => short::<R, 6, SEAL>(isa, group),
                                7 => short::<R, 7, SEAL>(isa, group),
                                8 => short::<R, 8, SEAL>(isa, group),
                                _ => short::<R, 9, SEAL>(isa, group),
                            }
                        };
                        for lane in 0..$vector::LANES {
                            authentic |= u64::from(bits >> lane & 1) << numbers[lane];
                        }
                    }
                }
                let mut left = more;
                while left != 0 {
                    let i = left.trailing_zeros() as usize;
                    // SAFETY: as this function's.
                    let one = unsafe { long::<R, SEAL>(isa, packets[i].assume_init_ref()) };
                    authentic |= u64::from(one) << i;
                    left &= left - 1;
                }
                authentic
            }

            /// # Safety
            /// As for [`lanes::run`].
            #[target_feature(enable = $features)]
            #[inline(never)]
            unsafe fn short<const R: usize, const N: usize, const SEAL: bool>(
                isa: Isa,
                packets: [&Packet<'_>; 4],
            ) -> u32 {
                // SAFETY: by the caller's contract.
                unsafe { lanes::run::<$vector, R, N, SEAL>(isa, packets) }
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
