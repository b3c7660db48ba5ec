//! The ways in which peers authenticate, as operators read them.

use crate::aaa::eap;
use core::fmt;

/// The way in which a peer authenticates, or tries to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By a shared key.
    Psk,
    /// By a certificate and a signature of this scheme, if the scheme is known.
    Certificate(Option<&'static str>),
    /// By EAP.
    Eap(eap::Method),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Psk => f.write_str("psk"),
            Self::Certificate(None) => f.write_str("certificate"),
            Self::Certificate(Some(scheme)) => write!(f, "certificate/{scheme}"),
            Self::Eap(method) => method.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aaa::eap::packet::kind;
    use alloc::string::ToString;

    #[test]
    fn methods_are_one_word_each() {
        let eap = |by_radius, kind| Method::Eap(eap::Method { by_radius, kind });
        for (method, word) in [
            (Method::Psk, "psk"),
            (Method::Certificate(None), "certificate"),
            (Method::Certificate(Some("ecdsa-sha256")), "certificate/ecdsa-sha256"),
            (eap(false, None), "eap"),
            (eap(false, Some(kind::MSCHAPV2)), "eap-mschapv2"),
            (eap(true, None), "eap-radius"),
            (eap(true, Some(kind::TLS)), "eap-radius/tls"),
            (eap(true, Some(99)), "eap-radius/type99"),
        ] {
            assert_eq!(method.to_string(), word);
        }
    }
}
