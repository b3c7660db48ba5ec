//! Work that takes longer than a message may wait: public-key operations and EAP. The driver of the
//! endpoint runs tasks on any thread and returns their outcomes.

use crate::{
    aaa::eap::{Conversation, Step, packet},
    crypto::{
        Crypto, Kex, KexSecret, PeerCertificates, PeerSignature, Refused, Secret, SignError, SignatureHashes,
        Signer, Verifier, VerifyError, VerifyErrorKind,
    },
    identity::Identity,
};
use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};

/// Number of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Work to be done outside of the state machine.
#[derive(Debug)]
pub enum Task {
    /// Generate a key pair.
    KexBegin(Kex),
    /// Answer a key exchange: the method and the initiator's KE data.
    KexAnswer(Kex, Vec<u8>),
    /// Finish a key exchange that we began.
    KexFinish(Box<dyn KexSecret>, Vec<u8>),
    /// Sign for a peer.
    Sign {
        /// Our key.
        signer: Arc<dyn Signer>,
        /// What is signed.
        octets: Vec<u8>,
        /// The hashes that the peer supports.
        hashes: SignatureHashes,
        /// True if what responders say of our certificates must come first.
        wants_ocsp: bool,
    },
    /// Check a peer's certificate and signature.
    Verify {
        /// The authorities that we trust.
        verifier: Arc<dyn Verifier>,
        /// The identity that the peer claims.
        identity: Identity,
        /// What the peer sent about its key.
        certificates: PeerCertificates,
        /// The peer's signature.
        signature: PeerSignature,
        /// False if what has not come yet cannot be had.
        may_wait: bool,
    },
    /// Continue an EAP conversation with this packet.
    Eap(Box<dyn Conversation>, Vec<u8>),
}

/// The result of a [`Task`] of the same kind.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Task::KexBegin`]: the private part and the KE payload's data.
    KexBegun(Result<(Box<dyn KexSecret>, Vec<u8>), Refused>),
    /// Of [`Task::KexAnswer`]: the KE payload's data and the shared secret.
    KexAnswered(Result<(Vec<u8>, Secret), Refused>),
    /// Of [`Task::KexFinish`]: the shared secret.
    KexFinished(Result<Secret, Refused>),
    /// Of [`Task::Sign`]: method and data of the AUTH payload.
    Signed(Result<(u8, Vec<u8>), SignError>),
    /// Of [`Task::Verify`]: all identities in the peer's certificate, the claimed one first.
    Verified(Result<Vec<Identity>, VerifyError>),
    /// Of [`Task::Eap`]: the conversation and the step that follows.
    Eap(Box<dyn Conversation>, Step),
    /// Of [`Task::Sign`], [`Task::Verify`] or [`Task::Eap`]: an authority's word must come first, which
    /// has this number. The driver of tasks runs this one again once [`Task::is_pending`] is false, or
    /// [without waiting](Task::without_waiting) after a while. No endpoint sees it.
    Postponed(Task, u64),
    /// Of [`Task::Eap`]: a RADIUS server is being asked. The task's real outcome follows.
    Asking,
}

impl Task {
    /// Does the work and returns its outcome.
    pub fn run(self, crypto: &dyn Crypto) -> Outcome {
        match self {
            Self::KexBegin(kex) => Outcome::KexBegun(crypto.kex_begin(kex)),
            Self::KexAnswer(kex, data) => Outcome::KexAnswered(crypto.kex_answer(kex, &data)),
            Self::KexFinish(secret, data) => Outcome::KexFinished(secret.finish(&data)),
            Self::Sign { signer, octets, hashes, wants_ocsp } => {
                if wants_ocsp && let Err(number) = signer.ocsp() {
                    let again = Self::Sign { signer, octets, hashes, wants_ocsp };
                    return Outcome::Postponed(again, number);
                }
                Outcome::Signed(signer.sign(&octets, hashes))
            }
            Self::Verify { verifier, identity, certificates, signature, may_wait } => {
                let verified = match may_wait {
                    true => verifier.verify(&identity, &certificates, &signature),
                    false => verifier.verify_now(&identity, &certificates, &signature),
                };
                if may_wait && let Err(VerifyError { kind: VerifyErrorKind::Pending(number), .. }) = verified
                {
                    let again = Self::Verify { verifier, identity, certificates, signature, may_wait };
                    return Outcome::Postponed(again, number);
                }
                Outcome::Verified(verified.map(|()| {
                    let names = certificates.chain.first().map(|own| verifier.names(own)).unwrap_or_default();
                    let others = names.into_iter().filter(|name| !name.is_same(&identity)).collect();
                    [vec![identity], others].concat()
                }))
            }
            Self::Eap(mut conversation, packet) => match conversation.handle(&packet) {
                Step::Wait(number) => Outcome::Postponed(Self::Eap(conversation, packet), number),
                step => Outcome::Eap(conversation, step),
            },
        }
    }

    /// Returns true while what has this number has to come before a postponed task can end.
    pub fn is_pending(&self, number: u64) -> bool {
        match self {
            Self::Sign { signer, .. } => signer.is_pending(number),
            Self::Verify { verifier, .. } => verifier.is_pending(number),
            Self::Eap(conversation, _) => conversation.is_pending(number),
            _ => false,
        }
    }

    /// Returns the peer's certificate, about which a postponed task waits for an authority's word; `None`
    /// if it waits for one about ours.
    pub fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Verify { certificates, .. } => certificates.chain.first().map(|own| &own[..]),
            Self::Eap(conversation, _) => conversation.certificate(),
            _ => None,
        }
    }

    /// Returns the task with what has not come yet taken as if it could not be had, so that it is not
    /// postponed again.
    #[must_use]
    pub fn without_waiting(self) -> Self {
        match self {
            Self::Sign { signer, octets, hashes, .. } => {
                Self::Sign { signer, octets, hashes, wants_ocsp: false }
            }
            Self::Verify { verifier, identity, certificates, signature, .. } => {
                Self::Verify { verifier, identity, certificates, signature, may_wait: false }
            }
            Self::Eap(mut conversation, packet) => {
                conversation.stop_waiting();
                Self::Eap(conversation, packet)
            }
            other => other,
        }
    }

    /// Returns the outcome to report if the task cannot be run: a refusal. `why` is what to say if a
    /// certificate would have been checked.
    pub fn refused(&self, why: Option<VerifyError>) -> Outcome {
        match self {
            Self::KexBegin(_) => Outcome::KexBegun(Err(Refused)),
            Self::KexAnswer(..) => Outcome::KexAnswered(Err(Refused)),
            Self::KexFinish(..) => Outcome::KexFinished(Err(Refused)),
            Self::Sign { .. } => Outcome::Signed(Err(SignError::Failed)),
            Self::Verify { .. } => {
                Outcome::Verified(Err(why.unwrap_or_else(|| VerifyErrorKind::Certificate.into())))
            }
            Self::Eap(_, packet) => {
                Outcome::Eap(Box::new(Broken { why }), Step::Failure(packet::failure(packet)))
            }
        }
    }
}

/// Replaces a conversation that cannot continue.
#[derive(Debug)]
struct Broken {
    why: Option<VerifyError>,
}

impl Conversation for Broken {
    fn handle(&mut self, packet: &[u8]) -> Step {
        Step::Failure(packet::failure(packet))
    }

    fn identity(&self) -> Option<&[u8]> {
        None
    }

    fn refusal(&self) -> Option<VerifyError> {
        self.why.clone()
    }
}
