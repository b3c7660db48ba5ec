//! What we and our peers prove ourselves by, and who can tell: certificates, EAP-TLS, RADIUS.
//!
//! | module | what |
//! |---|---|
//! | [`CertificateSigner`] | our own certificate and private key |
//! | [`Authorities`] | whom we trust to vouch for peers |
//! | `scheme` | ways to sign, and what names them on the wire |
//! | [`certificate`] | what a certificate says of its owner |
//! | `files` | PEM files |
//! | [`EapTlsServer`] | peers that prove themselves by certificate inside EAP |
//! | [`RadiusSockets`] | other servers that know who peers are |

mod authorities;
pub mod certificate;
mod eap_tls;
mod files;
mod radius;
mod scheme;
mod signer;

pub use authorities::{Authorities, CrlPolicy};
pub use eap_tls::EapTlsServer;
pub use files::{CredentialError, CredentialProblem};
pub use radius::RadiusSockets;
pub use signer::CertificateSigner;

#[cfg(test)]
mod tests;
