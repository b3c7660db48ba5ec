//! The compared implementations, each called as its authors intend.

use super::cbc_hmac::CbcHmac;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit, aead::AeadInOut};
use chacha20poly1305::ChaCha20Poly1305;
use serde::Serialize;
use std::fmt;
use wayfarer_dataplane::crypto::{Backend, HEADER, Key, Suite};

/// Bytes of the salt at the end of an AEAD's keying material (RFC 4106 §8.1).
pub(super) const SALT: usize = 4;
/// Bytes of an AEAD's IV.
const IV: usize = 8;
/// Bytes of an AEAD's ICV.
const ICV: usize = 16;

/// An implementation of algorithms for ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Library {
    /// This gateway's own implementation, a burst at a time.
    Wayfarer,
    /// `aws-lc-rs`, a packet at a time.
    AwsLcRs,
    /// `ring`, a packet at a time.
    Ring,
    /// `aes-gcm` and `chacha20poly1305`, a packet at a time.
    RustCrypto,
}

impl Library {
    /// All implementations.
    pub const ALL: [Self; 4] = [Self::Wayfarer, Self::AwsLcRs, Self::Ring, Self::RustCrypto];
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Wayfarer => "wayfarer",
            Self::AwsLcRs => "aws-lc-rs",
            Self::Ring => "ring",
            Self::RustCrypto => "rust-crypto",
        })
    }
}

/// A key ready for use.
#[allow(
    clippy::large_enum_variant,
    reason = "another box would cost time in some libraries and not in others"
)]
pub(super) enum LibraryKey {
    Wayfarer(Key),
    AwsLcRs(aws_lc_rs::aead::LessSafeKey),
    Ring(ring::aead::LessSafeKey),
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
    CbcHmac(Box<CbcHmac>),
}

impl LibraryKey {
    /// Makes a key of `library` from `material`; returns `None` if the library lacks the algorithm.
    pub(super) fn new(library: Library, suite: Suite, material: &[u8]) -> Option<Self> {
        if let (Library::AwsLcRs, Some(key)) = (library, CbcHmac::new(suite, material)) {
            return Some(Self::CbcHmac(Box::new(key)));
        }
        let key = material.split_last_chunk::<SALT>()?.0;
        let name = suite.to_string();
        match library {
            Library::Wayfarer => {
                let backend = Backend::from_env().ok()?;
                Key::new(suite, material, backend).ok().map(Self::Wayfarer)
            }
            Library::AwsLcRs => {
                use aws_lc_rs::aead::*;
                let algorithm = match name.as_str() {
                    "aes128gcm16" => &AES_128_GCM,
                    "aes192gcm16" => &AES_192_GCM,
                    "aes256gcm16" => &AES_256_GCM,
                    "chacha20poly1305" => &CHACHA20_POLY1305,
                    _ => return None,
                };
                UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new).map(Self::AwsLcRs)
            }
            Library::Ring => {
                use ring::aead::*;
                let algorithm = match name.as_str() {
                    "aes128gcm16" => &AES_128_GCM,
                    "aes256gcm16" => &AES_256_GCM,
                    "chacha20poly1305" => &CHACHA20_POLY1305,
                    _ => return None,
                };
                UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new).map(Self::Ring)
            }
            Library::RustCrypto => match name.as_str() {
                "aes128gcm16" => Aes128Gcm::new_from_slice(key).ok().map(Box::new).map(Self::Aes128),
                "aes256gcm16" => Aes256Gcm::new_from_slice(key).ok().map(Box::new).map(Self::Aes256),
                "chacha20poly1305" => {
                    ChaCha20Poly1305::new_from_slice(key).ok().map(Box::new).map(Self::ChaCha)
                }
                _ => None,
            },
        }
    }

    /// Encrypts an ESP packet in place and writes its ICV; returns `true` on success. `salt` is an
    /// AEAD's. Always `false` for the gateway's own implementation, which takes bursts.
    #[inline]
    pub(super) fn seal(&self, salt: [u8; SALT], esp: &mut [u8]) -> bool {
        if let Self::CbcHmac(key) = self {
            return key.seal(esp);
        }
        let (nonce, aad, text) = parts(salt, esp);
        let (text, icv) = text.split_at_mut(text.len() - ICV);
        match self {
            Self::Wayfarer(_) | Self::CbcHmac(_) => false,
            Self::AwsLcRs(key) => {
                use aws_lc_rs::aead::*;
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&aad), text);
                tag.map(|tag| icv.copy_from_slice(tag.as_ref())).is_ok()
            }
            Self::Ring(key) => {
                use ring::aead::*;
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&aad), text);
                tag.map(|tag| icv.copy_from_slice(tag.as_ref())).is_ok()
            }
            Self::Aes128(key) => {
                let tag = key.encrypt_inout_detached((&nonce).into(), &aad, text.into());
                tag.map(|tag| icv.copy_from_slice(&tag)).is_ok()
            }
            Self::Aes256(key) => {
                let tag = key.encrypt_inout_detached((&nonce).into(), &aad, text.into());
                tag.map(|tag| icv.copy_from_slice(&tag)).is_ok()
            }
            Self::ChaCha(key) => {
                let tag = key.encrypt_inout_detached((&nonce).into(), &aad, text.into());
                tag.map(|tag| icv.copy_from_slice(&tag)).is_ok()
            }
        }
    }

    /// Verifies an ESP packet and decrypts it in place; returns `true` if it is authentic.
    #[inline]
    pub(super) fn open(&self, salt: [u8; SALT], esp: &mut [u8]) -> bool {
        if let Self::CbcHmac(key) = self {
            return key.open(esp);
        }
        let (nonce, aad, text) = parts(salt, esp);
        match self {
            Self::Wayfarer(_) | Self::CbcHmac(_) => false,
            Self::AwsLcRs(key) => {
                use aws_lc_rs::aead::*;
                key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), text).is_ok()
            }
            Self::Ring(key) => {
                use ring::aead::*;
                key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), text).is_ok()
            }
            Self::Aes128(key) => detached(text).is_some_and(|(text, icv)| {
                key.decrypt_inout_detached((&nonce).into(), &aad, text.into(), (&*icv).into()).is_ok()
            }),
            Self::Aes256(key) => detached(text).is_some_and(|(text, icv)| {
                key.decrypt_inout_detached((&nonce).into(), &aad, text.into(), (&*icv).into()).is_ok()
            }),
            Self::ChaCha(key) => detached(text).is_some_and(|(text, icv)| {
                key.decrypt_inout_detached((&nonce).into(), &aad, text.into(), (&*icv).into()).is_ok()
            }),
        }
    }
}

/// Returns an AEAD's nonce, AAD, and text with ICV.
#[inline]
fn parts(salt: [u8; SALT], esp: &mut [u8]) -> ([u8; 12], [u8; HEADER], &mut [u8]) {
    let (mut nonce, mut aad) = ([0; 12], [0; HEADER]);
    let (head, text) = esp.split_at_mut(HEADER + IV);
    nonce[..SALT].copy_from_slice(&salt);
    nonce[SALT..].copy_from_slice(&head[HEADER..]);
    aad.copy_from_slice(&head[..HEADER]);
    (nonce, aad, text)
}

fn detached(text: &mut [u8]) -> Option<(&mut [u8], &mut [u8; ICV])> {
    text.split_last_chunk_mut()
}
