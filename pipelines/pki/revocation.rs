//! The authority's revocation list.

use super::PkiError;
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_cert::{crl::CertificateList, der::Decode};

/// How long a list is good for. The gateway reads it from a file that each revocation replaces, so
/// its age says nothing.
const GOOD_FOR: Duration = Duration::days(3650);

/// Returns what a list in PEM revokes; `None` if it cannot be parsed.
pub(super) fn revoked(pem: &[u8]) -> Option<Vec<RevokedCertParams>> {
    let der = CertificateRevocationListDer::from_pem_slice(pem).ok()?;
    let list: CertificateList = CertificateList::from_der(&der).ok()?;
    let all = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
    Some(
        all.iter()
            .map(|one| {
                entry(
                    one.serial_number.as_bytes(),
                    OffsetDateTime::UNIX_EPOCH + one.revocation_date.to_unix_duration(),
                )
            })
            .collect(),
    )
}

/// Returns the entry for a certificate with this serial number.
pub(super) fn entry(serial: &[u8], revocation_time: OffsetDateTime) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time,
        reason_code: None,
        invalidity_date: None,
    }
}

/// Returns a signed list in PEM. Its number is the time in seconds, so it grows.
pub(super) fn sign(
    issuer: &Issuer<'_, KeyPair>,
    revoked_certs: Vec<RevokedCertParams>,
) -> Result<String, PkiError> {
    let now = OffsetDateTime::now_utc();
    let list = CertificateRevocationListParams {
        this_update: now,
        next_update: now + GOOD_FOR,
        crl_number: SerialNumber::from(now.unix_timestamp().unsigned_abs()),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).and_then(|list| list.pem()).map_err(PkiError::library)
}
