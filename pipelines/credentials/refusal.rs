//! Says in plain words why a peer's certificate was refused. Its names are the peer's choice, so
//! they are escaped and shortened.

use super::{certificate, facts::CertificateFacts};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wayfarer_mobility::{
    crypto::{VerifyError, VerifyErrorKind as Kind},
    identity::{Identity, kind},
};
use webpki::{EndEntityCert, Error, RevocationReason};
use x509_cert::der::DateTime;

/// Most characters of a name that are shown.
const MOST_CHARACTERS: usize = 120;

/// Most names of a certificate that are shown.
const MOST_NAMES: usize = 3;

/// A peer's own certificate, and the others that it sent.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) own: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
}

impl<'a> Sent<'a> {
    fn all(self) -> impl Iterator<Item = &'a CertificateDer<'a>> {
        std::iter::once(self.own).chain(self.others)
    }

    /// Returns the name of the first certificate that these facts hold for.
    fn name_of(self, is_it: impl Fn(&CertificateFacts) -> bool) -> String {
        let found = self.all().find(|der| CertificateFacts::of(der).is_some_and(|facts| is_it(&facts)));
        name(found.unwrap_or(self.own))
    }

    /// Returns the name of the issuer that is missing: that of the last certificate on the way from
    /// the peer's own towards an authority.
    fn last_issuer(self) -> String {
        let parsed: Vec<EndEntityCert<'_>> =
            self.all().filter_map(|der| EndEntityCert::try_from(der).ok()).collect();
        let Some(mut last) = parsed.first() else { return "unknown".to_owned() };
        for _ in 0..parsed.len() {
            let is_issuer = |other: &&EndEntityCert<'_>| {
                other.subject() == last.issuer() && other.subject() != last.subject()
            };
            match parsed.iter().find(is_issuer) {
                Some(issuer) => last = issuer,
                None => break,
            }
        }
        issuer_name(last.issuer())
    }
}

/// Returns why these certificates were refused, from the error of webpki.
pub(super) fn of_chain(error: &Error, sent: Sent<'_>) -> VerifyError {
    match error {
        Error::CertExpired { not_after, .. } => {
            let end = seconds(*not_after);
            expired(&sent.name_of(|facts| facts.not_after == end), end)
        }
        Error::CertNotValidYet { not_before, .. } => {
            let start = seconds(*not_before);
            not_yet_valid(&sent.name_of(|facts| facts.not_before == start), start)
        }
        Error::UnknownIssuer => {
            let issuer = sent.last_issuer();
            Kind::Issuer
                .because(format!("no trusted authority issued it; its chain ends with the issuer {issuer}"))
        }
        Error::InvalidSignatureForPublicKey => {
            let issuer = sent.last_issuer();
            Kind::Issuer
                .because(format!("a signature in its chain is not by the issuer that it names ({issuer})"))
        }
        error => plain(error),
    }
}

/// Returns why a certificate was refused if that needs no names.
fn plain(error: &Error) -> VerifyError {
    let (kind, words) = match error {
        Error::EndEntityUsedAsCa => {
            (Kind::Issuer, "a certificate in its chain is not an authority's (basic constraints)")
        }
        Error::NameConstraintViolation => {
            (Kind::Issuer, "an authority in its chain may not vouch for its name (name constraints)")
        }
        Error::PathLenConstraintViolated => {
            (Kind::Issuer, "its chain is longer than an authority in it permits (path length constraint)")
        }
        Error::MaximumPathDepthExceeded => (Kind::Issuer, "its chain is too long"),
        Error::MaximumNameConstraintComparisonsExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded => (Kind::Issuer, "its chain takes too long to check"),
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            (Kind::Issuer, "it or its chain is signed by an algorithm that is not accepted, such as SHA-1")
        }
        Error::CaUsedAsEndEntity => (Kind::Certificate, "it is an authority's own (basic constraints)"),
        Error::EmptyEkuExtension | Error::RequiredEkuNotFoundContext(_) => {
            (Kind::Certificate, "its extended key usage permits neither IPsec nor TLS")
        }
        Error::UnsupportedCertVersion => (Kind::Certificate, "it is not of X.509 version 3"),
        Error::UnsupportedCriticalExtension => {
            (Kind::Certificate, "it or its chain has a critical extension that is not supported")
        }
        _ => (Kind::Certificate, "it or its chain cannot be read"),
    };
    kind.because(words)
}

/// Returns the refusal of the certificate `name` that ended at `end`.
pub(super) fn expired(name: &str, end: SystemTime) -> VerifyError {
    Kind::Expired.because(format!("{name} expired on {}", date(end)))
}

/// Returns the refusal of the certificate `name` that is valid from `start` on.
pub(super) fn not_yet_valid(name: &str, start: SystemTime) -> VerifyError {
    Kind::Expired.because(format!("{name} is not valid before {}", date(start)))
}

/// Returns the refusal of the certificate `name` that was revoked at `since`, and why if that is said.
pub(super) fn revoked(name: &str, since: SystemTime, why: Option<RevocationReason>) -> VerifyError {
    let why = why.and_then(reason).map(|why| format!(" ({why})"));
    Kind::Revoked.because(format!("{name} was revoked on {}{}", date(since), why.unwrap_or_default()))
}

/// Returns the refusal of a certificate that is not for the name that the peer `claimed`.
pub(super) fn misnamed(own: &[u8], claimed: &Identity) -> VerifyError {
    let names = certificate::identities(own);
    let mut list: Vec<String> = names.iter().take(MOST_NAMES).map(shown).collect();
    match names.len() {
        0 => list.push("nobody".to_owned()),
        count if count > MOST_NAMES => list.push(format!("{} more", count - MOST_NAMES)),
        _ => {}
    }
    Kind::Identity.because(format!("it is for {}, not for {}", list.join(" and "), shown(claimed)))
}

/// Returns the subject of a certificate, or its first other name.
pub(super) fn name(certificate: &[u8]) -> String {
    let named =
        certificate::subject(certificate).or_else(|| certificate::identities(certificate).into_iter().next());
    named.map_or_else(|| "it".to_owned(), |name| shown(&name))
}

/// Returns an issuer's name, of which this is the content in DER, as text.
pub(super) fn issuer_name(content: &[u8]) -> String {
    let data = certificate::sequence(content).unwrap_or_default();
    shown(&Identity { kind: kind::DER_ASN1_DN, data })
}

/// Returns an identity as text that is safe and not long.
fn shown(identity: &Identity) -> String {
    let text = identity.to_string();
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => {
            let quote = if text.starts_with('"') { "\"" } else { "" };
            format!("{}…{quote}", &text[..end])
        }
        None => text,
    }
}

pub(super) fn seconds(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Returns a time as text, such as `2026-01-01T00:00:00Z`.
pub(super) fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_unix_duration(since).map_or_else(|_| "an unknown day".to_owned(), |date| date.to_string())
}

fn reason(code: RevocationReason) -> Option<&'static str> {
    match code {
        RevocationReason::KeyCompromise => Some("its key is known to others"),
        RevocationReason::CaCompromise | RevocationReason::AaCompromise => {
            Some("the key of an authority is known to others")
        }
        RevocationReason::AffiliationChanged => Some("its owner belongs elsewhere"),
        RevocationReason::Superseded => Some("it was replaced"),
        RevocationReason::CessationOfOperation => Some("it is no longer needed"),
        RevocationReason::CertificateHold => Some("for the time being"),
        RevocationReason::PrivilegeWithdrawn => Some("its privilege was withdrawn"),
        RevocationReason::Unspecified | RevocationReason::RemoveFromCrl => None,
    }
}
