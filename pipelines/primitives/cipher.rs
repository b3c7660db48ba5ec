//! Protection of the Encrypted payload: an AEAD (RFC 5282, RFC 7634), or AES-CBC with HMAC (RFC
//! 7296 §3.14).

use super::mac;
use aws_lc_rs::{
    aead::{self, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time, hmac,
};
use wayfarer_mobility::crypto::{Encr, Integ, Refused};

/// Bytes of the salt at the end of an AEAD's keying material (RFC 5282 §7.1).
const SALT: usize = 4;

pub(super) fn seal_aead(
    encr: Encr,
    key: &[u8],
    iv: &[u8],
    aad: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), Refused> {
    let (key, nonce) = aead(encr, key, iv)?;
    key.seal_in_place_append_tag(nonce, Aad::from(aad), text).map_err(|_| Refused)
}

pub(super) fn open_aead(
    encr: Encr,
    key: &[u8],
    iv: &[u8],
    aad: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), Refused> {
    let (key, nonce) = aead(encr, key, iv)?;
    let len = key.open_in_place(nonce, Aad::from(aad), text).map_err(|_| Refused)?.len();
    text.truncate(len);
    Ok(())
}

/// Returns the key and the nonce, which is the salt followed by the IV (RFC 5282 §4).
fn aead(encr: Encr, key: &[u8], iv: &[u8]) -> Result<(LessSafeKey, Nonce), Refused> {
    let algorithm = match encr {
        Encr::AesGcm(128) => &aead::AES_128_GCM,
        Encr::AesGcm(192) => &aead::AES_192_GCM,
        Encr::AesGcm(256) => &aead::AES_256_GCM,
        Encr::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        Encr::AesGcm(_) | Encr::AesCbc(_) => return Err(Refused),
    };
    let (key, salt) = key.split_last_chunk::<SALT>().ok_or(Refused)?;
    let mut nonce = [0; aead::NONCE_LEN];
    let (front, back) = nonce.split_at_mut(SALT);
    front.copy_from_slice(salt);
    back.copy_from_slice(iv.get(..8).filter(|_| iv.len() == 8).ok_or(Refused)?);
    let key = UnboundKey::new(algorithm, key).map_err(|_| Refused)?;
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
}

pub(super) fn seal_cbc(
    encr: Encr,
    key: &[u8],
    integ: (Integ, &[u8]),
    iv: &[u8],
    aad: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), Refused> {
    let context = EncryptionContext::Iv128(<[u8; 16]>::try_from(iv).map_err(|_| Refused)?.into());
    let key = EncryptingKey::cbc(aes(encr, key)?).map_err(|_| Refused)?;
    key.less_safe_encrypt(text, context).map_err(|_| Refused)?;
    let tag = icv(integ, &[aad, iv, text]);
    text.extend_from_slice(tag.as_ref().get(..integ.0.icv_len()).ok_or(Refused)?);
    Ok(())
}

pub(super) fn open_cbc(
    encr: Encr,
    key: &[u8],
    integ: (Integ, &[u8]),
    iv: &[u8],
    aad: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), Refused> {
    let context = DecryptionContext::Iv128(<[u8; 16]>::try_from(iv).map_err(|_| Refused)?.into());
    let len = text.len().checked_sub(integ.0.icv_len()).ok_or(Refused)?;
    let (ciphertext, received) = text.split_at_mut_checked(len).ok_or(Refused)?;
    let tag = icv(integ, &[aad, iv, ciphertext]);
    let expected = tag.as_ref().get(..received.len()).ok_or(Refused)?;
    constant_time::verify_slices_are_equal(expected, received).map_err(|_| Refused)?;
    let key = DecryptingKey::cbc(aes(encr, key)?).map_err(|_| Refused)?;
    key.decrypt(ciphertext, context).map_err(|_| Refused)?;
    text.truncate(len);
    Ok(())
}

fn aes(encr: Encr, key: &[u8]) -> Result<UnboundCipherKey, Refused> {
    let algorithm = match encr {
        Encr::AesCbc(128) => &cipher::AES_128,
        Encr::AesCbc(192) => &cipher::AES_192,
        Encr::AesCbc(256) => &cipher::AES_256,
        _ => return Err(Refused),
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| Refused)
}

/// Returns the whole HMAC, whose first half is the ICV (RFC 4868 §2.3).
fn icv((integ, key): (Integ, &[u8]), parts: &[&[u8]]) -> hmac::Tag {
    let algorithm = match integ {
        Integ::HmacSha256 => hmac::HMAC_SHA256,
        Integ::HmacSha384 => hmac::HMAC_SHA384,
        Integ::HmacSha512 => hmac::HMAC_SHA512,
    };
    mac::sign(algorithm, key, parts)
}
