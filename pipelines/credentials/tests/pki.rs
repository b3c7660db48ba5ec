//! Authorities and certificates for tests, in files.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, RsaKeySize, SanType, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use wayfarer_mobility::{crypto::PeerCertificates, identity::Identity};

/// 2026-01-01: within the validity of what [`params`] makes.
pub(super) const NOW: u64 = 1_767_225_600;

/// The name in every gateway certificate of these tests.
pub(super) const NAME: &str = "gw.example.org";

pub(super) const ALGORITHMS: [&SignatureAlgorithm; 5] = [
    &rcgen::PKCS_RSA_SHA256,
    &rcgen::PKCS_ECDSA_P256_SHA256,
    &rcgen::PKCS_ECDSA_P384_SHA384,
    &rcgen::PKCS_ECDSA_P521_SHA512,
    &rcgen::PKCS_ED25519,
];

/// Generates a key pair. RSA needs a size.
pub(super) fn key_pair(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    match *algorithm == rcgen::PKCS_RSA_SHA256 {
        true => KeyPair::generate_rsa_for(algorithm, RsaKeySize::_2048).unwrap(),
        false => KeyPair::generate_for(algorithm).unwrap(),
    }
}

/// Returns the parameters of a certificate for `name`, valid from 2020 to 2040.
pub(super) fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_string()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// Returns what a peer with this chain sends.
pub(super) fn sent(chain: &[Vec<u8>]) -> PeerCertificates {
    PeerCertificates { chain: chain.to_vec(), ocsp: vec![] }
}

/// A certificate authority.
pub(super) struct Ca {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) der: Vec<u8>,
    pub(super) pem: String,
}

pub(super) fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name, 1);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn sub(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Certifies the same key once more.
    pub(super) fn again(&self, by: &Self, params: &CertificateParams) -> Vec<u8> {
        params.signed_by(self.issuer.key(), &by.issuer).unwrap().der().to_vec()
    }

    /// Returns a revocation list, valid in 2026.
    pub(super) fn crl(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A temporary folder, removed when it is dropped.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file that only its owner can read.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns a signer for [`NAME`] with a key of this kind, and its certificate in PEM.
    pub(super) fn signer(
        &self,
        ca: &Ca,
        algorithm: &'static SignatureAlgorithm,
    ) -> (CertificateSigner, String) {
        self.signer_of(ca, &params(NAME, 2), &key_pair(algorithm))
    }

    pub(super) fn signer_of(
        &self,
        ca: &Ca,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> (CertificateSigner, String) {
        let pem = params.signed_by(key, &ca.issuer).unwrap().pem();
        let certificate = self.write("own.pem", &pem);
        let key = self.write("own.key", key.serialize_pem());
        (CertificateSigner::load(&certificate, &key).unwrap(), pem)
    }

    /// Returns authorities with this policy, at the time `now` in seconds.
    pub(super) fn authorities(
        &self,
        trusted: &[&Ca],
        crls: &[String],
        policy: CrlPolicy,
        now: u64,
    ) -> Authorities {
        let certificates: Vec<PathBuf> =
            trusted.iter().enumerate().map(|(i, ca)| self.write(&format!("{i}.pem"), &ca.pem)).collect();
        let lists: Vec<PathBuf> =
            crls.iter().enumerate().map(|(i, crl)| self.write(&format!("{i}.crl"), crl)).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        Authorities::load(&certificates, &lists, policy, move || now).unwrap()
    }
}

pub(super) fn fqdn(name: &str) -> Identity {
    Identity { kind: 2, data: name.into() }
}

/// Runs `openssl` and returns its output, or its error messages if it fails.
pub(super) fn openssl(folder: &Path, arguments: &str) -> Result<Vec<u8>, String> {
    let output = std::process::Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

pub(super) fn san(identity: &str) -> SanType {
    match identity.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if identity.contains('@') => SanType::Rfc822Name(identity.try_into().unwrap()),
        Err(_) => SanType::DnsName(identity.try_into().unwrap()),
    }
}
