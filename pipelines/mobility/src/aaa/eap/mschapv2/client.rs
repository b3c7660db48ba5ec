//! The client's side.

use super::{
    chap::{NtHash, Proofs, without_domain},
    message::{Message, proof_text},
};
use crate::{
    aaa::{
        eap::{
            Authenticator, Conversation, Step,
            packet::{self, Packet, kind},
        },
        origin::Origin,
    },
    crypto::{Random, Secret},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{fmt, mem};
use subtle::ConstantTimeEq;

/// Most requests that are answered in a conversation, which needs four.
const MAX_REQUESTS: u32 = 16;

/// A user and their password.
#[derive(Clone)]
pub struct Mschapv2Client {
    random: Arc<dyn Random>,
    user: Vec<u8>,
    password: NtHash,
}

impl Mschapv2Client {
    /// Creates a client. `user` may begin with a Windows domain: `DOMAIN\user`.
    pub fn new(random: Arc<dyn Random>, user: &[u8], password: NtHash) -> Self {
        Self { random, user: user.into(), password }
    }
}

impl fmt::Debug for Mschapv2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mschapv2Client {}", self.user.escape_ascii())
    }
}

impl Authenticator for Mschapv2Client {
    fn begin(&self, _: Origin) -> Box<dyn Conversation> {
        let mut challenge = [0; 16];
        self.random.fill(&mut challenge);
        Box::new(Client::new(self.user.clone(), self.password.clone(), challenge))
    }
}

/// One conversation.
pub(super) struct Client {
    user: Vec<u8>,
    password: NtHash,
    challenge: [u8; 16],
    requests: u32,
    stage: Stage,
}

enum Stage {
    /// The server has not sent its challenge yet.
    Waiting,
    /// We have sent our proof; these are the proof to expect from the server, and the key.
    Proved([u8; 20], Secret),
    /// The server has proved that it knows the password too.
    Trusting(Secret),
    /// The server refused us, or its proof was wrong.
    Over,
}

impl Client {
    pub(super) fn new(user: Vec<u8>, password: NtHash, challenge: [u8; 16]) -> Self {
        Self { user, password, challenge, requests: 0, stage: Stage::Waiting }
    }

    /// Returns the response to a request, or `None` if there is none.
    fn answer(&mut self, request: &packet::Message<'_>) -> Option<Vec<u8>> {
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return None;
        }
        let (kind, data) = match request.kind {
            kind::IDENTITY => (kind::IDENTITY, self.user.clone()),
            kind::NOTIFICATION => (kind::NOTIFICATION, Vec::new()),
            kind::MSCHAPV2 => (kind::MSCHAPV2, self.prove(Message::parse(request.data)?)?),
            _ => (kind::NAK, [kind::MSCHAPV2].into()),
        };
        Some(Packet::Response(packet::Message { id: request.id, kind, data: &data }).emit())
    }

    fn prove(&mut self, message: Message<'_>) -> Option<Vec<u8>> {
        let answer = match (mem::replace(&mut self.stage, Stage::Over), message) {
            (Stage::Waiting, Message::Challenge { id, challenge, .. }) => {
                let name = without_domain(&self.user);
                let proofs = Proofs::new(&challenge, &self.challenge, name, &self.password);
                self.stage = Stage::Proved(proofs.server, proofs.msk);
                let (challenge, proof) = (self.challenge, proofs.client);
                Message::Response { id, challenge, proof, name: &self.user }.emit()
            }
            (Stage::Proved(proof, msk), Message::Success { text, .. }) => {
                let expected = proof_text(&proof);
                let theirs = text.get(..expected.len())?.to_ascii_uppercase();
                if !bool::from(theirs.ct_eq(&expected)) {
                    return None;
                }
                self.stage = Stage::Trusting(msk);
                Message::SuccessResponse.emit()
            }
            (Stage::Proved(..), Message::Failure { .. }) => Message::FailureResponse.emit(),
            _ => return None,
        };
        Some(answer)
    }
}

impl Conversation for Client {
    fn handle(&mut self, packet: &[u8]) -> Step {
        let failure = Step::Failure(Vec::new());
        match Packet::parse(packet) {
            Some(Packet::Request(request)) => self.answer(&request).map_or(failure, Step::Send),
            Some(Packet::Success(_)) => match mem::replace(&mut self.stage, Stage::Over) {
                Stage::Trusting(msk) => Step::Success(Vec::new(), Some(msk)),
                _ => failure,
            },
            _ => failure,
        }
    }

    /// Returns `None`: the server has proved that it knows the password, but not its identity.
    fn identity(&self) -> Option<&[u8]> {
        None
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP-MSCHAPv2 client {}", self.user.escape_ascii())
    }
}
