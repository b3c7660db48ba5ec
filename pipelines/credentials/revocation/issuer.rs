//! The issuer of certificates, which says whether they are revoked.

use crate::credentials::{certificate::sequence, purpose};
use std::iter;
use webpki::{Cert, VerifiedPath};
use x509_cert::{Certificate, der::Decode, ext::pkix::AuthorityKeyIdentifier};

/// The issuer of certificates, and of what is published about them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::credentials) struct Issuer {
    /// The content of its name in DER.
    pub(in crate::credentials) name: Vec<u8>,
    /// Its SubjectPublicKeyInfo in DER.
    pub(in crate::credentials) key: Vec<u8>,
}

/// A certificate of a path.
pub(in crate::credentials) struct Issued<'a> {
    pub(in crate::credentials) certificate: &'a Cert<'a>,
    pub(in crate::credentials) issuer: Issuer,
    /// True if its issuer's certificate permits to sign revocation lists (RFC 5280 §6.3.3 f). Trust in
    /// an authority includes that.
    pub(in crate::credentials) lists_permitted: bool,
}

impl<'a> Issued<'a> {
    /// Returns the certificates of a path, the peer's own first.
    pub(in crate::credentials) fn along(path: &'a VerifiedPath<'a>) -> Vec<Self> {
        let own: &Cert<'_> = path.end_entity();
        let all: Vec<&Cert<'_>> = iter::once(own).chain(path.intermediate_certificates()).collect();
        let anchor = sequence(&path.anchor().subject_public_key_info).unwrap_or_default();
        let of = |issuer: &&Cert<'_>| {
            (issuer.subject_public_key_info().to_vec(), purpose::may_sign_lists(&issuer.der()))
        };
        let issuers: Vec<_> = all.iter().skip(1).map(of).chain([(anchor, true)]).collect();
        let with_issuer = |(certificate, (key, lists_permitted)): (&'a Cert<'a>, _)| {
            let issuer = Issuer { name: certificate.issuer().to_vec(), key };
            Self { certificate, issuer, lists_permitted }
        };
        all.into_iter().zip(issuers).map(with_issuer).collect()
    }
}

/// Returns the identifier of its issuer's key that a certificate names (RFC 5280 §4.2.1.1).
pub(in crate::credentials) fn issuer_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, named) = certificate.tbs_certificate().get_extension::<AuthorityKeyIdentifier>().ok()??;
    Some(named.key_identifier?.into_bytes().into())
}
