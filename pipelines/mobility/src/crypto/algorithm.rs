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

/// Integrity protection beside a cipher that has none (transform type 3): HMAC (RFC 4868).
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
    /// Number of the transform, and the key length attribute in bits where it has one.
    pub fn transform(self) -> (u16, Option<u16>) {
        match self {
            Self::AesCbc(bits) => (12, Some(bits)),
            Self::AesGcm(bits) => (20, Some(bits)),
            Self::ChaCha20Poly1305 => (28, None),
        }
    }

    /// The cipher that a transform means, if it is one of these.
    pub fn from_transform(id: u16, bits: Option<u16>) -> Option<Self> {
        match (id, bits) {
            (12, Some(bits @ (128 | 192 | 256))) => Some(Self::AesCbc(bits)),
            (20, Some(bits @ (128 | 192 | 256))) => Some(Self::AesGcm(bits)),
            (28, None) => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Whether it authenticates by itself.
    pub fn is_aead(self) -> bool {
        !matches!(self, Self::AesCbc(_))
    }

    /// Bytes of keying material: the key, and an AEAD's salt of 4 bytes (RFC 5282 §7.1, RFC 7634
    /// §2).
    pub fn key_len(self) -> usize {
        match self {
            Self::AesCbc(bits) => usize::from(bits / 8),
            Self::AesGcm(bits) => usize::from(bits / 8) + 4,
            Self::ChaCha20Poly1305 => 36,
        }
    }

    /// Bytes of the IV on the wire.
    pub fn iv_len(self) -> usize {
        if self.is_aead() { 8 } else { 16 }
    }

    /// What the length of the plaintext with its padding is a multiple of.
    pub fn block_len(self) -> usize {
        if self.is_aead() { 1 } else { 16 }
    }
}

impl Integ {
    /// Number of the transform.
    pub fn transform(self) -> u16 {
        match self {
            Self::HmacSha256 => 12,
            Self::HmacSha384 => 13,
            Self::HmacSha512 => 14,
        }
    }

    /// The algorithm that a transform means, if it is one of these.
    pub fn from_transform(id: u16) -> Option<Self> {
        [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512].into_iter().find(|i| i.transform() == id)
    }

    /// Bytes of its key.
    pub fn key_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Bytes of the ICV: half of the hash.
    pub fn icv_len(self) -> usize {
        self.key_len() / 2
    }
}

impl Prf {
    /// Number of the transform.
    pub fn transform(self) -> u16 {
        match self {
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
        }
    }

    /// The function that a transform means, if it is one of these.
    pub fn from_transform(id: u16) -> Option<Self> {
        [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512].into_iter().find(|p| p.transform() == id)
    }

    /// Bytes of its output, and of its preferred key (RFC 7296 §2.13).
    pub fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

impl Kex {
    /// All of them.
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

    /// Number of the method.
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

    /// The method that a transform means, if it is one of these.
    pub fn from_transform(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.transform() == id)
    }
}
