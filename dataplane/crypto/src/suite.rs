//! The algorithms that an SA may use, and the sizes that follow from them.

use std::{error, fmt, str::FromStr};

/// The combination of algorithms that protects an SA (RFC 8221 §5, §6).
///
/// Written by name, as in the configuration: `aes128gcm16`, `chacha20poly1305`, `aes256-sha384`,
/// `null-sha256`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Suite(pub(super) Kind);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// AES-GCM with an ICV of 16 bytes (RFC 4106).
    Gcm(AesKey),
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha,
    /// ENCR_NULL_AUTH_AES_GMAC (RFC 4543).
    Gmac(AesKey),
    /// AES-CBC (RFC 3602), then HMAC.
    Cbc(AesKey, Hash),
    /// No encryption (RFC 2410), then HMAC.
    Null(Hash),
}

/// Length of an AES key, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum AesKey {
    Aes128 = 16,
    Aes192 = 24,
    Aes256 = 32,
}

/// The hash of an HMAC. Its value is the length of the hash, and so of the key, in bytes (RFC 2404,
/// RFC 4868 §2.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Hash {
    Sha1 = 20,
    Sha256 = 32,
    Sha384 = 48,
    Sha512 = 64,
}

/// Length of the salt at the end of an AEAD's keying material, in bytes (RFC 4106 §8.1, RFC 7634
/// §2, RFC 4543 §5.1).
pub(super) const SALT: usize = 4;

const NAMED: [(&str, Suite); 23] = {
    use {AesKey::*, Hash::*, Kind::*};
    [
        ("aes128gcm16", Suite(Gcm(Aes128))),
        ("aes192gcm16", Suite(Gcm(Aes192))),
        ("aes256gcm16", Suite(Gcm(Aes256))),
        ("chacha20poly1305", Suite(ChaCha)),
        ("aes128gmac", Suite(Gmac(Aes128))),
        ("aes192gmac", Suite(Gmac(Aes192))),
        ("aes256gmac", Suite(Gmac(Aes256))),
        ("aes128-sha1", Suite(Cbc(Aes128, Sha1))),
        ("aes128-sha256", Suite(Cbc(Aes128, Sha256))),
        ("aes128-sha384", Suite(Cbc(Aes128, Sha384))),
        ("aes128-sha512", Suite(Cbc(Aes128, Sha512))),
        ("aes192-sha1", Suite(Cbc(Aes192, Sha1))),
        ("aes192-sha256", Suite(Cbc(Aes192, Sha256))),
        ("aes192-sha384", Suite(Cbc(Aes192, Sha384))),
        ("aes192-sha512", Suite(Cbc(Aes192, Sha512))),
        ("aes256-sha1", Suite(Cbc(Aes256, Sha1))),
        ("aes256-sha256", Suite(Cbc(Aes256, Sha256))),
        ("aes256-sha384", Suite(Cbc(Aes256, Sha384))),
        ("aes256-sha512", Suite(Cbc(Aes256, Sha512))),
        ("null-sha1", Suite(Null(Sha1))),
        ("null-sha256", Suite(Null(Sha256))),
        ("null-sha384", Suite(Null(Sha384))),
        ("null-sha512", Suite(Null(Sha512))),
    ]
};

impl AesKey {
    fn of(bits: u16) -> Option<Self> {
        match bits {
            128 => Some(Self::Aes128),
            192 => Some(Self::Aes192),
            256 => Some(Self::Aes256),
            _ => None,
        }
    }
}

impl Suite {
    /// AES-GCM with a 128-bit key and a 16-byte ICV (RFC 4106): the usual choice.
    pub const AES_128_GCM_16: Self = Self(Kind::Gcm(AesKey::Aes128));

    /// ChaCha20-Poly1305 (RFC 7634).
    pub const CHACHA20_POLY1305: Self = Self(Kind::ChaCha);

    /// Returns AES-GCM with a key of `bits` bits and a 16-byte ICV (RFC 4106), if there is such a
    /// key.
    pub fn aes_gcm(bits: u16) -> Option<Self> {
        AesKey::of(bits).map(|key| Self(Kind::Gcm(key)))
    }

    /// Returns AES-CBC (RFC 3602) with a key of `bits` bits and HMAC-SHA2 of `hash` bits
    /// (RFC 4868), if there are such a key and hash.
    pub fn aes_cbc(bits: u16, hash: u16) -> Option<Self> {
        let hash = match hash {
            256 => Hash::Sha256,
            384 => Hash::Sha384,
            512 => Hash::Sha512,
            _ => return None,
        };
        AesKey::of(bits).map(|key| Self(Kind::Cbc(key, hash)))
    }

    /// Every suite, once.
    pub const ALL: &[Self] = &{
        let mut all = [NAMED[0].1; NAMED.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = NAMED[i].1;
            i += 1;
        }
        all
    };

    /// Returns the length of the keying material in bytes: the cipher's key, then an AEAD's salt of
    /// 4 bytes or the key of the HMAC.
    pub fn key_len(self) -> usize {
        match self.0 {
            Kind::Gcm(aes) | Kind::Gmac(aes) => aes as usize + SALT,
            Kind::ChaCha => 32 + SALT,
            Kind::Cbc(aes, hash) => aes as usize + hash as usize,
            Kind::Null(hash) => hash as usize,
        }
    }

    /// Returns the length of the IV before the payload, in bytes.
    #[inline]
    pub fn iv_len(self) -> usize {
        match self.0 {
            Kind::Gcm(_) | Kind::ChaCha | Kind::Gmac(_) => 8,
            Kind::Cbc(..) => 16,
            Kind::Null(_) => 0,
        }
    }

    /// Returns the length of the ICV at the end of the packet, in bytes.
    #[inline]
    pub fn icv_len(self) -> usize {
        match self.0 {
            Kind::Gcm(_) | Kind::ChaCha | Kind::Gmac(_) => 16,
            Kind::Cbc(_, Hash::Sha1) | Kind::Null(Hash::Sha1) => 12,
            Kind::Cbc(_, hash) | Kind::Null(hash) => hash as usize / 2,
        }
    }

    /// Returns the number of bytes of which payload, padding, pad length and next header together
    /// are a multiple (RFC 4303 §2.4).
    #[inline]
    pub fn align(self) -> usize {
        match self.0 {
            Kind::Cbc(..) => 16,
            _ => 4,
        }
    }

    /// Returns whether an ESP packet of this suite can be `len` bytes long.
    #[inline]
    pub(super) fn fits(self, len: usize) -> bool {
        match len.checked_sub(super::HEADER + self.iv_len() + self.icv_len()) {
            Some(text) => text >= self.align() && text.is_multiple_of(self.align()),
            None => false,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMED.iter().find_map(|&(name, suite)| (suite == *self).then_some(name));
        f.pad(name.unwrap_or_default())
    }
}

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(name: &str) -> Result<Self, UnknownSuite> {
        NAMED.iter().find_map(|&(known, suite)| (known == name).then_some(suite)).ok_or(UnknownSuite)
    }
}

/// The error for a name that no [`Suite`] has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownSuite;

impl fmt::Display for UnknownSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such suite of ESP algorithms")
    }
}

impl error::Error for UnknownSuite {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_one_name() {
        for &suite in Suite::ALL {
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
        let names: std::collections::BTreeSet<_> = Suite::ALL.iter().map(Suite::to_string).collect();
        assert_eq!(names.len(), 23);
        for wrong in ["", "aes128gcm", "AES128GCM16", "aes128gcm16 ", "null", "null-md5"] {
            assert_eq!(wrong.parse::<Suite>(), Err(UnknownSuite), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_rfcs() {
        let sizes = |name: &str| {
            let s: Suite = name.parse().unwrap();
            (s.key_len(), s.iv_len(), s.icv_len(), s.align())
        };
        assert_eq!(sizes("aes192gcm16"), (28, 8, 16, 4));
        assert_eq!(sizes("chacha20poly1305"), (36, 8, 16, 4));
        assert_eq!(sizes("aes256gmac"), (36, 8, 16, 4));
        assert_eq!(sizes("aes128-sha1"), (36, 16, 12, 16));
        assert_eq!(sizes("aes256-sha256"), (64, 16, 16, 16));
        assert_eq!(sizes("aes256-sha384"), (80, 16, 24, 16));
        assert_eq!(sizes("null-sha512"), (64, 0, 32, 4));
    }
}
