//! The authorities that the gateway trusts to certify peers.

use super::{
    certificate,
    crl_files::{self, CrlFiles, FileList},
    facts::CertificateFacts,
    files::{self, CredentialError, CredentialProblem},
    purpose::{self, Purpose},
    refusal::{self, Sent},
    revocation::{Issuer, Publications},
    scheme,
    status::{Findings, Known},
};
use crate::primitives::Primitives;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::{
    cell::RefCell,
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tracing::warn;
use wayfarer_mobility::{
    crypto::{Crypto, PeerCertificates, PeerSignature, Verifier, VerifyError, VerifyErrorKind},
    identity::Identity,
};
use webpki::{EndEntityCert, Error, VerifiedPath};

/// Most certificates that a peer may send in one message.
const MOST_CERTIFICATES: usize = 16;
/// Most bytes of all these certificates.
const MOST_BYTES: usize = 65536;

/// The use of certificate revocation lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// A certificate that no list covers is valid, and lists do not expire.
    #[default]
    Relaxed,
    /// Every certificate of a chain must be covered by a list that has not expired.
    Strict,
}

/// Whether the gateway fetches what authorities publish about revocation, from where certificates say
/// that it is: revocation lists, and the answers of responders (OCSP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revocation {
    /// It does not.
    #[default]
    Off,
    /// It does. A certificate of which nothing can be had is valid.
    IfAvailable,
    /// It does, and every certificate of a chain must be covered by what has not expired.
    Required,
}

/// Trusted authorities and their revocation lists.
pub struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
    /// The certificates of the anchors.
    trusted: Vec<CertificateDer<'static>>,
    /// The anchors as issuers of revocation lists.
    issuers: Vec<Issuer>,
    hashes: Vec<u8>,
    crls: CrlFiles,
    policy: CrlPolicy,
    /// What authorities publish; `None` if it is not fetched.
    published: Option<Publications>,
    /// True if a peer that announces no hashes may sign with SHA-1.
    allows_sha1: bool,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Authorities {
    /// Trusts every certificate in the PEM files `certificates`. The lists in the files `crls` (PEM
    /// or DER) revoke what those authorities issued. `clock` returns the time.
    ///
    /// # Errors
    /// If a file cannot be read or parsed: the file and the reason.
    pub fn load<P: AsRef<Path>>(
        certificates: &[P],
        crls: &[P],
        policy: CrlPolicy,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, CredentialError> {
        let crls = CrlFiles::load(crls.iter().map(|file| file.as_ref().to_owned()).collect())?;
        let mut authorities = Self::none(crls, policy, clock);
        for file in certificates.iter().map(AsRef::as_ref) {
            for certificate in files::certificates(file)? {
                authorities.trust(&certificate).ok_or_else(|| CredentialProblem::BadCertificate.of(file))?;
            }
        }
        crl_files::warn_of_strangers(&authorities.lists(), &authorities.issuers);
        Ok(authorities)
    }

    /// Trusts these certificates, without revocation lists.
    ///
    /// # Errors
    /// [`CredentialProblem::BadCertificate`], if one cannot be parsed.
    pub fn new(
        certificates: &[CertificateDer<'_>],
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, CredentialProblem> {
        let mut authorities = Self::none(CrlFiles::default(), CrlPolicy::Relaxed, clock);
        for certificate in certificates {
            authorities.trust(certificate).ok_or(CredentialProblem::BadCertificate)?;
        }
        Ok(authorities)
    }

    fn none(
        crls: CrlFiles,
        policy: CrlPolicy,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let (anchors, trusted, issuers, hashes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (published, allows_sha1, clock) = (None, false, Box::new(clock));
        Self { anchors, trusted, issuers, hashes, crls, policy, published, allows_sha1, clock }
    }

    /// Returns the trusted certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.trusted
    }

    /// Sets whether a peer that announces no hashes (RFC 7427) may sign with SHA-1.
    #[must_use]
    pub fn allow_sha1(self, allows_sha1: bool) -> Self {
        Self { allows_sha1, ..self }
    }

    /// Sets whether what authorities publish is fetched. All connections share what was.
    #[must_use]
    pub fn fetch(self, revocation: Revocation) -> Self {
        match revocation {
            Revocation::Off => Self { published: None, ..self },
            Revocation::IfAvailable => Self { published: Some(Publications::shared()), ..self },
            Revocation::Required => {
                Self { published: Some(Publications::shared()), policy: CrlPolicy::Strict, ..self }
            }
        }
    }

    fn trust(&mut self, certificate: &CertificateDer<'_>) -> Option<()> {
        let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?;
        let key_info = certificate::sequence(&anchor.subject_public_key_info)?;
        self.hashes.extend_from_slice(&Primitives.sha1(&[&key_info]));
        self.issuers.push(Issuer { name: anchor.subject.to_vec(), key: key_info });
        self.anchors.push(anchor.to_owned());
        self.trusted.push(certificate.clone().into_owned());
        Some(())
    }

    /// Returns the revocation lists from files.
    fn lists(&self) -> Arc<Vec<FileList>> {
        self.crls.lists(&self.issuers)
    }

    fn now(&self) -> UnixTime {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH);
        UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO))
    }

    /// Verifies a peer's certificate, with the `others` as possible intermediates, and returns it
    /// parsed. If lists are fetched, [`Self::check_status`] must follow.
    pub(super) fn vouch_for<'a>(
        &self,
        own: &'a CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<EndEntityCert<'a>, VerifyError> {
        let bytes = own.len() + others.iter().map(|der| der.len()).sum::<usize>();
        if others.len() >= MOST_CERTIFICATES || bytes > MOST_BYTES {
            let words = format!("the peer sent more than {MOST_CERTIFICATES} or {MOST_BYTES} bytes");
            return Err(VerifyErrorKind::Certificate.because(words));
        }
        let sent = Sent { own, others };
        let parsed = EndEntityCert::try_from(own).map_err(|error| refusal::of_chain(&error, sent))?;
        if self.is_trusted_peer(own) {
            return self.check_time(own).map(|()| parsed);
        }
        // With what is fetched, the files need not cover each certificate.
        let is_strict = self.policy == CrlPolicy::Strict && self.published.is_none();
        self.path(&parsed, sent, &self.lists(), is_strict)?;
        match purpose::may_sign(own) {
            true => Ok(parsed),
            false => Err(VerifyErrorKind::Certificate.because("its key usage does not permit to sign")),
        }
    }

    /// Checks that the peer is `identity` and made this signature. Without `may_wait`, what is still being
    /// fetched cannot be had.
    fn check(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
        may_wait: bool,
    ) -> Result<(), VerifyError> {
        let chain: Vec<CertificateDer<'_>> = certificates.chain.iter().map(|der| der[..].into()).collect();
        let (own, others) =
            chain.split_first().ok_or_else(|| VerifyErrorKind::Certificate.because("the peer sent none"))?;
        let parsed = self.vouch_for(own, others)?;
        if !certificate::identities(own).iter().any(|own| certificate::is_same(own, identity)) {
            return Err(refusal::misnamed(own, identity));
        }
        scheme::verify(&parsed, signature, self.allows_sha1)?;
        self.check_status(own, others, &certificates.ocsp, may_wait)
    }

    /// Checks that no certificate of the chain from an authority to `own` is revoked by what the
    /// authorities publish, or by what their responders say in `answers`, which the peer sent. Whoever
    /// calls this knows that the chain is valid, so that an authority has chosen where it publishes that.
    /// Without `may_wait`, what is still being fetched cannot be had.
    ///
    /// # Errors
    /// [`VerifyErrorKind::Revoked`], or [`VerifyErrorKind::Pending`] while something is fetched.
    pub(super) fn check_status(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        answers: &[Vec<u8>],
        may_wait: bool,
    ) -> Result<(), VerifyError> {
        let published = self.published.as_ref().filter(|_| !self.is_trusted_peer(own));
        let Some(published) = published else { return Ok(()) };
        let files = self.lists();
        let sent = Sent { own, others };
        let parsed = EndEntityCert::try_from(own).map_err(|error| refusal::of_chain(&error, sent))?;
        // The chain that passed: it has no certificate that a file revokes, even if the file has expired.
        let path = self.path(&parsed, sent, &files, false)?;
        let (now, is_strict) = ((self.clock)(), self.policy == CrlPolicy::Strict);
        let known = Known { published, files: &files, answers, now, is_strict, may_wait };
        let Findings { uncovered, missing } = known.look_up(&path)?;
        if let (CrlPolicy::Strict, Some(name)) = (self.policy, &uncovered) {
            let words = format!("nothing that is up to date says that {name} is not revoked");
            return Err(VerifyErrorKind::Revoked.because(match missing.is_empty() {
                true => words,
                false => format!("{words}: {}", missing.join(", ")),
            }));
        }
        if let Some(certificate) = uncovered {
            let why = missing.join(", ");
            warn!(name: "revocation_unknown", certificate, why, "a certificate was accepted although nothing says whether it is revoked");
        }
        Ok(())
    }

    /// Returns whether this is one of the trusted certificates, which needs no issuer: a peer's own.
    /// Tools that make such certificates often mark them as an authority's. With a strict policy, a
    /// revocation list has to speak for it all the same.
    fn is_trusted_peer(&self, own: &CertificateDer<'_>) -> bool {
        self.policy == CrlPolicy::Relaxed && self.trusted.iter().any(|trusted| trusted == own)
    }

    fn check_time(&self, own: &CertificateDer<'_>) -> Result<(), VerifyError> {
        let facts = CertificateFacts::of(own).ok_or(VerifyErrorKind::Certificate)?;
        let now = (self.clock)();
        if now > facts.not_after {
            return Err(refusal::expired(&refusal::name(own), facts.not_after));
        }
        if now < facts.not_before {
            return Err(refusal::not_yet_valid(&refusal::name(own), facts.not_before));
        }
        Ok(())
    }

    /// Returns the chain of valid certificates that leads from an authority to this one, none of which
    /// `files` revoke. If `is_strict`, `files` must cover each.
    fn path<'a>(
        &'a self,
        own: &'a EndEntityCert<'a>,
        sent: Sent<'a>,
        files: &[FileList],
        is_strict: bool,
    ) -> Result<VerifiedPath<'a>, VerifyError> {
        let (algorithms, revoked) = (webpki::ALL_VERIFICATION_ALGS, RefCell::new(None));
        // webpki itself would look only at the first list of an issuer's name.
        let check = |path: &VerifiedPath<'_>| {
            crl_files::check(files, &self.issuers, path, is_strict, (self.clock)()).map_err(|why| {
                revoked.replace(Some(why));
                Error::CertRevoked
            })
        };
        own.verify_for_usage(algorithms, &self.anchors, sent.others, self.now(), Purpose, None, Some(&check))
            .map_err(|error| revoked.take().unwrap_or_else(|| refusal::of_chain(&error, sent)))
    }
}

impl Verifier for Authorities {
    fn authorities(&self) -> &[u8] {
        &self.hashes
    }

    fn may_trust(&self, certificates: &[Vec<u8>]) -> bool {
        certificates.iter().take(MOST_CERTIFICATES).any(|der| {
            let der = CertificateDer::from(&der[..]);
            let is_issued = |parsed: &EndEntityCert<'_>| {
                self.anchors.iter().any(|anchor| anchor.subject.as_ref() == parsed.issuer())
            };
            self.trusted.contains(&der) || EndEntityCert::try_from(&der).is_ok_and(|own| is_issued(&own))
        })
    }

    fn scheme(&self, method: u8, data: &[u8]) -> Option<&'static str> {
        scheme::name(method, data)
    }

    fn verify(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
    ) -> Result<(), VerifyError> {
        self.check(identity, certificates, signature, true)
    }

    fn verify_now(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
    ) -> Result<(), VerifyError> {
        self.check(identity, certificates, signature, false)
    }

    fn wants_ocsp(&self) -> bool {
        self.published.is_some()
    }

    fn is_pending(&self, number: u64) -> bool {
        self.published.as_ref().is_some_and(|published| published.is_pending(number))
    }

    fn names(&self, certificate: &[u8]) -> Vec<Identity> {
        certificate::identities(certificate)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authorities, {} revocation lists", self.anchors.len(), self.lists().len())
    }
}
