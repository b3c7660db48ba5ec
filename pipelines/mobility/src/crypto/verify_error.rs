//! Why a peer's certificate or signature was rejected.

use alloc::string::{String, ToString};
use core::fmt;

/// Why a peer's certificate or signature was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The kind of reason.
    pub kind: VerifyErrorKind,
    /// The reason in plain words. What a peer chose in them is escaped and short, so that it fits
    /// into a line of the log.
    pub words: String,
}

/// The kind of reason for which a peer's certificate or signature was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyErrorKind {
    /// No certificate, or one that cannot be read or used.
    Certificate,
    /// No chain from the certificate to an authority that we trust.
    Issuer,
    /// Not yet or no longer valid.
    Expired,
    /// Revoked, or nobody says that it is not although somebody must.
    Revoked,
    /// Not known yet: what an authority publishes is being fetched, under this number.
    /// [`Verifier::is_pending`] tells when to verify again.
    ///
    /// [`Verifier::is_pending`]: super::Verifier::is_pending
    Pending(u64),
    /// Not checked, because too many wait for what authorities publish. The peer must try again.
    Overload,
    /// The certificate does not contain the identity that the peer claims.
    Identity,
    /// The signature is wrong, or of a kind that is not accepted.
    Signature,
}

impl VerifyErrorKind {
    /// Returns the error of this kind with these words.
    pub fn because(self, words: impl Into<String>) -> VerifyError {
        VerifyError { kind: self, words: words.into() }
    }
}

impl From<VerifyErrorKind> for VerifyError {
    /// Returns the error with the words of its kind.
    fn from(kind: VerifyErrorKind) -> Self {
        kind.because(kind.to_string())
    }
}

impl fmt::Display for VerifyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "it cannot be read or used",
            Self::Issuer => "no trusted authority issued it",
            Self::Expired => "it is not valid now",
            Self::Revoked => "it is revoked",
            Self::Pending(_) => "whether it is revoked is not known yet: try again",
            Self::Overload => "too many wait for what authorities publish: try again",
            Self::Identity => "it is not for the identity that the peer claims",
            Self::Signature => "the signature is wrong or of a kind that is not accepted",
        })
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            VerifyErrorKind::Signature => write!(f, "signature refused: {}", self.words),
            VerifyErrorKind::Overload => write!(f, "certificate not checked: {}", self.words),
            _ => write!(f, "certificate refused: {}", self.words),
        }
    }
}
