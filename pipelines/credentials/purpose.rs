//! The purposes that a peer's certificate may have.

use webpki::{
    Error, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext,
};
use x509_cert::{Certificate, der::Decode, ext::pkix};

/// Returns true if the key of this certificate may sign: it has no key usage, or one that says so
/// (RFC 4945 §5.1.3.2).
pub(super) fn may_sign(certificate: &[u8]) -> bool {
    permits(certificate, |usage| usage.digital_signature() || usage.non_repudiation())
}

/// Returns true if the key of this authority's certificate may sign revocation lists: it has no key
/// usage, or one that says so (RFC 5280 §4.2.1.3).
pub(super) fn may_sign_lists(certificate: &[u8]) -> bool {
    permits(certificate, pkix::KeyUsage::crl_sign)
}

fn permits(certificate: &[u8], is_permitted: impl Fn(&pkix::KeyUsage) -> bool) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    match certificate.tbs_certificate().get_extension::<pkix::KeyUsage>() {
        Ok(usage) => usage.is_none_or(|(_, usage)| is_permitted(&usage)),
        Err(_) => false,
    }
}

/// The extended key usages that a peer's certificate may have. Besides IKE's own usage (RFC 4945
/// §5.1.3.12), those of TLS are accepted, because many certificates are issued for TLS.
pub(super) struct Purpose;

/// `anyExtendedKeyUsage`, `id-kp-serverAuth`, `id-kp-clientAuth`, `id-kp-ipsecIKE`, and the
/// obsolete `iKEIntermediate`.
const PURPOSES: [KeyPurposeId<'static>; 5] = [
    KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]),
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 17]),
    KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 8, 2, 2]),
];

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, present: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut is_any_named = false;
        for purpose in present {
            if PURPOSES.contains(&purpose?) {
                return Ok(());
            }
            is_any_named = true;
        }
        let refused = RequiredEkuNotFoundContext { required: KeyUsage::client_auth(), present: Vec::new() };
        if is_any_named { Err(Error::RequiredEkuNotFoundContext(refused)) } else { Ok(()) }
    }
}
