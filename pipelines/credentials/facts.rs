//! What a certificate says besides its names, as far as clients care about it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::{
    Certificate,
    der::{
        Decode, Encode,
        asn1::{Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef},
    },
    ext::pkix::{ExtendedKeyUsage, SubjectAltName},
};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVES: [(ObjectIdentifier, KeyType); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), KeyType::Ecdsa256),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), KeyType::Ecdsa384),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), KeyType::Ecdsa521),
];

/// The type of a certificate's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256.
    Ecdsa256,
    /// ECDSA on P-384.
    Ecdsa384,
    /// ECDSA on P-521.
    Ecdsa521,
    /// RSA.
    Rsa,
    /// Another one, such as Ed25519.
    Other,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The time from which on it is valid.
    pub not_before: SystemTime,
    /// The time until which it is valid.
    pub not_after: SystemTime,
    /// `true` if it may authenticate a server (serverAuth).
    pub is_server: bool,
    /// `true` if it has subject alternative names.
    pub has_names: bool,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The subject in DER.
    pub subject: Vec<u8>,
    /// The issuer in DER.
    pub issuer: Vec<u8>,
    /// The type of its public key.
    pub key: KeyType,
}

impl CertificateFacts {
    /// Reads a DER certificate. Returns `None` if it cannot be parsed.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let about = certificate.tbs_certificate();
        let usage = about.get_extension::<ExtendedKeyUsage>().ok()?;
        let names = about.get_extension::<SubjectAltName>().ok()?;
        let key = &about.subject_public_key_info().algorithm;
        let curve = key.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
        let curve = curve.filter(|_| key.oid == EC_PUBLIC_KEY);
        let common = about.subject().iter().find(|attribute| attribute.oid == COMMON_NAME);
        Some(Self {
            not_before: UNIX_EPOCH + about.validity().not_before.to_unix_duration(),
            not_after: UNIX_EPOCH + about.validity().not_after.to_unix_duration(),
            is_server: usage.is_some_and(|(_, usage)| usage.0.contains(&SERVER_AUTH)),
            has_names: names.is_some_and(|(_, names)| !names.0.is_empty()),
            common_name: common.and_then(|attribute| text(&attribute.value)),
            subject: about.subject().to_der().ok()?,
            issuer: about.issuer().to_der().ok()?,
            key: match CURVES.iter().find(|(oid, _)| curve == Some(*oid)) {
                Some((_, key)) => *key,
                None if key.oid == RSA => KeyType::Rsa,
                None => KeyType::Other,
            },
        })
    }

    /// Returns how long it is valid.
    pub fn validity(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

fn text(value: &x509_cert::der::Any) -> Option<String> {
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned());
    let printable = || value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str().to_owned());
    let ascii = || value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.as_str().to_owned());
    utf8.or_else(printable).or_else(ascii)
}
