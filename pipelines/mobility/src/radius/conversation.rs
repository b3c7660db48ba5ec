//! EAP with a RADIUS server behind us: packets pass through, whatever their method (RFC 3579).

use super::{
    Code,
    question::{Question, Realm, Reply},
};
use crate::ike::eap::{
    Authenticator, Conversation, Step,
    packet::{Packet, kind},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{fmt, mem};

/// Most requests of one conversation.
const MOST_ROUNDS: u32 = 64;

/// Lets RADIUS servers judge peers.
#[derive(Clone, Debug)]
pub struct Radius(Arc<Realm>);

impl Radius {
    /// Asks the servers of this realm.
    pub fn new(realm: Realm) -> Self {
        Self(Arc::new(realm))
    }
}

impl Authenticator for Radius {
    fn begin(&self, _: &[u8]) -> Box<dyn Conversation> {
        let realm = self.0.clone();
        Box::new(PassThrough { realm, stage: Stage::Nothing, identity: Vec::new(), rounds: 0 })
    }
}

/// One conversation.
struct PassThrough {
    realm: Arc<Realm>,
    stage: Stage,
    /// What the peer calls itself; from the success on, what the server calls it.
    identity: Vec<u8>,
    rounds: u32,
}

enum Stage {
    Nothing,
    IdentityRequest,
    /// A server is being asked: the peer's packet with its identifier, and what is known of the server.
    Asking {
        id: u8,
        eap: Vec<u8>,
        link: Option<Link>,
    },
    /// The server's challenge is with the peer.
    Challenge(Link),
    Success,
    Over,
}

/// The server that knows of this conversation.
struct Link {
    server: usize,
    state: Option<Vec<u8>>,
}

impl PassThrough {
    /// Takes the peer's packet; `None` if it makes no sense.
    fn take(&mut self, packet: &[u8]) -> Option<Step> {
        let Some(Packet::Response(response)) = Packet::parse(packet) else { return None };
        let link = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::IdentityRequest if response.kind == kind::IDENTITY => {
                self.identity = response.data.to_vec();
                None
            }
            Stage::Challenge(link) => Some(link),
            _ => return None,
        };
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            return None;
        }
        self.stage = Stage::Asking { id: response.id, eap: packet.to_vec(), link };
        Some(Step::Ask)
    }

    /// Takes the server's answer to the peer's packet of this identifier; `None` if it makes no sense.
    fn judge(&mut self, id: u8, reply: Reply) -> Option<Step> {
        let said = reply.eap.as_deref().map(Packet::parse);
        match (reply.code, said) {
            (Code::Challenge, Some(Some(Packet::Request(_)))) => {
                self.stage = Stage::Challenge(Link { server: reply.server, state: reply.state });
                reply.eap.map(Step::Send)
            }
            (Code::Accept, None | Some(Some(Packet::Success(_)))) => {
                let key = reply.msk?;
                self.identity = reply.user_name.unwrap_or(mem::take(&mut self.identity));
                self.stage = Stage::Success;
                Some(Step::Success(Packet::Success(id).emit(), key))
            }
            _ => None,
        }
    }

    fn fail(&mut self, id: u8) -> Step {
        self.stage = Stage::Over;
        Step::Failure(Packet::Failure(id).emit())
    }
}

impl Conversation for PassThrough {
    fn handle(&mut self, packet: &[u8]) -> Step {
        if let Stage::Nothing = self.stage {
            self.stage = Stage::IdentityRequest;
            return Step::Send(Packet::identity_request(0).emit());
        }
        let id = packet.get(1).copied().unwrap_or_default();
        self.take(packet).unwrap_or_else(|| self.fail(id))
    }

    fn identity(&self) -> Option<&[u8]> {
        matches!(self.stage, Stage::Success).then_some(&self.identity)
    }

    fn question(&self) -> Option<Question> {
        let Stage::Asking { eap, link, .. } = &self.stage else { return None };
        Some(Question {
            realm: self.realm.clone(),
            server: link.as_ref().map(|link| link.server),
            user_name: self.identity.clone(),
            state: link.as_ref().and_then(|link| link.state.clone()),
            eap: eap.clone(),
        })
    }

    fn answered(&mut self, reply: Option<Reply>) -> Step {
        let id = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asking { id, .. } => id,
            _ => 0,
        };
        reply.and_then(|reply| self.judge(id, reply)).unwrap_or_else(|| self.fail(id))
    }
}

impl fmt::Debug for PassThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP by RADIUS, {} requests", self.rounds)
    }
}
