//! The authorities that the gateway trusts to certify peers.

use super::{
    certificate,
    facts::CertificateFacts,
    files::{self, CredentialError, CredentialProblem},
    refusal::{self, Sent},
    scheme,
};
use crate::primitives::Primitives;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};
use wayfarer_mobility::{
    crypto::{Crypto, PeerSignature, Verifier, VerifyError, VerifyErrorKind},
    identity::Identity,
};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId,
    KeyPurposeIdIter, KeyUsage, OwnedCertRevocationList, RequiredEkuNotFoundContext, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

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

/// Trusted authorities and their revocation lists.
pub struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
    /// The certificates of the anchors.
    trusted: Vec<CertificateDer<'static>>,
    hashes: Vec<u8>,
    crls: Vec<CertRevocationList<'static>>,
    policy: CrlPolicy,
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
        let mut authorities = Self::none(policy, clock);
        for file in certificates.iter().map(AsRef::as_ref) {
            for certificate in files::certificates(file)? {
                authorities.trust(&certificate).ok_or_else(|| CredentialProblem::BadCertificate.of(file))?;
            }
        }
        for file in crls.iter().map(AsRef::as_ref) {
            for crl in files::crls(file)? {
                let crl = OwnedCertRevocationList::from_der(&crl)
                    .map_err(|_| CredentialProblem::BadCrl.of(file))?;
                authorities.crls.push(crl.into());
            }
        }
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
        let mut authorities = Self::none(CrlPolicy::Relaxed, clock);
        for certificate in certificates {
            authorities.trust(certificate).ok_or(CredentialProblem::BadCertificate)?;
        }
        Ok(authorities)
    }

    fn none(policy: CrlPolicy, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let (anchors, trusted, hashes, crls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { anchors, trusted, hashes, crls, policy, allows_sha1: false, clock: Box::new(clock) }
    }

    /// Sets whether a peer that announces no hashes (RFC 7427) may sign with SHA-1.
    #[must_use]
    pub fn allow_sha1(self, allows_sha1: bool) -> Self {
        Self { allows_sha1, ..self }
    }

    fn trust(&mut self, certificate: &CertificateDer<'_>) -> Option<()> {
        let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?;
        let key_info = certificate::sequence(&anchor.subject_public_key_info)?;
        self.hashes.extend_from_slice(&Primitives.sha1(&[&key_info]));
        self.anchors.push(anchor.to_owned());
        self.trusted.push(certificate.clone().into_owned());
        Some(())
    }

    fn now(&self) -> UnixTime {
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH);
        UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO))
    }

    /// Verifies a peer's certificate, with the `others` as possible intermediates, and returns it
    /// parsed.
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
        let explain = |error: &Error| refusal::of_chain(error, Sent { own, others }, &self.crls);
        let parsed = EndEntityCert::try_from(own).map_err(|error| explain(&error))?;
        if self.is_trusted_peer(own) {
            return self.check_time(own).map(|()| parsed);
        }
        self.check_chain(&parsed, others).map_err(|error| explain(&error))?;
        Ok(parsed)
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

    /// Verifies that a chain of valid certificates leads from an authority to this one.
    fn check_chain(&self, own: &EndEntityCert<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| self.policy.apply(options));
        if revocation.is_none() && self.policy == CrlPolicy::Strict {
            return Err(Error::UnknownRevocationStatus);
        }
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let now = self.now();
        own.verify_for_usage(algorithms, &self.anchors, others, now, Purpose, revocation, None).map(drop)
    }
}

impl CrlPolicy {
    fn apply(self, options: RevocationOptionsBuilder<'_>) -> RevocationOptions<'_> {
        let (status, expiration) = match self {
            Self::Relaxed => (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore),
            Self::Strict => (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce),
        };
        options.with_status_policy(status).with_expiration_policy(expiration).build()
    }
}

impl Verifier for Authorities {
    fn authorities(&self) -> &[u8] {
        &self.hashes
    }

    fn scheme(&self, method: u8, data: &[u8]) -> Option<&'static str> {
        scheme::name(method, data)
    }

    fn verify(
        &self,
        identity: &Identity,
        certificates: &[Vec<u8>],
        signature: &PeerSignature,
    ) -> Result<(), VerifyError> {
        let chain: Vec<CertificateDer<'_>> = certificates.iter().map(|der| der[..].into()).collect();
        let (own, others) =
            chain.split_first().ok_or_else(|| VerifyErrorKind::Certificate.because("the peer sent none"))?;
        let parsed = self.vouch_for(own, others)?;
        if !certificate::identities(own).iter().any(|own| certificate::is_same(own, identity)) {
            return Err(refusal::misnamed(own, identity));
        }
        scheme::verify(&parsed, signature, self.allows_sha1)
    }

    fn names(&self, certificate: &[u8]) -> Vec<Identity> {
        certificate::identities(certificate)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authorities, {} revocation lists", self.anchors.len(), self.crls.len())
    }
}

/// The extended key usages that a peer's certificate may have. Besides IKE's own usage (RFC 4945
/// §5.1.3.12), those of TLS are accepted, because many certificates are issued for TLS.
struct Purpose;

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
