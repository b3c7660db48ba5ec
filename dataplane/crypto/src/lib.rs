//! ESP cryptography behind a burst interface (RFC 4303, RFC 8221).
//!
//! ```text
//! │ SPI 4 │ sequence number 4 │ IV │ payload │ padding │ pad length 1 │ next header 1 │ ICV │
//!                                  └──────────────── encrypted ─────────────────────┘
//! └──────────────────────────────── authenticated ──────────────────────────────────┘
//! ```
//!
//! A [`Suite`] names the algorithms. A [`Key`] holds them ready for use. [`seal`] and [`open`] work
//! on packets of any mixture of keys. The caller writes and checks the padding. Once a key is made,
//! nothing here allocates.
//!
//! A crate of its own, because its kernels take minutes to compile: what changes beside them does not
//! compile them again.

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]

mod aead;
mod aes;
mod backend;
mod cbc;
#[cfg(target_arch = "x86_64")]
mod esp_gcm;
#[cfg(target_arch = "x86_64")]
mod gcm;
mod gmac;
mod hmac;
mod layout;
mod suite;
#[cfg(test)]
mod vectors;

pub use backend::{Backend, BackendError};
pub use layout::HEADER;
pub use suite::{Suite, UnknownSuite};

use std::{error, fmt};
use suite::{Kind, SALT};
use zeroize::Zeroizing;

/// The number of jobs that are worked on together.
const BURST: usize = 64;

/// A suite with its keying material, ready for use by any number of workers. Wiped when dropped.
///
/// Only three words, because it lies in the cache lines of an SA that every packet reads.
pub struct Key(Transform);

const _: () = assert!(size_of::<Key>() <= 24);

/// The transform of a packet. Boxed, so that moving a key leaves no copy of it behind.
enum Transform {
    #[cfg(target_arch = "x86_64")]
    Gcm(esp_gcm::EspGcm),
    Other(Box<Other>),
}

/// A suite whose packets do not go through the kernels here.
struct Other {
    suite: Suite,
    transform: OtherTransform,
}

enum OtherTransform {
    Aead(aead::EspAead),
    Gmac(gmac::Gmac),
    CbcHmac(cbc::CbcHmac),
}

impl Key {
    /// Makes a key from `material`: the cipher's key, then an AEAD's salt or the key of the HMAC.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless `material` is [`Suite::key_len`] bytes long;
    /// [`KeyError::Backend`] if this machine cannot run `backend`; [`KeyError::Refused`] if a
    /// library refuses the key.
    pub fn new(suite: Suite, material: &[u8], backend: Backend) -> Result<Self, KeyError> {
        if material.len() != suite.key_len() {
            return Err(KeyError::Length { wanted: suite.key_len(), got: material.len() });
        }
        if !backend.is_available() {
            return Err(BackendError::Unavailable(backend).into());
        }
        let transform = Transform::new(suite, material, backend).ok_or(KeyError::Refused)?;
        Ok(Self(transform))
    }

    /// Returns the suite that the key is for.
    #[inline]
    pub fn suite(&self) -> Suite {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Transform::Gcm(t) => t.suite,
            Transform::Other(t) => t.suite,
        }
    }

    /// Returns whether an ESP packet of the suite can be `len` bytes long.
    #[inline(always)]
    fn fits(&self, len: usize) -> bool {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Transform::Gcm(_) => esp_gcm::fits(len),
            Transform::Other(t) => t.suite.fits(len),
        }
    }

    /// Prefetches what sealing or opening a packet reads of the key. Does nothing if a library
    /// works with it.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        if let Transform::Gcm(t) = &self.0 {
            t.key.prefetch();
        }
    }
}

impl fmt::Debug for Key {
    /// Names the suite; never shows a byte of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.suite())
    }
}

impl Transform {
    fn new(suite: Suite, material: &[u8], backend: Backend) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if let (Some(isa), Kind::Gcm(_) | Kind::Gmac(_)) = (backend.isa(), suite.0) {
            let (key, salt) = material.split_last_chunk()?;
            let key = gcm::Key::new(isa, key, *salt)?;
            return Some(Self::Gcm(esp_gcm::EspGcm { key, suite }));
        }
        let transform = OtherTransform::new(suite, material, backend)?;
        Some(Self::Other(Box::new(Other { suite, transform })))
    }
}

impl OtherTransform {
    fn new(suite: Suite, material: &[u8], backend: Backend) -> Option<Self> {
        let aead = |aead, salt| Self::Aead(aead::EspAead { aead, salt });
        Some(match suite.0 {
            Kind::Gcm(_) => {
                let (key, salt) = salted(material)?;
                aead(aead::Aead::gcm(key)?, salt)
            }
            Kind::ChaCha => {
                let (key, salt) = salted(material)?;
                aead(aead::Aead::chacha(key, backend)?, salt)
            }
            Kind::Gmac(_) => {
                let (key, salt) = salted(material)?;
                Self::Gmac(gmac::Gmac::new(key, salt)?)
            }
            Kind::Cbc(size, hash) => {
                let (key, mac) = material.split_at(size as usize);
                let (cipher, mac) = (Some(aes::Aes::new(key)?), hmac::Mac::new(hash, mac)?);
                Self::CbcHmac(cbc::CbcHmac { cipher, mac, icv_len: suite.icv_len() })
            }
            Kind::Null(hash) => {
                let mac = hmac::Mac::new(hash, material)?;
                Self::CbcHmac(cbc::CbcHmac { cipher: None, mac, icv_len: suite.icv_len() })
            }
        })
    }
}

impl Other {
    fn seal<'a>(&'a self, run: &mut cbc::Run<'a>, seq: u64, iv: u64, esn: bool, esp: &'a mut [u8]) {
        match &self.transform {
            OtherTransform::Aead(t) => t.seal(seq, iv, esn, esp),
            OtherTransform::Gmac(t) => t.seal(seq, iv, esn, esp),
            OtherTransform::CbcHmac(t) => run.push(t, seq, iv, esn, esp),
        }
    }

    fn open(&self, seq: u64, esn: bool, esp: &mut [u8]) -> bool {
        match &self.transform {
            OtherTransform::Aead(t) => t.open(seq, esn, esp),
            OtherTransform::Gmac(t) => t.open(seq, esn, esp),
            OtherTransform::CbcHmac(t) => t.open(seq, esn, esp),
        }
    }
}

fn salted(material: &[u8]) -> Option<(&[u8], Zeroizing<[u8; SALT]>)> {
    let (key, salt) = material.split_last_chunk()?;
    Some((key, Zeroizing::new(*salt)))
}

/// A reason why there is no [`Key`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// The keying material has another length than the suite needs.
    Length {
        /// The length that the suite needs, in bytes ([`Suite::key_len`]).
        wanted: usize,
        /// The length of the material given, in bytes.
        got: usize,
    },
    /// The library did not take the key, for example for lack of memory.
    Refused,
    /// This machine has no such backend.
    Backend(BackendError),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { wanted, got } => write!(f, "the key must be {wanted} bytes long, not {got}"),
            Self::Refused => f.write_str("the cryptographic library refused the key"),
            Self::Backend(reason) => reason.fmt(f),
        }
    }
}

impl error::Error for KeyError {}

impl From<BackendError> for KeyError {
    fn from(reason: BackendError) -> Self {
        Self::Backend(reason)
    }
}

/// A packet to be protected.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// Key of the outbound SA.
    pub key: &'a Key,
    /// Sequence number.
    pub seq: u64,
    /// A number never used with this key before, from which the IV is made.
    pub iv: u64,
    /// `true` if the SA uses extended sequence numbers, so that all 64 bits are authenticated (RFC
    /// 4303 §2.2.1).
    pub esn: bool,
    /// ESP packet: SPI and low half of `seq`, room for the IV, payload up to the next header, room
    /// for the ICV.
    pub esp: &'a mut [u8],
}

/// A packet to be verified and decrypted.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// Key of the inbound SA.
    pub key: &'a Key,
    /// Sequence number. With `esn` its high half is inferred.
    pub seq: u64,
    /// `true` if the SA uses extended sequence numbers.
    pub esn: bool,
    /// ESP packet: SPI to ICV.
    pub esp: &'a mut [u8],
    /// Result: whether the packet is authentic and `esp` holds its plaintext.
    pub authentic: bool,
}

/// Writes the IV and ICV of every packet and encrypts it in place.
///
/// # Panics
/// Panics if an `esp` is too short, or its text is not a multiple of [`Suite::align`]. Either is a
/// bug in this program, which must not let a packet leave unprotected.
pub fn seal(jobs: &mut [SealJob<'_>]) {
    for jobs in jobs.chunks_mut(BURST) {
        seal_burst(jobs.iter_mut().map(|SealJob { key, seq, iv, esn, esp }| SealJob {
            key,
            seq: *seq,
            iv: *iv,
            esn: *esn,
            esp,
        }));
    }
}

/// Does the same as [`seal`] for at most 64 packets, as they come.
///
/// # Panics
/// Panics as [`seal`] does, and if there are more packets.
#[inline(always)]
pub fn seal_burst<'a>(jobs: impl Iterator<Item = SealJob<'a>>) {
    #[cfg(target_arch = "x86_64")]
    let mut burst = gcm::Burst::<true>::new();
    let mut run = cbc::Run::new();
    for (i, SealJob { key, seq, iv, esn, esp }) in jobs.enumerate() {
        assert!(i < BURST, "at most {BURST} packets");
        assert!(key.fits(esp.len()), "an ESP packet of {} bytes for {}", esp.len(), key.suite());
        match &key.0 {
            #[cfg(target_arch = "x86_64")]
            Transform::Gcm(t) => t.seal(&mut burst, i, (seq, iv), esn, esp),
            Transform::Other(t) => t.seal(&mut run, seq, iv, esn, esp),
        }
    }
    run.finish();
    #[cfg(target_arch = "x86_64")]
    burst.finish();
}

/// Verifies every packet and decrypts it in place if it is authentic. Sets [`OpenJob::authentic`]
/// of each.
///
/// A packet that is forged, too short or of a wrong length is not authentic, and does not affect
/// the others. What its `esp` then holds was never decrypted, or is wiped, and must not be used.
/// AES-GCM is decrypted in place while its tag is computed, which halves the passes over a packet.
/// Nobody but this function sees the text before the tag is compared.
pub fn open(jobs: &mut [OpenJob<'_>]) {
    for jobs in jobs.chunks_mut(BURST) {
        let authentic = open_burst(jobs.iter_mut().map(|OpenJob { key, seq, esn, esp, .. }| OpenJob {
            key,
            seq: *seq,
            esn: *esn,
            esp,
            authentic: false,
        }));
        for (i, job) in jobs.iter_mut().enumerate() {
            job.authentic = authentic >> i & 1 == 1;
        }
    }
}

/// Does the same as [`open`] for at most 64 packets, as they come. Returns a bit for each that is
/// authentic, the first one lowest.
///
/// # Panics
/// Panics if there are more packets.
#[inline(always)]
pub fn open_burst<'a>(jobs: impl Iterator<Item = OpenJob<'a>>) -> u64 {
    #[cfg(target_arch = "x86_64")]
    let mut burst = gcm::Burst::<false>::new();
    let mut authentic = 0;
    for (i, OpenJob { key, seq, esn, esp, .. }) in jobs.enumerate() {
        assert!(i < BURST, "at most {BURST} packets");
        if !key.fits(esp.len()) {
            continue;
        }
        match &key.0 {
            #[cfg(target_arch = "x86_64")]
            Transform::Gcm(t) => t.push(&mut burst, i, seq, esn, esp),
            Transform::Other(t) => authentic |= u64::from(t.open(seq, esn, esp)) << i,
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        authentic |= burst.finish();
    }
    authentic
}
