//! Looks up what authorities say of the certificates of a chain: in files, fetched, or brought along by
//! the peer.

use super::{
    certificate, refusal,
    revocation::{Answer, Document, Issuer, Publications, Query, ocsp::Status},
};
use std::{iter, sync::Arc, time::SystemTime};
use wayfarer_mobility::crypto::{VerifyError, VerifyErrorKind};
use webpki::{Cert, CertRevocationList, VerifiedPath};

/// Most answers of responders that a peer may bring along. Others are not looked at.
const MOST_ANSWERS: usize = 8;

/// Where authorities may have said something.
pub(super) struct Known<'a> {
    pub(super) published: &'a Publications,
    /// Lists from files.
    pub(super) files: &'a [CertRevocationList<'a>],
    /// Answers of responders that the peer brought along (RFC 4806), in DER.
    pub(super) answers: &'a [Vec<u8>],
    pub(super) now: SystemTime,
}

/// What authorities say of the certificates of a chain.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) documents: Vec<Arc<Document>>,
    /// True if one of them covers its certificate.
    pub(super) has_answers: bool,
    /// The name of the first certificate that neither an answer nor a list about all certificates covers.
    pub(super) uncovered: Option<String>,
    /// The addresses of what cannot be had, and why.
    pub(super) missing: Vec<String>,
}

/// What there is about one certificate.
enum Found {
    Document(Arc<Document>),
    /// It is being fetched under this number.
    Pending(u64),
    /// Nothing can be had, for these reasons.
    Nothing(Vec<String>),
}

impl Known<'_> {
    /// Looks up the certificates of a path.
    ///
    /// # Errors
    /// [`VerifyErrorKind::Pending`] while something is fetched, and [`VerifyErrorKind::Revoked`] if a
    /// responder says so.
    pub(super) fn look_up(&self, path: &VerifiedPath<'_>) -> Result<Findings, VerifyError> {
        let own: &Cert<'_> = path.end_entity();
        let certificates: Vec<_> = iter::once(own).chain(path.intermediate_certificates()).collect();
        let (mut findings, mut pending) = (Findings::default(), None);
        for (at, certificate) in certificates.iter().enumerate() {
            let key = match certificates.get(at + 1) {
                Some(issuer) => issuer.subject_public_key_info().to_vec(),
                None => certificate::sequence(&path.anchor().subject_public_key_info).unwrap_or_default(),
            };
            let issuer = Issuer { name: certificate.issuer().to_vec(), key };
            let is_its =
                |list: &CertRevocationList<'_>| list.issuer() == certificate.issuer() && is_about_all(list);
            let mut is_covered = self.files.iter().any(is_its);
            match self.find(certificate, &issuer) {
                Found::Document(document) => {
                    let covers = match &*document {
                        // The certificates after the first are authorities'.
                        Document::List(fetched) if fetched.is_about(at > 0) => {
                            match fetched.list.find_serial(certificate.serial()) {
                                Ok(None) => true,
                                Ok(Some(entry)) => {
                                    let since = refusal::seconds(entry.revocation_date);
                                    return Err(refusal::revoked(&refusal::name(&certificate.der()), since));
                                }
                                Err(_) => false,
                            }
                        }
                        Document::List(_) => false,
                        Document::Status(Status { revoked_at: None, .. }, _) => true,
                        Document::Status(Status { revoked_at: Some(since), .. }, _) => {
                            return Err(refusal::revoked(&refusal::name(&certificate.der()), *since));
                        }
                    };
                    is_covered |= covers;
                    findings.has_answers |= covers;
                    findings.documents.push(document);
                }
                Found::Pending(number) => (pending, is_covered) = (Some(number), true),
                Found::Nothing(why) => findings.missing.extend(why),
            }
            if !is_covered {
                findings.uncovered.get_or_insert_with(|| refusal::name(&certificate.der()));
            }
        }
        match pending {
            Some(number) => Err(VerifyErrorKind::Pending(number).into()),
            None => Ok(findings),
        }
    }

    /// Finds what there is about a certificate of `issuer`.
    fn find(&self, certificate: &Cert<'_>, issuer: &Issuer) -> Found {
        let der = certificate.der();
        let responders = Query::of_responders(&der, certificate.serial(), issuer);
        let queries = [responders, Query::of_lists(&der, issuer)].concat();
        if let Some(brought) = self.brought(certificate, issuer) {
            // A peer could keep an answer from the time before it was revoked, so what was fetched
            // precedes one that is good.
            let fetched = || queries.iter().find_map(|query| self.published.known(query, self.now));
            let precedes = brought.revoked_at.is_none().then(fetched).flatten();
            return Found::Document(
                precedes.unwrap_or_else(|| Arc::new(Document::Status(brought, Vec::new()))),
            );
        }
        let mut missing = Vec::new();
        for query in &queries {
            match self.published.ask(query, self.now) {
                Answer::Known(document) => return Found::Document(document),
                Answer::Pending(number) => return Found::Pending(number),
                Answer::Unavailable(why) => missing.push(format!("{:?}: {why}", query.url)),
            }
        }
        Found::Nothing(missing)
    }

    /// Returns the answer about a certificate of `issuer` that the peer brought along.
    fn brought(&self, certificate: &Cert<'_>, issuer: &Issuer) -> Option<Status> {
        let of_it = |answer: &Vec<u8>| Status::parse(answer, issuer, certificate.serial(), self.now).ok();
        self.answers.iter().take(MOST_ANSWERS).find_map(of_it)
    }
}

/// Returns true if a list is about all certificates of its issuer.
fn is_about_all(list: &CertRevocationList<'_>) -> bool {
    list.issuing_distribution_point().is_none()
}
