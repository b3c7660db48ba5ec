//! AES-CBC with HMAC by `aws-lc-rs`, a packet at a time (RFC 3602, RFC 4868).

use aws_lc_rs::{
    cipher::{
        AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
        UnboundCipherKey,
    },
    constant_time::verify_slices_are_equal,
    hmac,
    iv::FixedLength,
};
use wayfarer_dataplane::crypto::{HEADER, Suite};

/// Bytes of the IV.
const IV: usize = 16;

/// A key ready for use.
pub(super) struct CbcHmac {
    encrypting: EncryptingKey,
    decrypting: DecryptingKey,
    mac: hmac::Key,
    icv_len: usize,
}

impl CbcHmac {
    /// Makes a key from `material`; returns `None` if `suite` is another one.
    pub(super) fn new(suite: Suite, material: &[u8]) -> Option<Self> {
        let name = suite.to_string();
        let (cipher, hash) = name.split_once('-')?;
        let (cipher, key_len) = match cipher {
            "aes128" => (&AES_128, 16),
            "aes192" => (&AES_192, 24),
            "aes256" => (&AES_256, 32),
            _ => return None,
        };
        let hash = match hash {
            "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "sha256" => hmac::HMAC_SHA256,
            "sha384" => hmac::HMAC_SHA384,
            "sha512" => hmac::HMAC_SHA512,
            _ => return None,
        };
        let (key, mac_key) = material.split_at_checked(key_len)?;
        let unbound = || UnboundCipherKey::new(cipher, key);
        Some(Self {
            encrypting: EncryptingKey::cbc(unbound().ok()?).ok()?,
            decrypting: DecryptingKey::cbc(unbound().ok()?).ok()?,
            mac: hmac::Key::new(hash, mac_key),
            icv_len: suite.icv_len(),
        })
    }

    /// Encrypts a packet with the IV that it has, and writes its ICV; returns `true` on success.
    #[inline]
    pub(super) fn seal(&self, esp: &mut [u8]) -> bool {
        let (data, icv) = esp.split_at_mut(esp.len() - self.icv_len);
        let (iv, text) = text_of(data);
        let is_encrypted =
            self.encrypting.less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from(iv))).is_ok();
        icv.copy_from_slice(&hmac::sign(&self.mac, data).as_ref()[..self.icv_len]);
        is_encrypted
    }

    /// Verifies a packet and decrypts it in place; returns `true` if it is authentic.
    #[inline]
    pub(super) fn open(&self, esp: &mut [u8]) -> bool {
        let (data, icv) = esp.split_at_mut(esp.len() - self.icv_len);
        let expected = hmac::sign(&self.mac, data);
        if verify_slices_are_equal(&expected.as_ref()[..self.icv_len], icv).is_err() {
            return false;
        }
        let (iv, text) = text_of(data);
        self.decrypting.decrypt(text, DecryptionContext::Iv128(FixedLength::from(iv))).is_ok()
    }
}

/// Returns IV and text of a packet without its ICV.
fn text_of(data: &mut [u8]) -> ([u8; IV], &mut [u8]) {
    let (start, text) = data.split_at_mut(HEADER + IV);
    let mut iv = [0; IV];
    iv.copy_from_slice(&start[HEADER..]);
    (iv, text)
}
