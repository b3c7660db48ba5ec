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
        Box::new(PassThrough {
            realm,
            stage: Stage::Nothing,
            claimed: Vec::new(),
            name: None,
            method: 0,
            rounds: 0,
        })
    }
}

/// One conversation.
struct PassThrough {
    realm: Arc<Realm>,
    stage: Stage,
    /// What the peer calls itself.
    claimed: Vec<u8>,
    /// Whom the server has accepted.
    name: Option<Vec<u8>>,
    /// Type of the server's last request.
    method: u8,
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
                self.claimed = response.data.to_vec();
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
            (Code::Challenge, Some(Some(Packet::Request(request)))) => {
                self.method = request.kind;
                self.stage = Stage::Challenge(Link { server: reply.server, state: reply.state });
                reply.eap.map(Step::Send)
            }
            (Code::Accept, None | Some(Some(Packet::Success(_)))) => {
                let key = reply.msk?;
                self.name = self.accepted(reply.server, reply.user_name);
                self.stage = Stage::Success;
                Some(Step::Success(Packet::Success(id).emit(), key))
            }
            _ => None,
        }
    }

    /// Returns whom the server has accepted; `None` if only the peer itself has said so. A server that knows of no other name
    /// repeats the one that the peer began with, all or a part of it (RFC 3579 §3). Inside a tunnel, or by a certificate, the
    /// peer may have proved to be somebody else; by EAP-MSCHAPv2 it has proved to be this one.
    fn accepted(&self, server: usize, said: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let is_trusted = self.realm.servers.get(server).is_some_and(|server| server.trust_identity);
        let said = said.filter(|name| !name.is_empty());
        let is_own_word =
            |name: &[u8]| self.claimed.windows(name.len()).any(|w| w.eq_ignore_ascii_case(name));
        match said {
            Some(name) if is_trusted || self.method == kind::MSCHAPV2 || !is_own_word(&name) => Some(name),
            None if is_trusted => Some(self.claimed.clone()),
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
        self.name.as_deref()
    }

    fn question(&self) -> Option<Question> {
        let Stage::Asking { eap, link, .. } = &self.stage else { return None };
        Some(Question {
            realm: self.realm.clone(),
            server: link.as_ref().map(|link| link.server),
            user_name: self.claimed.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ike::{crypto::Secret, eap::packet::Message},
        radius::question::Server,
    };
    use alloc::vec;

    const TTLS: u8 = 21;

    /// Whom a server accepts that begins this method for who calls itself bob@corp, and says this at the end.
    fn accepted(trust_identity: bool, method: u8, said: Option<&[u8]>) -> Option<Vec<u8>> {
        let server = Server::new(([10, 0, 0, 5], 1812).into(), Secret::new(b"secret".to_vec()));
        let radius = Radius::new(Realm::new(vec![Server { trust_identity, ..server }], "gateway"));
        let mut conversation = radius.begin(b"carol");
        conversation.handle(&[]);
        let response = |kind, data| Packet::Response(Message { id: 1, kind, data }).emit();
        let request = Packet::Request(Message { id: 1, kind: method, data: &[] }).emit();
        let reply = |code, eap, user_name: Option<&[u8]>| Reply {
            server: 0,
            code,
            eap,
            state: None,
            user_name: user_name.map(<[u8]>::to_vec),
            msk: Some(Some(Secret::new(vec![7; 64]))),
        };
        assert_eq!(conversation.handle(&response(kind::IDENTITY, b"bob@corp")), Step::Ask);
        assert_eq!(conversation.question().unwrap().user_name, b"bob@corp");
        let challenge = reply(Code::Challenge, Some(request.clone()), Some(b"alice"));
        assert_eq!(conversation.answered(Some(challenge)), Step::Send(request));
        assert_eq!(conversation.identity(), None, "only an acceptance names anybody");
        assert_eq!(conversation.handle(&response(method, b"proof")), Step::Ask);
        let step = conversation.answered(Some(reply(Code::Accept, None, said)));
        assert!(matches!(step, Step::Success(_, Some(_))), "{step:?}");
        conversation.identity().map(<[u8]>::to_vec)
    }

    #[test]
    fn a_name_that_only_the_peer_said_is_nobodys() {
        let name = |name: &[u8]| Some(name.to_vec());
        for method in [kind::TLS, TTLS] {
            assert_eq!(accepted(false, method, Some(b"alice")), name(b"alice"), "the server's own word");
            for echo in [&b"bob@corp"[..], b"Bob@CORP", b"bob", b""] {
                assert_eq!(accepted(false, method, Some(echo)), None, "{echo:?}");
            }
            assert_eq!(accepted(true, method, Some(b"bob")), name(b"bob"));
        }
        // By a password of this name.
        assert_eq!(accepted(false, kind::MSCHAPV2, Some(b"bob@corp")), name(b"bob@corp"));
        assert_eq!(accepted(false, kind::MSCHAPV2, None), None);
        assert_eq!(accepted(true, kind::MSCHAPV2, None), name(b"bob@corp"));
    }
}
