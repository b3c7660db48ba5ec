//! Looks up what authorities say of the certificates of a chain: in files, fetched, or brought along by
//! the peer.

use super::{
    crl_files::{FileList, NOT_PERMITTED, of_issuer},
    refusal,
    revocation::{Answer, Document, Holders, Issued, Issuer, LATE, Publications, Query, ocsp::Status},
};
use std::{sync::Arc, time::SystemTime};
use wayfarer_mobility::crypto::{VerifyError, VerifyErrorKind};
use webpki::{Cert, RevocationReason, VerifiedPath};

/// Most answers of responders that a peer may bring along. Others are not looked at.
const MOST_ANSWERS: usize = 8;

/// Where authorities may have said something.
pub(super) struct Known<'a> {
    pub(super) published: &'a Publications,
    /// Lists from files, the newest first.
    pub(super) files: &'a [FileList],
    /// Answers of responders that the peer brought along (RFC 4806), in DER.
    pub(super) answers: &'a [Vec<u8>],
    pub(super) now: SystemTime,
    /// True if lists in files that have expired do not count.
    pub(super) is_strict: bool,
    /// False if what is still being fetched cannot be had.
    pub(super) may_wait: bool,
}

/// What authorities say of the certificates of a chain.
#[derive(Default)]
pub(super) struct Findings {
    /// The name of the first certificate that neither an answer nor a list covers.
    pub(super) uncovered: Option<String>,
    /// What cannot be had or has expired, and why.
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
    /// [`VerifyErrorKind::Pending`] while something is fetched, and [`VerifyErrorKind::Revoked`] if
    /// something that was fetched or brought along says so.
    pub(super) fn look_up(&self, path: &VerifiedPath<'_>) -> Result<Findings, VerifyError> {
        let (mut findings, mut pending) = (Findings::default(), None);
        for (at, Issued { certificate, issuer, lists_permitted }) in
            Issued::along(path).into_iter().enumerate()
        {
            let holders = Holders::at(at);
            let own = of_issuer(self.files, &issuer);
            let mut is_covered =
                own.iter().any(|file| self.counts(file) && file.covers(certificate, holders));
            match self.find(certificate, &issuer, holders) {
                Found::Document(document) => {
                    if let Some((since, reason)) = revoked_at(&document, certificate) {
                        return Err(refusal::revoked(&refusal::name(&certificate.der()), since, reason));
                    }
                    match &*document {
                        Document::List(_) if !lists_permitted => {
                            findings.missing.push(NOT_PERMITTED.to_owned());
                        }
                        _ => is_covered = true,
                    }
                }
                Found::Pending(number) => (pending, is_covered) = (Some(number), true),
                Found::Nothing(why) => findings.missing.extend(why),
            }
            if !is_covered {
                findings.uncovered.get_or_insert_with(|| refusal::name(&certificate.der()));
                let expired = own.iter().find(|file| !self.counts(file));
                findings.missing.extend(expired.map(|file| {
                    format!("its issuer's list in a file expired on {}", refusal::date(file.next_update))
                }));
            }
        }
        match pending {
            Some(number) => Err(VerifyErrorKind::Pending(number).into()),
            None => Ok(findings),
        }
    }

    /// Returns true if a list from a file counts.
    fn counts(&self, file: &FileList) -> bool {
        !self.is_strict || self.now < file.next_update
    }

    /// Finds what there is about a certificate of `issuer`, which is one of `holders`: what the first
    /// address says that has anything about it.
    fn find(&self, certificate: &Cert<'_>, issuer: &Issuer, holders: Holders) -> Found {
        let der = certificate.der();
        let responders = Query::of_responders(&der, certificate.serial(), issuer);
        let queries = [responders, Query::of_lists(&der, issuer)].concat();
        let fetched: Vec<_> =
            queries.iter().filter_map(|query| self.published.last(query, holders)).collect();
        let is_revoked = |document: &Document| revoked_at(document, certificate).is_some();
        if let Some(brought) = self.brought(certificate, issuer) {
            // A peer could keep a good answer from the time before it was revoked, even until what says
            // so has expired.
            let contradicts = |document: &Arc<Document>| {
                let is_later = document.this_update() > brought.this_update();
                is_revoked(document) && (is_later || self.now < document.next_update())
            };
            if is_revoked(&brought) || !fetched.iter().any(contradicts) {
                return Found::Document(Arc::new(brought));
            }
        }
        // A revoked certificate does not become valid because nothing new can be had, or only something
        // older from another address.
        let last = fetched.iter().max_by_key(|document| document.this_update());
        let revoking = last.filter(|document| is_revoked(document));
        let mut missing = Vec::new();
        for query in &queries {
            match self.published.ask(query, holders, self.now) {
                Answer::Known(document) => {
                    let later = revoking.filter(|last| last.this_update() > document.this_update());
                    return Found::Document(later.cloned().unwrap_or(document));
                }
                Answer::Pending(number) if self.may_wait => return Found::Pending(number),
                Answer::Pending(_) => missing.push(format!("{:?}: {LATE}", query.url)),
                Answer::Unavailable(why) => missing.push(format!("{:?}: {why}", query.url)),
            }
        }
        revoking.cloned().map_or(Found::Nothing(missing), Found::Document)
    }

    /// Returns the answer about a certificate of `issuer` that the peer brought along.
    fn brought(&self, certificate: &Cert<'_>, issuer: &Issuer) -> Option<Document> {
        let of_it = |answer: &Vec<u8>| Status::parse(answer, issuer, certificate.serial(), self.now).ok();
        let status = self.answers.iter().take(MOST_ANSWERS).find_map(of_it)?;
        Some(Document::Status(status, Vec::new()))
    }
}

/// Returns when a certificate was revoked, and why if that is said, by a document about it; `None` if it
/// is good.
fn revoked_at(document: &Document, certificate: &Cert<'_>) -> Option<(SystemTime, Option<RevocationReason>)> {
    match document {
        Document::List(fetched) => {
            let entry = fetched.list.find_serial(certificate.serial()).ok()??;
            Some((refusal::seconds(entry.revocation_date), entry.reason_code))
        }
        Document::Status(status, _) => Some((status.revoked_at?, None)),
    }
}
