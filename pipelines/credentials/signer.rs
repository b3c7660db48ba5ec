//! The gateway's own certificate and its private key.

use super::{
    files::{self, CredentialError, CredentialProblem},
    rsa_sha1::RsaSha1,
    scheme::{self, METHOD_ECDSA_256, METHOD_ECDSA_384, METHOD_ECDSA_521, METHOD_RSA, METHOD_SIGNATURE},
    staple::Staple,
};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaEncoding},
};
use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, PrivateKeyDer, alg_id};
use std::path::Path;
use wayfarer_mobility::crypto::{SignError, SignatureHashes, Signer};
use webpki::EndEntityCert;

/// Bytes of the shortest RSA modulus accepted: 2048 bits.
const SHORTEST_MODULUS: usize = 256;

/// A certificate with its chain and its private key.
#[derive(Debug)]
pub struct CertificateSigner {
    certificates: Vec<Vec<u8>>,
    key: Key,
    /// The same key for peers that announce no hashes, if it is RSA and may sign with SHA-1.
    sha1: Option<RsaSha1>,
    /// What responders say of the certificates, if peers may have it.
    staple: Option<Staple>,
}

#[derive(Debug)]
enum Key {
    Rsa(rsa::KeyPair),
    Ecdsa(Ecdsa),
    Ed25519(Ed25519KeyPair),
}

/// An ECDSA key, once for each form of its signatures.
#[derive(Debug)]
struct Ecdsa {
    curve: &'static Curve,
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

/// A curve with its hash.
#[derive(Debug)]
struct Curve {
    hash: u16,
    identifier: AlgorithmIdentifier,
    method: u8,
    asn1: &'static EcdsaSigningAlgorithm,
    fixed: &'static EcdsaSigningAlgorithm,
}

static CURVES: [Curve; 3] = [
    Curve {
        hash: 2,
        identifier: alg_id::ECDSA_SHA256,
        method: METHOD_ECDSA_256,
        asn1: &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        fixed: &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
    },
    Curve {
        hash: 3,
        identifier: alg_id::ECDSA_SHA384,
        method: METHOD_ECDSA_384,
        asn1: &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        fixed: &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
    },
    Curve {
        hash: 4,
        identifier: alg_id::ECDSA_SHA512,
        method: METHOD_ECDSA_521,
        asn1: &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
        fixed: &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
    },
];

/// RSA-PSS with each hash. A peer that supports RFC 7427 supports PSS (§5), so PKCS#1 v1.5 is never
/// chosen.
static PSS: [(u16, AlgorithmIdentifier, &dyn RsaEncoding); 3] = [
    (2, alg_id::RSA_PSS_SHA256, &signature::RSA_PSS_SHA256),
    (3, alg_id::RSA_PSS_SHA384, &signature::RSA_PSS_SHA384),
    (4, alg_id::RSA_PSS_SHA512, &signature::RSA_PSS_SHA512),
];

impl CertificateSigner {
    /// Reads PEM files. `certificates` begins with the gateway's own certificate, followed by those
    /// that lead to an authority. `key` contains a private key in PKCS#8, SEC 1 or PKCS#1. Both may
    /// be the same file.
    ///
    /// # Errors
    /// If a file cannot be used: the file and the reason.
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, CredentialError> {
        let chain = files::certificates(certificates)?;
        let private = files::private_key(key)?;
        Self::new(&chain, &private).map_err(|problem| match problem {
            CredentialProblem::NoCertificate | CredentialProblem::BadCertificate => problem.of(certificates),
            _ => problem.of(key),
        })
    }

    /// Takes DER certificates. The first one is the gateway's own, and `key` is its private key.
    ///
    /// # Errors
    /// [`CredentialProblem::BadKey`], [`CredentialProblem::NoCertificate`],
    /// [`CredentialProblem::BadCertificate`] or [`CredentialProblem::OtherKey`].
    pub fn new(
        certificates: &[CertificateDer<'_>],
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, CredentialProblem> {
        let key = Key::parse(key).ok_or(CredentialProblem::BadKey)?;
        let own = certificates.first().ok_or(CredentialProblem::NoCertificate)?;
        let own = EndEntityCert::try_from(own).map_err(|_| CredentialProblem::BadCertificate)?;
        if !key.belongs_to(&own) {
            return Err(CredentialProblem::OtherKey);
        }
        let certificates = certificates.iter().map(|c| c.to_vec()).collect();
        Ok(Self { certificates, key, sha1: None, staple: None })
    }

    /// Lets peers have what OCSP responders say of the certificates (RFC 4806). `others` may have issued
    /// them too.
    ///
    /// # Errors
    /// [`CredentialProblem::NoIssuer`] or [`CredentialProblem::NoResponder`].
    pub fn staple(self, others: &[CertificateDer<'_>]) -> Result<Self, CredentialProblem> {
        Ok(Self { staple: Some(Staple::new(&self.certificates, others)?), ..self })
    }

    /// Lets the key, if it is RSA, sign with SHA-1 for peers that announce no hashes (RFC 7427).
    /// `key` is its file.
    ///
    /// # Errors
    /// If the file cannot be used: the reason.
    pub fn allow_sha1(self, key: &Path) -> Result<Self, CredentialError> {
        let Key::Rsa(_) = self.key else { return Ok(self) };
        let private = files::private_key(key)?;
        let sha1 = RsaSha1::parse(&private);
        Ok(Self { sha1: Some(sha1.ok_or_else(|| CredentialProblem::BadKey.of(key))?), ..self })
    }
}

impl Key {
    fn parse(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let secret = der.secret_der();
        let rsa = match der {
            PrivateKeyDer::Pkcs1(_) => rsa::KeyPair::from_der(secret),
            _ => rsa::KeyPair::from_pkcs8(secret),
        };
        if let Ok(key) = rsa {
            return (key.public_modulus_len() >= SHORTEST_MODULUS).then_some(Self::Rsa(key));
        }
        if let Ok(key) = Ed25519KeyPair::from_pkcs8(secret) {
            return Some(Self::Ed25519(key));
        }
        CURVES.iter().find_map(|curve| {
            let asn1 = EcdsaKeyPair::from_private_key_der(curve.asn1, secret).ok()?;
            let fixed = EcdsaKeyPair::from_private_key_der(curve.fixed, secret).ok()?;
            Some(Self::Ecdsa(Ecdsa { curve, asn1, fixed }))
        })
    }

    /// Returns whether this is the certificate's private key.
    fn belongs_to(&self, certificate: &EndEntityCert<'_>) -> bool {
        let signed = self.sign(&[], SignatureHashes::ALL);
        signed.is_ok_and(|(method, data)| scheme::verifies(certificate, method, &data, &[]))
    }

    fn sign(&self, octets: &[u8], hashes: SignatureHashes) -> Result<(u8, Vec<u8>), SignError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let pss = PSS.iter().find(|(hash, ..)| hashes.has(*hash));
                let (_, identifier, encoding) = pss.ok_or(SignError::NoHash)?;
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, octets, &mut signature).map_err(|_| SignError::Failed)?;
                Ok((METHOD_SIGNATURE, scheme::emit(identifier, &signature)))
            }
            Self::Ecdsa(Ecdsa { curve, asn1, .. }) if hashes.has(curve.hash) => {
                let signature = asn1.sign(&random, octets).map_err(|_| SignError::Failed)?;
                Ok((METHOD_SIGNATURE, scheme::emit(&curve.identifier, signature.as_ref())))
            }
            Self::Ecdsa(Ecdsa { curve, fixed, .. }) => {
                let signature = fixed.sign(&random, octets).map_err(|_| SignError::Failed)?;
                Ok((curve.method, signature.as_ref().to_vec()))
            }
            Self::Ed25519(key) if hashes.has(5) => {
                Ok((METHOD_SIGNATURE, scheme::emit(&alg_id::ED25519, key.sign(octets).as_ref())))
            }
            Self::Ed25519(_) => Err(SignError::NoHash),
        }
    }
}

impl Signer for CertificateSigner {
    fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    fn ocsp(&self) -> Result<Vec<Vec<u8>>, u64> {
        self.staple.as_ref().map_or(Ok(Vec::new()), Staple::answers)
    }

    fn is_pending(&self, number: u64) -> bool {
        self.staple.as_ref().is_some_and(|staple| staple.is_pending(number))
    }

    fn sign(&self, octets: &[u8], hashes: SignatureHashes) -> Result<(u8, Vec<u8>), SignError> {
        // For a peer that announces no hashes, method 1 means SHA-1 (RFC 7296 §3.8).
        if !hashes.are_announced()
            && let Key::Rsa(_) = self.key
        {
            let key = self.sha1.as_ref().ok_or(SignError::OnlySha1)?;
            return Ok((METHOD_RSA, key.sign(octets).ok_or(SignError::Failed)?));
        }
        self.key.sign(octets, hashes)
    }
}
