//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634) from libraries, one packet at a time.

use super::{
    Backend, HEADER,
    aes::Aes,
    layout::{ICV, IV, high},
};
use aes_gcm::{
    AesGcm,
    aead::{AeadInOut, KeyInit, consts::U12},
};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::Zeroizing;

/// One of the AEADs with its key, as the standard of that AEAD defines it.
pub(super) enum Aead {
    Native(LessSafeKey),
    Gcm(Box<AesGcm<Aes, U12>>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Aead {
    /// Returns portable AES-GCM, or `None` if the key is not of 16, 24 or 32 bytes.
    pub(super) fn gcm(key: &[u8]) -> Option<Self> {
        Some(Self::Gcm(Box::new(AesGcm::from(Aes::new(key)?))))
    }

    pub(super) fn chacha(key: &[u8], backend: Backend) -> Option<Self> {
        match backend {
            Backend::Portable => Some(Self::ChaCha(Box::new(ChaCha20Poly1305::new_from_slice(key).ok()?))),
            _ => Some(Self::Native(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?))),
        }
    }

    /// Encrypts `text` in place and returns the tag, or `None` if `text` is longer than the cipher
    /// allows (64 GiB).
    #[inline]
    pub(super) fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; ICV]> {
        match self {
            Self::Native(key) => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text).ok()?;
                tag.as_ref().try_into().ok()
            }
            Self::Gcm(gcm) => gcm.encrypt_inout_detached(nonce.into(), aad, text.into()).ok().map(Into::into),
            Self::ChaCha(c) => c.encrypt_inout_detached(nonce.into(), aad, text.into()).ok().map(Into::into),
        }
    }

    /// Verifies `text`, then decrypts it in place. Returns whether it is authentic. If it is not,
    /// `text` is left as it was, or zeroed.
    #[inline]
    pub(super) fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8; ICV]) -> bool {
        match self {
            Self::Native(key) => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text).is_ok()
            }
            Self::Gcm(gcm) => gcm.decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into()).is_ok(),
            Self::ChaCha(c) => c.decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into()).is_ok(),
        }
    }
}

/// An AEAD as ESP uses it: salt and IV make the nonce; SPI and sequence number make the AAD.
pub(super) struct EspAead {
    pub(super) aead: Aead,
    pub(super) salt: Zeroizing<[u8; 4]>,
}

impl EspAead {
    #[inline]
    pub(super) fn seal(&self, seq: u64, iv: u64, esn: bool, esp: &mut [u8]) {
        esp[HEADER..HEADER + IV].copy_from_slice(&iv.to_be_bytes());
        let (head, text, icv) = split(esp);
        let (aad, len) = aad(head, seq, esn);
        let tag = self.aead.seal(&nonce(&self.salt, head), &aad[..len], text);
        // A packet is always shorter than 64 GiB. If it were not, it must not leave as plaintext.
        icv.copy_from_slice(&tag.expect("within the cipher's limit"));
    }

    #[inline]
    pub(super) fn open(&self, seq: u64, esn: bool, esp: &mut [u8]) -> bool {
        let (head, text, icv) = split(esp);
        let (aad, len) = aad(head, seq, esn);
        self.aead.open(&nonce(&self.salt, head), &aad[..len], text, icv)
    }
}

type Head = [u8; HEADER + IV];

/// Splits a packet into the header with its IV, the text and the ICV. The packet must be long
/// enough for them.
#[inline]
fn split(esp: &mut [u8]) -> (&mut Head, &mut [u8], &mut [u8; ICV]) {
    let (head, rest) = esp.split_first_chunk_mut().expect("a packet that fits its suite");
    let (text, icv) = rest.split_last_chunk_mut().expect("a packet that fits its suite");
    (head, text, icv)
}

/// Returns the nonce: the 4-byte salt, then the IV (RFC 4106 §4, RFC 7634 §2).
#[inline]
fn nonce(salt: &[u8; 4], head: &Head) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(&head[HEADER..]);
    nonce
}

/// Returns the AAD and its length: the SPI, then 32 or all 64 bits of the sequence number (RFC 4106
/// §5, RFC 7634 §2.1).
#[inline]
fn aad(head: &Head, seq: u64, esn: bool) -> ([u8; 12], usize) {
    let mut aad = [0; 12];
    aad[..4].copy_from_slice(&head[..4]);
    if esn {
        aad[4..8].copy_from_slice(&high(seq));
        aad[8..].copy_from_slice(&head[4..8]);
        (aad, 12)
    } else {
        aad[4..8].copy_from_slice(&head[4..8]);
        (aad, 8)
    }
}
