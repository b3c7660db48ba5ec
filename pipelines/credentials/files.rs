//! PEM files with certificates, private keys and revocation lists.

use crate::secrets;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use std::{
    fmt, fs,
    io::{self, Read},
    path::Path,
};
use zeroize::Zeroizing;

/// Longest file with a private key, in bytes. The file may contain certificates too.
const LONGEST_KEY: usize = 65536;

/// An error of a credential file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialError {
    /// Path of the file.
    pub file: Box<Path>,
    /// The reason.
    pub problem: CredentialProblem,
}

/// The reason why a credential file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialProblem {
    /// It cannot be read.
    Unreadable(io::ErrorKind),
    /// It is a folder or a device.
    NotAFile,
    /// It is longer than any file with a private key.
    TooLong,
    /// It is not PEM.
    Syntax,
    /// It contains no certificate.
    NoCertificate,
    /// It contains a certificate that cannot be parsed.
    BadCertificate,
    /// It contains no private key, or only an encrypted one.
    NoKey,
    /// It contains a private key of an unsupported kind.
    BadKey,
    /// Its private key does not belong to the certificate.
    OtherKey,
    /// The issuer of the certificate, which its responder must be told, is not known.
    NoIssuer,
    /// The certificate names no OCSP responder.
    NoResponder,
    /// It contains no revocation list.
    NoCrl,
    /// It contains a revocation list that cannot be parsed.
    BadCrl,
}

impl CredentialProblem {
    /// Returns the error of a file with this problem.
    pub fn of(self, file: &Path) -> CredentialError {
        CredentialError { file: file.into(), problem: self }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for CredentialError {}

impl fmt::Display for CredentialProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable(kind) => return write!(f, "cannot be read: {kind}"),
            Self::NotAFile => "is not a regular file",
            Self::TooLong => "is too long for a file with a private key",
            Self::Syntax => "is not valid PEM",
            Self::NoCertificate => "has no certificate in PEM",
            Self::BadCertificate => "has a certificate that cannot be read as X.509 version 3",
            Self::NoKey => "has no private key in PEM (PKCS#8, SEC 1 or PKCS#1, not encrypted)",
            Self::BadKey => {
                "has an unsupported private key: it must be RSA of 2048 to 8192 bits, \
             ECDSA on P-256, P-384 or P-521, or Ed25519"
            }
            Self::OtherKey => "has a private key that does not belong to the certificate",
            Self::NoIssuer => {
                "does not lead to the issuer, which must be known for OCSP: append the issuer's certificate"
            }
            Self::NoResponder => "has a certificate that names no OCSP responder with http",
            Self::NoCrl => "has no certificate revocation list in PEM or DER",
            Self::BadCrl => "has a certificate revocation list that cannot be read as X.509 version 2",
        })
    }
}

/// Reads all certificates in a PEM file. There must be at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let certificates = sections(&read(file)?, file)?;
    match certificates.is_empty() {
        true => Err(CredentialProblem::NoCertificate.of(file)),
        false => Ok(certificates),
    }
}

/// Reads all revocation lists in a PEM file, or the one in a DER file. There must be at least one.
pub(super) fn crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CredentialError> {
    let content = read(file)?;
    if content.first() == Some(&0x30) {
        return Ok(vec![content.into()]);
    }
    let crls = sections(&content, file)?;
    match crls.is_empty() {
        true => Err(CredentialProblem::NoCrl.of(file)),
        false => Ok(crls),
    }
}

/// Reads the first private key in a PEM file. Its memory is zeroised when it is dropped.
pub(super) fn private_key(file: &Path) -> Result<Zeroizing<PrivateKeyDer<'static>>, CredentialError> {
    let unreadable = |e: io::Error| CredentialProblem::Unreadable(e.kind()).of(file);
    let opened =
        secrets::open(file).map_err(unreadable)?.ok_or_else(|| CredentialProblem::NotAFile.of(file))?;
    // With this capacity the vector never grows: a reallocation would leave a copy of the key
    // behind.
    let mut content = Zeroizing::new(Vec::with_capacity(LONGEST_KEY + 1));
    opened.take(LONGEST_KEY as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() > LONGEST_KEY {
        return Err(CredentialProblem::TooLong.of(file));
    }
    match PrivateKeyDer::pem_slice_iter(&content).next() {
        Some(Ok(key)) => Ok(Zeroizing::new(key)),
        Some(Err(_)) => Err(CredentialProblem::Syntax.of(file)),
        None => Err(CredentialProblem::NoKey.of(file)),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(file).map_err(|e| CredentialProblem::Unreadable(e.kind()).of(file))
}

fn sections<T: PemObject>(content: &[u8], file: &Path) -> Result<Vec<T>, CredentialError> {
    T::pem_slice_iter(content).collect::<Result<_, _>>().map_err(|_| CredentialProblem::Syntax.of(file))
}
