//! Algorithms of IKE and ESP (RFC 8247, RFC 8221), by their numbers in IANA's IKEv2 registry.

/// Encryption (transform type 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encr {
    /// AES-CBC (RFC 3602) with a key of this many bits.
    AesCbc(u16),
    /// AES-GCM with an ICV of 16 bytes (RFC 4106, RFC 5282) with a key of this many bits.
    AesGcm(u16),
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

/// Integrity protection for a cipher without its own (transform type 3): HMAC (RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integ {
    /// HMAC-SHA2-256-128.
    HmacSha256,
    /// HMAC-SHA2-384-192.
    HmacSha384,
    /// HMAC-SHA2-512-256.
    HmacSha512,
}

/// Pseudo-random function (transform type 2): HMAC (RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prf {
    /// HMAC-SHA2-256.
    HmacSha256,
    /// HMAC-SHA2-384.
    HmacSha384,
    /// HMAC-SHA2-512.
    HmacSha512,
}

/// Key exchange (transform type 4, and 6 to 12 of RFC 9370).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kex {
    /// Group 14 (RFC 3526).
    Modp2048,
    /// Group 15 (RFC 3526).
    Modp3072,
    /// Group 16 (RFC 3526).
    Modp4096,
    /// Group 19: P-256 (RFC 5903).
    Ecp256,
    /// Group 20: P-384 (RFC 5903).
    Ecp384,
    /// Group 21: P-521 (RFC 5903).
    Ecp521,
    /// Group 31: X25519 (RFC 8031).
    X25519,
    /// Method 36: ML-KEM-768 (FIPS 203).
    MlKem768,
    /// Method 37: ML-KEM-1024 (FIPS 203).
    MlKem1024,
}

impl Encr {
    /// Returns the number of the transform, and its key length attribute in bits if it has one.
    pub fn transform(self) -> (u16, Option<u16>) {
        match self {
            Self::AesCbc(bits) => (12, Some(bits)),
            Self::AesGcm(bits) => (20, Some(bits)),
            Self::ChaCha20Poly1305 => (28, None),
        }
    }

    /// Returns the cipher of a transform, or `None` if it is not supported.
    pub fn from_transform(id: u16, bits: Option<u16>) -> Option<Self> {
        match (id, bits) {
            (12, Some(bits @ (128 | 192 | 256))) => Some(Self::AesCbc(bits)),
            (20, Some(bits @ (128 | 192 | 256))) => Some(Self::AesGcm(bits)),
            (28, None) => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Returns true if the cipher is an AEAD.
    pub fn is_aead(self) -> bool {
        !matches!(self, Self::AesCbc(_))
    }

    /// Returns the length of the keying material in bytes: the key, and an AEAD's salt of 4 bytes
    /// (RFC 5282 §7.1, RFC 7634 §2).
    pub fn key_len(self) -> usize {
        match self {
            Self::AesCbc(bits) => usize::from(bits / 8),
            Self::AesGcm(bits) => usize::from(bits / 8) + 4,
            Self::ChaCha20Poly1305 => 36,
        }
    }

    /// Returns the length of the IV on the wire, in bytes.
    pub fn iv_len(self) -> usize {
        if self.is_aead() { 8 } else { 16 }
    }

    /// Returns the block length in bytes: padded plaintext is a multiple of it.
    pub fn block_len(self) -> usize {
        if self.is_aead() { 1 } else { 16 }
    }
}

impl Integ {
    /// Returns the number of the transform.
    pub fn transform(self) -> u16 {
        match self {
            Self::HmacSha256 => 12,
            Self::HmacSha384 => 13,
            Self::HmacSha512 => 14,
        }
    }

    /// Returns the algorithm of a transform, or `None` if it is not supported.
    pub fn from_transform(id: u16) -> Option<Self> {
        [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512].into_iter().find(|i| i.transform() == id)
    }

    /// Returns the length of the key in bytes.
    pub fn key_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Returns the length of the ICV in bytes: half of the hash.
    pub fn icv_len(self) -> usize {
        self.key_len() / 2
    }
}

impl Prf {
    /// Returns the number of the transform.
    pub fn transform(self) -> u16 {
        match self {
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
        }
    }

    /// Returns the function of a transform, or `None` if it is not supported.
    pub fn from_transform(id: u16) -> Option<Self> {
        [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512].into_iter().find(|p| p.transform() == id)
    }

    /// Returns the length of the output in bytes, which is also that of the preferred key (RFC 7296
    /// §2.13).
    pub fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

impl Kex {
    /// All methods.
    pub const ALL: [Self; 9] = [
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::X25519,
        Self::MlKem768,
        Self::MlKem1024,
    ];

    /// Returns the number of the method.
    pub fn transform(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::X25519 => 31,
            Self::MlKem768 => 36,
            Self::MlKem1024 => 37,
        }
    }

    /// Returns the method of a transform, or `None` if it is not supported.
    pub fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.transform() == id)
    }
}
