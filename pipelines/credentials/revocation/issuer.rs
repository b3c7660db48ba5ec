//! The issuer of certificates, which says whether they are revoked.

/// The issuer of certificates, and of what is published about them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::credentials) struct Issuer {
    /// The content of its name in DER.
    pub(in crate::credentials) name: Vec<u8>,
    /// Its SubjectPublicKeyInfo in DER.
    pub(in crate::credentials) key: Vec<u8>,
}
