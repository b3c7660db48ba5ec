//! The server's side.

use super::{
    chap::{NtHash, Proofs, without_domain},
    message::{Message, proof_text},
};
use crate::{
    aaa::{
        eap::{
            Authenticator, Conversation, Method, Step,
            packet::{self, Packet, kind},
        },
        origin::Origin,
    },
    crypto::{Random, Secret},
};
use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::{fmt, mem};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// ERROR_AUTHENTICATION_FAILURE without permission to retry (RFC 2759 §6). So the challenge for a
/// retry is never used.
const REFUSAL: &[u8] = b"E=691 R=0 C=00000000000000000000000000000000 V=3 M=Authentication failed";

type Users = BTreeMap<Vec<u8>, NtHash>;

/// Users and their passwords.
#[derive(Clone)]
pub struct Mschapv2Server {
    random: Arc<dyn Random>,
    name: Vec<u8>,
    users: Arc<Users>,
}

impl Mschapv2Server {
    /// Creates a server that knows `users` by name. `name` is the server's own name, which clients
    /// may show.
    pub fn new(
        random: Arc<dyn Random>,
        name: &[u8],
        users: impl IntoIterator<Item = (Vec<u8>, NtHash)>,
    ) -> Self {
        Self { random, name: name.into(), users: Arc::new(users.into_iter().collect()) }
    }
}

impl fmt::Debug for Mschapv2Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mschapv2Server of {} users", self.users.len())
    }
}

impl Authenticator for Mschapv2Server {
    fn begin(&self, _: Origin) -> Box<dyn Conversation> {
        let mut challenge = [0; 16];
        self.random.fill(&mut challenge);
        let mut decoy = Zeroizing::new([0; 16]);
        self.random.fill(&mut decoy[..]);
        let (name, users) = (self.name.clone(), self.users.clone());
        Box::new(Server::new(name, users, challenge, NtHash::from_random(decoy)))
    }
}

/// One conversation. Each packet leads to another stage or to the end, so it cannot go on forever.
pub(super) struct Server {
    name: Vec<u8>,
    users: Arc<Users>,
    challenge: [u8; 16],
    /// Takes the place of an unknown user's password, so that an unknown user takes as long as a
    /// wrong password.
    decoy: NtHash,
    id: u8,
    stage: Stage,
    identity: Option<Vec<u8>>,
}

/// The last packet that was sent.
enum Stage {
    Nothing,
    IdentityRequest,
    Challenge,
    /// Our proof; the key, and the user's name.
    Success(Secret, Vec<u8>),
    /// A refusal, or the end.
    Over,
}

impl Server {
    pub(super) fn new(name: Vec<u8>, users: Arc<Users>, challenge: [u8; 16], decoy: NtHash) -> Self {
        Self { name, users, challenge, decoy, id: 0, stage: Stage::Nothing, identity: None }
    }

    /// Returns the next request, and remembers its stage.
    fn request(&mut self, stage: Stage, message: Message<'_>) -> Step {
        self.stage = stage;
        self.id = self.id.wrapping_add(1);
        let message = packet::Message { id: self.id, kind: kind::MSCHAPV2, data: &message.emit() };
        Step::Send(Packet::Request(message).emit())
    }

    /// Checks the client's proof and returns the request that tells it the result.
    fn check_proof(&mut self, client: &[u8; 16], proof: &[u8; 24], name: &[u8]) -> Step {
        let short = without_domain(name);
        let known = self.users.get_key_value(name).or_else(|| self.users.get_key_value(short));
        let password = known.map_or(&self.decoy, |(_, password)| password);
        let proofs = Proofs::new(&self.challenge, client, short, password);
        let is_right = bool::from(proofs.client.ct_eq(proof));
        let id = self.id;
        match known {
            Some((user, _)) if is_right => {
                let stage = Stage::Success(proofs.msk, user.clone());
                self.request(stage, Message::Success { id, text: &proof_text(&proofs.server) })
            }
            _ => self.request(Stage::Over, Message::Failure { id, text: REFUSAL }),
        }
    }
}

impl Conversation for Server {
    fn handle(&mut self, packet: &[u8]) -> Step {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        if let Stage::Nothing = stage {
            self.stage = Stage::IdentityRequest;
            return Step::Send(Packet::identity_request(self.id).emit());
        }
        let failure = Step::Failure(Packet::Failure(self.id).emit());
        let response = match Packet::parse(packet) {
            Some(Packet::Response(response)) if response.id == self.id => response,
            _ => return failure,
        };
        let message = || match response.kind {
            kind::MSCHAPV2 => Message::parse(response.data),
            _ => None,
        };
        match stage {
            Stage::IdentityRequest if response.kind == kind::IDENTITY => {
                let (challenge, name) = (self.challenge, self.name.clone());
                let id = self.id.wrapping_add(1);
                self.request(Stage::Challenge, Message::Challenge { id, challenge, name: &name })
            }
            Stage::Challenge => match message() {
                Some(Message::Response { challenge, proof, name, .. }) => {
                    self.check_proof(&challenge, &proof, name)
                }
                _ => failure,
            },
            Stage::Success(msk, user) if message() == Some(Message::SuccessResponse) => {
                self.identity = Some(user);
                Step::Success(Packet::Success(self.id).emit(), Some(msk))
            }
            _ => failure,
        }
    }

    fn method(&self) -> Method {
        Method::own(kind::MSCHAPV2)
    }

    fn identity(&self) -> Option<&[u8]> {
        self.identity.as_deref()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP-MSCHAPv2 server at request {}", self.id)
    }
}
