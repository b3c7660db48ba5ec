//! AES with a key of any length: one type for every mode.

use ::aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{
    BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
    KeyInit, consts::U16,
};

/// A block of AES, 16 bytes.
pub(super) type Block = cbc::cipher::Block<Aes>;

/// Key schedules of AES, wiped when dropped.
pub(super) enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Aes {
    /// Returns AES with a key of 16, 24 or 32 bytes, or `None` if the key has any other length.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(Self::Aes128),
            24 => Aes192::new_from_slice(key).ok().map(Self::Aes192),
            _ => Aes256::new_from_slice(key).ok().map(Self::Aes256),
        }
    }
}

impl BlockSizeUser for Aes {
    type BlockSize = U16;
}

impl BlockCipherEncrypt for Aes {
    #[inline]
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        match self {
            Self::Aes128(aes) => aes.encrypt_with_backend(f),
            Self::Aes192(aes) => aes.encrypt_with_backend(f),
            Self::Aes256(aes) => aes.encrypt_with_backend(f),
        }
    }
}

impl BlockCipherDecrypt for Aes {
    #[inline]
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        match self {
            Self::Aes128(aes) => aes.decrypt_with_backend(f),
            Self::Aes192(aes) => aes.decrypt_with_backend(f),
            Self::Aes256(aes) => aes.decrypt_with_backend(f),
        }
    }
}
