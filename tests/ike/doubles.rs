//! Users of EAP, and fake certificates.

use std::{
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use wayfarer::sim::ike::seeded::Seeded;
use wayfarer_mobility::{
    aaa::eap::{
        Authenticator,
        mschapv2::{Mschapv2Client, Mschapv2Server, NtHash},
    },
    crypto::{
        PeerCertificates, PeerSignature, SignError, SignatureHashes, Signer, Verifier, VerifyError,
        VerifyErrorKind,
    },
    identity::Identity,
};

/// Makes an EAP server for these users, whose passwords are their names.
pub(super) fn users(names: &[&str]) -> Arc<dyn Authenticator> {
    let users = names.iter().map(|name| (name.as_bytes().to_vec(), NtHash::of(name)));
    Arc::new(Mschapv2Server::new(Arc::new(Seeded::new(1)), b"gateway", users))
}

/// Makes an EAP client for this user, whose password is its name.
pub(super) fn user(name: &str) -> Arc<dyn Authenticator> {
    Arc::new(Mschapv2Client::new(Arc::new(Seeded::new(2)), name.as_bytes(), NtHash::of(name)))
}

/// A certificate that only consists of its owner's names, and an authority that trusts all of
/// these, or some.
#[derive(Debug, Default)]
pub(super) struct FakeCertificate {
    names: Vec<u8>,
    /// The hashes of the authorities that it asks for.
    authorities: Vec<u8>,
    /// How often these were asked for.
    asked: AtomicU64,
    /// What a responder says of it.
    ocsp: Vec<Vec<u8>>,
    /// How often that is still being fetched.
    waits: AtomicU64,
    wants_ocsp: bool,
    /// What the last peer brought along of responders.
    brought: Mutex<Vec<Vec<u8>>>,
    /// The name that certificates must have which it trusts; if empty, it trusts all.
    issuer: &'static str,
}

impl FakeCertificate {
    /// Makes a certificate with these names, which are separated by blanks.
    pub(super) fn of(names: &str) -> Self {
        Self { names: names.into(), ..Self::default() }
    }

    /// Makes an authority that is one of many, with these hashes.
    pub(super) fn among(authorities: Vec<u8>) -> Self {
        Self { authorities, ..Self::default() }
    }

    /// Returns how often its authorities were asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Adds what a responder says of it, and whether it wants to know what is said of the peer's.
    pub(super) fn stapling(self, ocsp: &[u8], wants_ocsp: bool) -> Self {
        Self { ocsp: vec![ocsp.to_vec()], waits: 2.into(), wants_ocsp, ..self }
    }

    /// Returns what the last peer brought along of responders.
    pub(super) fn brought(&self) -> Vec<Vec<u8>> {
        self.brought.lock().unwrap().clone()
    }

    /// Makes an authority that trusts only certificates with this name among theirs.
    pub(super) fn trusting(issuer: &'static str) -> Self {
        Self { issuer, ..Self::default() }
    }
}

impl Signer for FakeCertificate {
    fn certificates(&self) -> &[Vec<u8>] {
        slice::from_ref(&self.names)
    }

    fn ocsp(&self) -> Result<Vec<Vec<u8>>, u64> {
        match self.waits.load(Ordering::Relaxed) {
            0 => Ok(self.ocsp.clone()),
            number => {
                self.waits.store(number - 1, Ordering::Relaxed);
                Err(number)
            }
        }
    }

    fn sign(&self, octets: &[u8], _: SignatureHashes) -> Result<(u8, Vec<u8>), SignError> {
        Ok((14, octets.to_vec()))
    }
}

impl Verifier for FakeCertificate {
    fn authorities(&self) -> &[u8] {
        self.asked.fetch_add(1, Ordering::Relaxed);
        &self.authorities
    }

    fn wants_ocsp(&self) -> bool {
        self.wants_ocsp
    }

    fn may_trust(&self, certificates: &[Vec<u8>]) -> bool {
        let names = str::from_utf8(&certificates[0]).unwrap();
        self.issuer.is_empty() || names.split(' ').any(|name| name == self.issuer)
    }

    fn scheme(&self, _: u8, _: &[u8]) -> Option<&'static str> {
        Some("fake")
    }

    fn verify(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
    ) -> Result<(), VerifyError> {
        self.brought.lock().unwrap().clone_from(&certificates.ocsp);
        if !self.may_trust(&certificates.chain) {
            return Err(VerifyErrorKind::Issuer.into());
        }
        match signature.data == signature.octets && self.names(&certificates.chain[0]).contains(identity) {
            true => Ok(()),
            false => Err(VerifyErrorKind::Identity.into()),
        }
    }

    fn names(&self, certificate: &[u8]) -> Vec<Identity> {
        std::str::from_utf8(certificate)
            .unwrap()
            .split(' ')
            .map(|name| Identity::from_text(name).unwrap())
            .collect()
    }
}
