//! The authority, and the certificates that it issues.

use super::{AUTHORITY, PkiError, files::Files, is_file_name, pkcs12, revocation};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};
use time::{Duration, OffsetDateTime};
use tracing::warn;
use x509_cert::{Certificate as X509, der::Decode};
use zeroize::Zeroizing;

/// iKEIntermediate: some clients of macOS want it in a gateway's certificate.
const IKE_INTERMEDIATE: [u64; 9] = [1, 3, 6, 1, 5, 5, 8, 2, 2];

/// How far a clock may be behind ours, so that a new certificate is valid at once.
const CLOCK_DIFFERENCE: Duration = Duration::hours(1);

/// Longest common name, in bytes (RFC 5280 appendix A.1, ub-common-name).
const LONGEST_NAME: usize = 64;

/// The kind of a new private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256. All clients know it, and none of them combines it with SHA-1.
    Ecdsa256,
    /// ECDSA on P-384.
    Ecdsa384,
    /// RSA of 3072 bits.
    Rsa3072,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, PkiError> {
        match self {
            Self::Ecdsa256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Ecdsa384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        }
        .map_err(PkiError::library)
    }
}

/// The subject of a new certificate.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Names and addresses, the most important first.
    pub names: &'a [String],
    /// Days that the certificate is valid.
    pub days: u32,
    /// The kind of its private key.
    pub key: KeyKind,
}

/// An authority, with its files in a folder. No other process has the folder meanwhile.
pub struct Authority {
    files: Files,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority called `name`: `ca.crt`, `ca.key` and an empty revocation list, `ca.crl`.
    /// Makes the folder if it is missing. Returns the paths of the files.
    ///
    /// # Errors
    /// If one of the files exists or cannot be written.
    pub fn create(folder: &Path, name: &str, days: u32, key: KeyKind) -> Result<Vec<PathBuf>, PkiError> {
        let key = key.generate()?;
        let mut params = params(name, days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(PkiError::library)?;
        let secret = Zeroizing::new(key.serialize_pem());
        let list = revocation::sign(&Issuer::new(params, key), vec![])?;
        let name = |ending: &str| format!("{AUTHORITY}.{ending}");
        Files::open(folder)?.create(&[
            (name("crt"), certificate.pem().as_bytes()),
            (name("key"), secret.as_bytes()),
            (name("crl"), list.as_bytes()),
        ])
    }

    /// Opens the authority in a folder: `ca.crt` and `ca.key`. Waits until no other process has the
    /// folder. Warns if others can access the key.
    ///
    /// # Errors
    /// If a file cannot be read or is not what it should be, or somebody else can change the
    /// folder.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        let (files, name) = (Files::open(folder)?, |ending: &str| format!("{AUTHORITY}.{ending}"));
        let is_no = |what| PkiError::NotPem(files.path(&name("key")), what);
        let secret = files.read_secret(&name("key"))?;
        let key = str::from_utf8(&secret).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| is_no("a private key in PEM, not encrypted"))?;
        let certificate = certificate(&files, &name("crt"))?;
        if !is_key_of(&key, &certificate) {
            return Err(is_no("the private key of ca.crt"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(PkiError::library)?;
        Ok(Self { files, certificate, issuer })
    }

    /// Issues a gateway's certificate: `FILE.crt`, `FILE.key`. Returns the paths of the files.
    ///
    /// # Errors
    /// If a name cannot be certified, or one of the files exists or cannot be written.
    pub fn gateway(&self, file: &str, subject: &Subject<'_>) -> Result<Vec<PathBuf>, PkiError> {
        check_file(file)?;
        let usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::Other(IKE_INTERMEDIATE.into()),
        ];
        let (certificate, key) = self.issue(subject, usages)?;
        let secret = Zeroizing::new(key.serialize_pem());
        self.files.create(&[
            (format!("{file}.crt"), certificate.pem().as_bytes()),
            (format!("{file}.key"), secret.as_bytes()),
        ])
    }

    /// Issues a user's certificate: `NAME.crt`, `NAME.key`, and `NAME.p12`, which contains both and
    /// the authority's certificate. Returns the paths of the files, and the password of the last
    /// one.
    ///
    /// # Errors
    /// If the name cannot be certified, or one of the files exists or cannot be written.
    pub fn user(&self, subject: &Subject<'_>) -> Result<(Vec<PathBuf>, Zeroizing<String>), PkiError> {
        let file = subject.names.first().map_or("", String::as_str);
        check_file(file)?;
        let (certificate, key) = self.issue(subject, vec![ExtendedKeyUsagePurpose::ClientAuth])?;
        let secret = Zeroizing::new(key.serialize_pem());
        let password = pkcs12::password()?;
        let der = Zeroizing::new(key.serialize_der());
        let bundle = pkcs12::bundle(file, &der, &[certificate.der(), &self.certificate], &password)?;
        let written = self.files.create(&[
            (format!("{file}.crt"), certificate.pem().as_bytes()),
            (format!("{file}.key"), secret.as_bytes()),
            (format!("{file}.p12"), &bundle),
        ])?;
        Ok((written, password))
    }

    /// Adds the certificate `FILE.crt` to the revocation list, `ca.crl`, and returns the path of
    /// the list.
    ///
    /// # Errors
    /// If the certificate or the list cannot be read, or the list cannot be written.
    pub fn revoke(&self, file: &str) -> Result<PathBuf, PkiError> {
        check_file(file)?;
        let (name, list_name) = (format!("{file}.crt"), format!("{AUTHORITY}.crl"));
        let (path, list_path) = (self.files.path(&name), self.files.path(&list_name));
        let revoked = certificate(&self.files, &name)?;
        let serial = serial(&revoked).ok_or(PkiError::NotPem(path, "a certificate in PEM"))?;
        let list = revocation::revoked(&self.files.read(&list_name)?);
        let mut list = list.ok_or_else(|| PkiError::NotPem(list_path.clone(), "a revocation list in PEM"))?;
        if !list.iter().any(|one| one.serial_number.as_ref() == serial) {
            list.push(revocation::entry(&serial, OffsetDateTime::now_utc()));
        }
        self.files.replace(&list_name, revocation::sign(&self.issuer, list)?.as_bytes())?;
        Ok(list_path)
    }

    /// Ends the validity of a certificate with that of the authority's own, and warns if that makes
    /// it shorter: peers refuse it afterwards (RFC 5280 §6.1.3).
    fn limit(&self, params: &mut CertificateParams) -> Result<(), PkiError> {
        let name = format!("{AUTHORITY}.crt");
        let end = end_of(&self.certificate)
            .ok_or_else(|| PkiError::NotPem(self.files.path(&name), "a certificate in PEM"))?;
        if end <= OffsetDateTime::now_utc() {
            return Err(PkiError::Expired(self.files.path(&name)));
        }
        if params.not_after > end {
            let file = self.files.path(&name);
            warn!(file = %file.display(), "the certificate is valid only until {}, as the authority's own", end.date());
            params.not_after = end;
        }
        Ok(())
    }

    fn issue(
        &self,
        subject: &Subject<'_>,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<(Certificate, KeyPair), PkiError> {
        let common = subject.names.first().map_or("", String::as_str);
        let mut params = params(common, subject.days)?;
        self.limit(&mut params)?;
        params.subject_alt_names =
            subject.names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = subject.key.generate()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::library)?;
        Ok((certificate, key))
    }
}

/// Returns what all certificates have in common.
fn params(common_name: &str, days: u32) -> Result<CertificateParams, PkiError> {
    if common_name.is_empty() || common_name.len() > LONGEST_NAME {
        return Err(PkiError::Name(common_name.into(), "must have 1 to 64 bytes"));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::now_utc() - CLOCK_DIFFERENCE;
    // Both ends are part of the validity (RFC 5280 §4.1.2.5).
    params.not_after = params.not_before + Duration::days(days.into()) - Duration::SECOND;
    Ok(params)
}

/// Returns the subject alternative name for an address, a mail address or a domain name.
fn alternative(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = |_| PkiError::Name(name.into(), "must be ASCII");
    let text = name.try_into().map_err(bad)?;
    match name {
        _ if !name.bytes().all(|c| c.is_ascii_graphic()) => {
            Err(PkiError::Name(name.into(), "must be an address, a domain name or a mail address"))
        }
        mail if mail.contains('@') => Ok(SanType::Rfc822Name(text)),
        _ => Ok(SanType::DnsName(text)),
    }
}

/// Refuses names that would be other files than one of the folder.
fn check_file(name: &str) -> Result<(), PkiError> {
    match name {
        AUTHORITY => Err(PkiError::Name(name.into(), "is the name of the authority's own files")),
        _ if !is_file_name(name) => Err(PkiError::Name(
            name.into(),
            "names a file, so it may only have letters, digits and . _ - + @",
        )),
        _ => Ok(()),
    }
}

fn certificate(files: &Files, name: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(&files.read(name)?)
        .map_err(|_| PkiError::NotPem(files.path(name), "a certificate in PEM"))
}

/// Returns when a certificate ends.
fn end_of(certificate: &[u8]) -> Option<OffsetDateTime> {
    let certificate = X509::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate().validity().not_after;
    Some(OffsetDateTime::UNIX_EPOCH + end.to_unix_duration())
}

fn is_key_of(key: &KeyPair, certificate: &[u8]) -> bool {
    X509::from_der(certificate).is_ok_and(|certificate| {
        let public = &certificate.tbs_certificate().subject_public_key_info().subject_public_key;
        public.raw_bytes() == key.public_key_raw()
    })
}

fn serial(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = X509::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().serial_number().as_bytes().to_vec())
}
