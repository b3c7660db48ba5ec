//! The credentials of the gateway and its peers, and who verifies them: certificates, EAP-TLS,
//! RADIUS.
//!
//! | module | contents |
//! |---|---|
//! | [`CertificateSigner`] | the gateway's own certificate and private key |
//! | [`Authorities`] | the authorities that the gateway trusts |
//! | `status` | what authorities say of a peer's certificates |
//! | `staple` | what they say of our own, for peers that ask |
//! | `revocation` | what authorities publish about revocation: lists, OCSP |
//! | `rsa_sha1` | signatures with SHA-1, for old peers only |
//! | `scheme` | signature schemes and their encoding on the wire |
//! | [`certificate`] | the names in a certificate |
//! | [`CertificateFacts`] | validity, purpose and key of a certificate |
//! | `files`, `crl_files` | PEM files; files of revocation lists, which are read again |
//! | `purpose` | the purposes that a peer's certificate may have |
//! | `refusal` | why a certificate was refused, in plain words |
//! | [`EapTlsServer`] | the server of EAP-TLS |
//! | [`DynamicSocket`] | the port for RADIUS servers' own requests |
//! | [`RadiusSockets`], [`AccountingSockets`] | sockets to RADIUS servers |

mod authorities;
pub mod certificate;
mod crl_files;
mod eap_tls;
mod facts;
mod files;
mod purpose;
mod radius;
mod refusal;
mod revocation;
mod rsa_sha1;
mod scheme;
mod signer;
mod staple;
mod status;

pub use authorities::{Authorities, CrlPolicy, Revocation};
pub use eap_tls::EapTlsServer;
pub use facts::{CertificateFacts, KeyType};
pub use files::{CredentialError, CredentialProblem};
pub use radius::{AccountingSockets, DynamicSocket, RadiusSockets};
pub use signer::CertificateSigner;

#[cfg(test)]
mod tests;
