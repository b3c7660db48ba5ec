//! The credentials of the gateway and its peers, and who verifies them: certificates, EAP-TLS,
//! RADIUS.
//!
//! | module | contents |
//! |---|---|
//! | [`CertificateSigner`] | the gateway's own certificate and private key |
//! | [`Authorities`] | the authorities that the gateway trusts |
//! | `rsa_sha1` | signatures with SHA-1, for old peers only |
//! | `scheme` | signature schemes and their encoding on the wire |
//! | [`certificate`] | the names in a certificate |
//! | [`CertificateFacts`] | validity, purpose and key of a certificate |
//! | `files` | PEM files |
//! | `refusal` | why a certificate was refused, in plain words |
//! | [`EapTlsServer`] | the server of EAP-TLS |
//! | [`DynamicSocket`] | the port for RADIUS servers' own requests |
//! | [`RadiusSockets`], [`AccountingSockets`] | sockets to RADIUS servers |

mod authorities;
pub mod certificate;
mod eap_tls;
mod facts;
mod files;
mod radius;
mod refusal;
mod rsa_sha1;
mod scheme;
mod signer;

pub use authorities::{Authorities, CrlPolicy};
pub use eap_tls::EapTlsServer;
pub use facts::{CertificateFacts, KeyType};
pub use files::{CredentialError, CredentialProblem};
pub use radius::{AccountingSockets, DynamicSocket, RadiusSockets};
pub use signer::CertificateSigner;

#[cfg(test)]
mod tests;
