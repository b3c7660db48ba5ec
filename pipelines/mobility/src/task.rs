//! Work that takes longer than a message may wait: operations with public keys, and EAP. Whoever
//! drives the endpoint runs tasks where it likes and brings back what came of them.

use crate::{
    aaa::eap::{Conversation, Step, packet},
    crypto::{Crypto, Distrust, Kex, KexSecret, Refused, Secret, SignatureHashes, Signer, Verifier},
    identity::Identity,
};
use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};

/// Number of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Work to be done.
#[derive(Debug)]
pub enum Task {
    /// Draw a key pair.
    KexBegin(Kex),
    /// Answer a key exchange.
    KexAnswer(Kex, Vec<u8>),
    /// Finish one that we began.
    KexFinish(Box<dyn KexSecret>, Vec<u8>),
    /// Sign these octets for a peer that knows these hashes.
    Sign(Arc<dyn Signer>, Vec<u8>, SignatureHashes),
    /// Check a peer's certificate and signature.
    Verify {
        /// Whom we trust.
        verifier: Arc<dyn Verifier>,
        /// Who it says it is.
        identity: Identity,
        /// Its certificate first.
        certificates: Vec<Vec<u8>>,
        /// AUTH method.
        method: u8,
        /// AUTH data.
        data: Vec<u8>,
        /// What it must have signed.
        octets: Vec<u8>,
    },
    /// Go on with an EAP conversation.
    Eap(Box<dyn Conversation>, Vec<u8>),
}

/// What came of a [`Task`], by its kind.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Task::KexBegin`]: the private part, and the KE payload's data.
    KexBegun(Result<(Box<dyn KexSecret>, Vec<u8>), Refused>),
    /// Of [`Task::KexAnswer`]: the KE payload's data, and the shared secret.
    KexAnswered(Result<(Vec<u8>, Secret), Refused>),
    /// Of [`Task::KexFinish`]: the shared secret.
    KexFinished(Result<Secret, Refused>),
    /// Of [`Task::Sign`]: AUTH method and data.
    Signed(Result<(u8, Vec<u8>), Refused>),
    /// Of [`Task::Verify`]: all that the peer is called by its certificate, what it says it is
    /// called first.
    Verified(Result<Vec<Identity>, Distrust>),
    /// Of [`Task::Eap`].
    Eap(Box<dyn Conversation>, Step),
}

impl Task {
    /// Does the work.
    pub fn run(self, crypto: &dyn Crypto) -> Outcome {
        match self {
            Self::KexBegin(kex) => Outcome::KexBegun(crypto.kex_begin(kex)),
            Self::KexAnswer(kex, data) => Outcome::KexAnswered(crypto.kex_answer(kex, &data)),
            Self::KexFinish(secret, data) => Outcome::KexFinished(secret.finish(&data)),
            Self::Sign(signer, octets, hashes) => Outcome::Signed(signer.sign(&octets, hashes)),
            Self::Verify { verifier, identity, certificates, method, data, octets } => {
                let verified = verifier.verify(&identity, &certificates, method, &data, &octets);
                Outcome::Verified(verified.map(|()| {
                    let names = certificates.first().map(|own| verifier.names(own)).unwrap_or_default();
                    let others = names.into_iter().filter(|name| !name.is_same(&identity)).collect();
                    [vec![identity], others].concat()
                }))
            }
            Self::Eap(mut conversation, packet) => {
                let step = conversation.handle(&packet);
                Outcome::Eap(conversation, step)
            }
        }
    }
    /// What comes of it where it cannot be done: a refusal.
    pub fn refused(&self) -> Outcome {
        match self {
            Self::KexBegin(_) => Outcome::KexBegun(Err(Refused)),
            Self::KexAnswer(..) => Outcome::KexAnswered(Err(Refused)),
            Self::KexFinish(..) => Outcome::KexFinished(Err(Refused)),
            Self::Sign(..) => Outcome::Signed(Err(Refused)),
            Self::Verify { .. } => Outcome::Verified(Err(Distrust::Certificate)),
            Self::Eap(_, packet) => Outcome::Eap(Box::new(Broken), Step::Failure(packet::failure(packet))),
        }
    }
}

/// Takes the place of a conversation that cannot go on.
#[derive(Debug)]
struct Broken;

impl Conversation for Broken {
    fn handle(&mut self, packet: &[u8]) -> Step {
        Step::Failure(packet::failure(packet))
    }

    fn identity(&self) -> Option<&[u8]> {
        None
    }
}
