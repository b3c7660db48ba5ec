//! What responders say of our own certificates, for peers that ask for it (RFC 4806).

use super::{
    files::CredentialProblem,
    revocation::{Answer, Document, Issuer, Publications, Query, is_signed_by},
};
use rustls_pki_types::CertificateDer;
use std::time::SystemTime;
use webpki::EndEntityCert;

/// Most bytes of answers in one message.
const MOST_BYTES: usize = 8192;

/// Our certificates, as far as their responders are known.
#[derive(Debug)]
pub(super) struct Staple {
    published: Publications,
    /// What to ask about each certificate, the best first.
    queries: Vec<Vec<Query>>,
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
        Ok(Self { published: Publications::shared(), queries: all.into_iter().flatten().collect() })
    }

    /// Returns the answers that have come, and has the others fetched.
    pub(super) fn answers(&self) -> Vec<Vec<u8>> {
        let now = SystemTime::now();
        let mut room = MOST_BYTES;
        let mut answers = Vec::new();
        for queries in &self.queries {
            let known = queries.iter().map(|query| self.published.ask(query, now));
            let first = known.into_iter().find(|answer| !matches!(answer, Answer::Unavailable(_)));
            if let Some(Answer::Known(document)) = first
                && let Document::Status(_, der) = &*document
                && der.len() <= room
            {
                room -= der.len();
                answers.push(der.clone());
            }
        }
        answers
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
