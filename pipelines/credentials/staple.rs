//! What responders say of our own certificates, for peers that ask for it (RFC 4806).

use super::{
    files::CredentialProblem,
    refusal,
    revocation::{Answer, Document, Holders, Issuer, Publications, Query, is_signed_by},
};
use rustls_pki_types::CertificateDer;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};
use tracing::warn;
use webpki::EndEntityCert;

/// Most bytes of answers in one message.
const MOST_BYTES: usize = 8192;

/// Our certificates, as far as their responders are known.
#[derive(Debug)]
pub(super) struct Staple {
    published: Publications,
    /// What to ask about each certificate, the best first.
    queries: Vec<Vec<Query>>,
    has_complained: AtomicBool,
}

impl Staple {
    /// Takes our certificate and those that lead from it towards an authority. `others` may have issued
    /// them too.
    ///
    /// # Errors
    /// [`CredentialProblem::NoIssuer`] or [`CredentialProblem::NoResponder`] of our own certificate.
    pub(super) fn new(chain: &[Vec<u8>], others: &[CertificateDer<'_>]) -> Result<Self, CredentialProblem> {
        let issuers: Vec<&[u8]> =
            chain.iter().map(|der| &der[..]).chain(others.iter().map(|der| &**der)).collect();
        let all: Vec<_> = chain.iter().map(|der| queries(der, &issuers)).collect();
        if let Some(Err(problem)) = all.first() {
            return Err(*problem);
        }
        let queries = all.into_iter().flatten().collect();
        Ok(Self { published: Publications::shared(), queries, has_complained: AtomicBool::new(false) })
    }

    /// Returns the answers that can be had.
    ///
    /// # Errors
    /// Returns the number under which one is being fetched.
    pub(super) fn answers(&self) -> Result<Vec<Vec<u8>>, u64> {
        let now = SystemTime::now();
        let mut room = MOST_BYTES;
        let (mut answers, mut pending) = (Vec::new(), None);
        for query in &self.queries {
            let known = query.iter().map(|query| self.published.ask(query, Holders::Peers, now));
            let first = known.into_iter().find(|answer| !matches!(answer, Answer::Unavailable(_)));
            match first {
                Some(Answer::Pending(number)) => pending = Some(number),
                Some(Answer::Known(document)) => {
                    let Document::Status(status, der) = &*document else { continue };
                    if let Some(since) = status.revoked_at {
                        self.complain(since);
                    }
                    if der.len() <= room {
                        room -= der.len();
                        answers.push(der.clone());
                    }
                }
                Some(Answer::Unavailable(_)) | None => {}
            }
        }
        pending.map_or(Ok(answers), Err)
    }

    /// Returns true while what has this number is being fetched.
    pub(super) fn is_pending(&self, number: u64) -> bool {
        self.published.is_pending(number)
    }

    /// Says once that our own certificate, or one of its chain, is revoked.
    fn complain(&self, since: SystemTime) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            let since = refusal::date(since);
            warn!(name: "own_certificate_revoked", since, "our own certificate or its issuer's is revoked, so peers refuse us");
        }
    }
}

/// Returns what to ask about a certificate that one of `issuers` has issued.
fn queries(der: &[u8], issuers: &[&[u8]]) -> Result<Vec<Query>, CredentialProblem> {
    let of = |der: &[u8]| {
        let der = CertificateDer::from(der);
        let certificate = EndEntityCert::try_from(&der).ok()?;
        let issuer = Issuer {
            name: certificate.subject().to_vec(),
            key: certificate.subject_public_key_info().to_vec(),
        };
        Some((issuer, certificate.issuer().to_vec(), certificate.serial().to_vec()))
    };
    let (_, issued_by, serial) = of(der).ok_or(CredentialProblem::BadCertificate)?;
    let known = issuers.iter().filter_map(|der| of(der)).map(|(issuer, ..)| issuer);
    let mut known = known.filter(|issuer| issuer.name == issued_by && is_signed_by(der, issuer));
    let issuer = known.next().ok_or(CredentialProblem::NoIssuer)?;
    let queries = Query::of_responders(der, &serial, &issuer);
    if queries.is_empty() { Err(CredentialProblem::NoResponder) } else { Ok(queries) }
}
