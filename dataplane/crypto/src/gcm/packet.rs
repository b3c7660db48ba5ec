//! A key of any size, and a packet to be sealed or opened with it.

#![allow(unsafe_code, reason = "a packet is held by pointer, for the kernels")]

use super::{
    isa::{AesNi, Vaes256, Vaes512},
    key::Schedule,
    vector::Block,
};
use std::marker::PhantomData;

/// Length of a tag in bytes.
const TAG: usize = 16;

/// The instructions that seal and open the packets of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Isa {
    Vaes512(Vaes512),
    Vaes256(Vaes256),
    AesNi(AesNi),
}

/// An AES-GCM key with its salt. Wiped when dropped.
pub(crate) struct Key {
    schedule: Size,
}

const _: () = assert!(size_of::<Key>() == 16);

enum Size {
    Aes128(Isa, Box<Schedule<10>>),
    Aes192(Isa, Box<Schedule<12>>),
    Aes256(Isa, Box<Schedule<14>>),
}

impl Key {
    /// Returns a key of 16, 24 or 32 bytes with the four bytes that begin every nonce, or `None` if
    /// it has another length.
    pub(crate) fn new(isa: Isa, key: &[u8], salt: [u8; 4]) -> Option<Self> {
        let any = match isa {
            Isa::Vaes512(isa) => isa.into(),
            Isa::Vaes256(isa) => isa.into(),
            Isa::AesNi(isa) => isa,
        };
        let schedule = match key.len() {
            16 => Size::Aes128(isa, Schedule::new(any, key, salt)),
            24 => Size::Aes192(isa, Schedule::new(any, key, salt)),
            32 => Size::Aes256(isa, Schedule::new(any, key, salt)),
            _ => return None,
        };
        Some(Self { schedule })
    }

    #[inline]
    pub(crate) fn isa(&self) -> Isa {
        match &self.schedule {
            Size::Aes128(isa, _) | Size::Aes192(isa, _) | Size::Aes256(isa, _) => *isa,
        }
    }

    /// Returns the index of the key's size, of three, and its schedule.
    #[inline]
    pub(super) fn size(&self) -> (usize, *const u8) {
        match &self.schedule {
            Size::Aes128(_, schedule) => (0, (&raw const **schedule).cast()),
            Size::Aes192(_, schedule) => (1, (&raw const **schedule).cast()),
            Size::Aes256(_, schedule) => (2, (&raw const **schedule).cast()),
        }
    }

    /// Prefetches the cache lines that sealing and opening read.
    #[inline]
    pub(crate) fn prefetch(&self) {
        match &self.schedule {
            Size::Aes128(_, schedule) => schedule.prefetch(),
            Size::Aes192(_, schedule) => schedule.prefetch(),
            Size::Aes256(_, schedule) => schedule.prefetch(),
        }
    }

    /// Reduces additional data of any length, `first` and `rest`, to one block: hashes all blocks
    /// but the last, and adds that one.
    pub(crate) fn absorb(&self, first: Option<&Block>, rest: &[u8]) -> Block {
        let any = match self.isa() {
            Isa::Vaes512(isa) => isa.into(),
            Isa::Vaes256(isa) => isa.into(),
            Isa::AesNi(isa) => isa,
        };
        match &self.schedule {
            Size::Aes128(_, schedule) => schedule.absorb(any, first, rest),
            Size::Aes192(_, schedule) => schedule.absorb(any, first, rest),
            Size::Aes256(_, schedule) => schedule.absorb(any, first, rest),
        }
    }
}

/// What is sealed or opened with a key.
pub(crate) struct Input<'a> {
    pub(crate) iv: [u8; 8],
    /// The additional data, or the result of [`Key::absorb`].
    pub(crate) aad: Block,
    /// Length of the additional data that `aad` stands for, in bytes.
    pub(crate) aad_len: usize,
    /// Text, then tag.
    pub(crate) text: &'a mut [u8],
}

/// A packet as the kernels take it: 64 bytes. Everything that is loaded as a block is a block.
#[repr(C, align(64))]
pub(super) struct Packet<'a> {
    key: *const u8,
    /// Text, then tag.
    pub(super) text: *mut u8,
    /// The IV at its position in the counter block; zeros elsewhere.
    pub(super) iv: Block,
    /// The additional data, or the result of [`Key::absorb`].
    pub(super) aad: Block,
    /// Length of the text and of the additional data in bits: the last block of GHASH, in the byte
    /// order of its arithmetic.
    pub(super) lengths: Block,
    of: PhantomData<(&'a Key, &'a mut [u8])>,
}

impl<'a> Packet<'a> {
    /// Returns the packet of `input` for `key`.
    ///
    /// # Panics
    /// Panics if the text is shorter than the tag.
    #[inline(always)]
    pub(super) fn new(key: &'a Key, input: Input<'a>) -> Self {
        let Input { iv, aad, aad_len, text } = input;
        let len = text.len().checked_sub(TAG).expect("room for the tag");
        let lengths = u128::from(aad_len as u64 * 8) << 64 | u128::from(len as u64 * 8);
        Self {
            key: key.size().1,
            text: text.as_mut_ptr(),
            iv: (u128::from(u64::from_le_bytes(iv)) << 32).to_le_bytes(),
            aad,
            lengths: lengths.to_le_bytes(),
            of: PhantomData,
        }
    }

    /// Returns the length of the text in bytes.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        u64::from_le_bytes(*self.lengths.first_chunk().expect("16 bytes")) as usize / 8
    }

    /// Returns the number of blocks of text, of which the last may be shorter.
    #[inline(always)]
    pub(super) fn blocks(&self) -> usize {
        self.len().wrapping_add(15) / 16
    }

    /// Returns the position of the tag.
    #[inline(always)]
    pub(super) fn tag(&self) -> *mut u8 {
        self.text.wrapping_add(self.len())
    }

    /// Returns the schedule of the packet's key.
    ///
    /// # Safety
    /// The key is of `R` rounds.
    #[inline(always)]
    pub(super) unsafe fn schedule<const R: usize>(&self) -> &'a Schedule<R> {
        // SAFETY: the key is borrowed for `'a`. It has `R` rounds by the caller's contract.
        unsafe { &*self.key.cast() }
    }

    /// Overwrites the text with zeros.
    #[cold]
    pub(super) fn wipe(&mut self) {
        // SAFETY: the text is this packet's alone.
        unsafe { self.text.write_bytes(0, self.len()) };
    }
}
