//! The implementations of the AEADs, and how one is chosen.

#[cfg(target_arch = "x86_64")]
use super::gcm::{AesNi, Isa, Vaes256, Vaes512};
use std::{env, error, fmt, str::FromStr};

/// An implementation of the AEADs. The other algorithms are the same with each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// AES-GCM in vectors of four blocks: AVX-512, VAES, VPCLMULQDQ. ChaCha20-Poly1305 by AWS-LC.
    Vaes512,
    /// AES-GCM in vectors of two blocks: AVX2, VAES, VPCLMULQDQ. ChaCha20-Poly1305 by AWS-LC.
    Vaes256,
    /// AES-GCM a block at a time: AES-NI, PCLMULQDQ. ChaCha20-Poly1305 by AWS-LC.
    AesNi,
    /// RustCrypto: Rust that runs anywhere.
    Portable,
}

impl Backend {
    /// Every backend, the fastest first.
    pub const ALL: [Self; 4] = [Self::Vaes512, Self::Vaes256, Self::AesNi, Self::Portable];

    /// Returns the fastest backend that this machine can run.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Returns the backend that the environment variable `WAYFARER_CRYPTO` names: `vaes512`,
    /// `vaes256`, `aesni` or `portable`. Without the variable, returns the fastest one.
    ///
    /// # Errors
    /// [`BackendError`] if the name is none of these, or if the machine lacks the instructions.
    pub fn from_env() -> Result<Self, BackendError> {
        let Some(name) = env::var_os("WAYFARER_CRYPTO") else { return Ok(Self::detect()) };
        let backend: Self = name.to_str().ok_or(BackendError::Unknown)?.parse()?;
        if backend.is_available() { Ok(backend) } else { Err(BackendError::Unavailable(backend)) }
    }

    /// Returns whether this machine can run the backend.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let kernels = self.isa().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        let kernels = false;
        self == Self::Portable || kernels
    }

    /// Returns the instructions that AES-GCM is to use, or `None` if the machine lacks them.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn isa(self) -> Option<Isa> {
        match self {
            Self::Vaes512 => Vaes512::detect().map(Isa::Vaes512),
            Self::Vaes256 => Vaes256::detect().map(Isa::Vaes256),
            Self::AesNi => AesNi::detect().map(Isa::AesNi),
            Self::Portable => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Vaes512 => "vaes512",
            Self::Vaes256 => "vaes256",
            Self::AesNi => "aesni",
            Self::Portable => "portable",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL.into_iter().find(|backend| backend.name() == name).ok_or(BackendError::Unknown)
    }
}

/// A reason why there is no such [`Backend`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BackendError {
    /// No backend has this name.
    Unknown,
    /// The processor lacks instructions that this backend needs.
    Unavailable(Backend),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("WAYFARER_CRYPTO must be vaes512, vaes256, aesni or portable"),
            Self::Unavailable(backend) => write!(f, "this processor cannot run the cryptography {backend}"),
        }
    }
}

impl error::Error for BackendError {}
