//! The issuer of certificates, which says whether they are revoked.

use crate::credentials::certificate::sequence;
use std::iter;
use webpki::{Cert, VerifiedPath};

/// The issuer of certificates, and of what is published about them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::credentials) struct Issuer {
    /// The content of its name in DER.
    pub(in crate::credentials) name: Vec<u8>,
    /// Its SubjectPublicKeyInfo in DER.
    pub(in crate::credentials) key: Vec<u8>,
}

impl Issuer {
    /// Returns the certificates of a path, the peer's own first, each with its issuer.
    pub(in crate::credentials) fn along<'a>(path: &'a VerifiedPath<'a>) -> Vec<(&'a Cert<'a>, Self)> {
        let own: &Cert<'_> = path.end_entity();
        let all: Vec<&Cert<'_>> = iter::once(own).chain(path.intermediate_certificates()).collect();
        let anchor = sequence(&path.anchor().subject_public_key_info).unwrap_or_default();
        let above = all.iter().skip(1).map(|issuer| issuer.subject_public_key_info().to_vec());
        let keys: Vec<_> = above.chain([anchor]).collect();
        let with_issuer = |(one, key): (&'a Cert<'a>, _)| (one, Self { name: one.issuer().to_vec(), key });
        all.into_iter().zip(keys).map(with_issuer).collect()
    }
}
