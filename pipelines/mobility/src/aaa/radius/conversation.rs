//! EAP with a RADIUS server behind us: packets pass through, whatever their method (RFC 3579).

use super::{
    packet::Code,
    question::{Question, Realm, Reply},
};
use crate::aaa::eap::{
    Authenticator, Conversation, Step,
    packet::{Packet, kind},
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
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
    /// A server is being asked: the peer's packet with its identifier, and what is known of the
    /// server.
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
        let link = match (mem::replace(&mut self.stage, Stage::Over), response.kind) {
            (Stage::IdentityRequest, kind::IDENTITY) => {
                self.claimed = response.data.to_vec();
                None
            }
            // If the server repeated a name that came later, it would seem to be its own word.
            (Stage::Challenge(_), kind::IDENTITY) if response.data != self.claimed => return None,
            (Stage::Challenge(link), _) => Some(link),
            _ => return None,
        };
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            return None;
        }
        // Without padding (RFC 3748 §4.1), which a server might take for a part of the name.
        self.stage = Stage::Asking { id: response.id, eap: Packet::Response(response).emit(), link };
        Some(Step::Ask)
    }

    /// Takes the server's answer to the peer's packet of this identifier; `None` if it makes no
    /// sense.
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

    /// Returns whom the server has accepted; `None` if only the peer itself has said so. A server
    /// that knows of no other name repeats the one that the peer began with (RFC 3579 §3), or makes
    /// one of its parts. So a name is the server's own word only if its user is nowhere in what the
    /// peer said. Its realm may be: that is how a peer gets to its server.
    fn accepted(&self, server: usize, said: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let is_trusted = self.realm.servers.get(server).is_some_and(|server| server.trust_identity);
        let Some(name) = said.filter(|name| !name.is_empty()) else {
            return is_trusted.then(|| self.claimed.clone());
        };
        let [text, claimed] = [&name, &self.claimed].map(|name| String::from_utf8_lossy(name).to_lowercase());
        let user = user_of(&text);
        let is_own_word = !claimed.contains(user);
        // A password proves the user, but no realm: a server that strips or ignores realms repeats
        // any that the peer wrote, and the same user would be many. If the server checks them, the
        // operator says so by `trust_identity`.
        let is_proved = self.method == kind::MSCHAPV2 && user == text;
        (is_trusted || is_own_word || is_proved).then_some(name)
    }

    fn fail(&mut self, id: u8) -> Step {
        self.stage = Stage::Over;
        Step::Failure(Packet::Failure(id).emit())
    }
}

/// Returns a name without its realms: before `@` or `%`, and behind `\\`, `/` or `!` (RFC 7542
/// §3.3).
fn user_of(name: &str) -> &str {
    let user = name.split(['@', '%']).next().unwrap_or_default();
    user.rsplit(['\\', '/', '!']).next().unwrap_or_default()
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
        aaa::{eap::packet::Message, radius::question::Server},
        crypto::Secret,
    };
    use alloc::vec;

    const TTLS: u8 = 21;

    fn conversation(trust_identity: bool) -> Box<dyn Conversation> {
        let server = Server::new(([10, 0, 0, 5], 1812).into(), Secret::new(b"secret".to_vec()));
        let radius = Radius::new(Realm::new(vec![Server { trust_identity, ..server }], "gateway"));
        let mut conversation = radius.begin(b"carol");
        conversation.handle(&[]);
        conversation
    }

    fn response(kind: u8, data: &[u8]) -> Vec<u8> {
        Packet::Response(Message { id: 1, kind, data }).emit()
    }

    fn request(kind: u8) -> Vec<u8> {
        Packet::Request(Message { id: 1, kind, data: &[] }).emit()
    }

    fn reply(code: Code, eap: Option<Vec<u8>>, user_name: Option<&[u8]>) -> Option<Reply> {
        let msk = Some(Some(Secret::new(vec![7; 64])));
        Some(Reply { server: 0, code, eap, state: None, user_name: user_name.map(<[u8]>::to_vec), msk })
    }

    /// Whom a server accepts that begins this method for a peer that claims this name, and says
    /// this at the end.
    fn accepted(trust_identity: bool, method: u8, claimed: &str, said: Option<&str>) -> Option<String> {
        let mut conversation = conversation(trust_identity);
        assert_eq!(conversation.handle(&response(kind::IDENTITY, claimed.as_bytes())), Step::Ask);
        assert_eq!(conversation.question().unwrap().user_name, claimed.as_bytes());
        let challenge = reply(Code::Challenge, Some(request(method)), Some(b"alice"));
        assert_eq!(conversation.answered(challenge), Step::Send(request(method)));
        assert_eq!(conversation.identity(), None, "only an acceptance names anybody");
        assert_eq!(conversation.handle(&response(method, b"proof")), Step::Ask);
        let step = conversation.answered(reply(Code::Accept, None, said.map(str::as_bytes)));
        assert!(matches!(step, Step::Success(_, Some(_))), "{step:?}");
        conversation.identity().map(|name| String::from_utf8(name.to_vec()).unwrap())
    }

    #[test]
    fn a_name_that_only_the_peer_said_is_nobodys() {
        for method in [kind::TLS, TTLS] {
            for (claimed, said) in [
                ("bob@corp", "alice"),
                ("anonymous@corp", "alice@corp"),
                (r"CORP\anonymous", r"CORP\alice"),
                ("@corp", "alice@corp"),
            ] {
                let name = accepted(false, method, claimed, Some(said));
                assert_eq!(name.as_deref(), Some(said), "{claimed}: the server's own word");
            }
            for (claimed, said) in [
                ("alice@corp", "alice@corp"),
                ("alice@corp", "Alice@CORP"),
                ("alice@corp", "alice"),
                ("älice@corp", "ÄLICE"),
                ("alice", "alice@corp"),
                ("alice", "alice%corp"),
                ("corp!alice@proxy", "alice@corp"),
                ("corp/alice", "alice@corp"),
                (r"CORP\alice", "alice@CORP"),
                ("alice@CORP", r"CORP\alice"),
                ("alice@corp", ""),
                ("bob@corp", "@corp"),
            ] {
                assert_eq!(accepted(false, method, claimed, Some(said)), None, "{claimed}: {said}");
            }
            assert_eq!(accepted(true, method, "alice@corp", Some("alice")).as_deref(), Some("alice"));
            assert_eq!(accepted(true, method, "alice@corp", None).as_deref(), Some("alice@corp"));
        }
    }

    #[test]
    fn a_password_proves_a_user_but_no_realm() {
        let by_password = |trust_identity, claimed, said| {
            accepted(trust_identity, kind::MSCHAPV2, claimed, Some(said)).is_some()
        };
        assert!(by_password(false, "bob", "bob") && by_password(false, "bob@corp", "bob"));
        assert!(by_password(false, "bob@corp", "robert@corp"), "the server's own word");
        for (claimed, said) in
            [("bob@corp", "bob@corp"), (r"CORP\bob", r"CORP\bob"), ("corp!bob", "bob@corp")]
        {
            assert!(!by_password(false, claimed, said), "{claimed}: {said}");
            assert!(by_password(true, claimed, said), "{claimed}: {said}");
        }
        assert_eq!(accepted(false, kind::MSCHAPV2, "bob", None), None);
        assert_eq!(accepted(true, kind::MSCHAPV2, "bob", None).as_deref(), Some("bob"));
    }

    #[test]
    fn a_peer_has_one_identity_however_often_it_is_asked() {
        for (again, goes_on) in [(b"mallory", true), (b"alice@x", false)] {
            let mut conversation = conversation(false);
            let first = response(kind::IDENTITY, b"mallory");
            assert_eq!(conversation.handle(&[&first[..], b"padding"].concat()), Step::Ask);
            assert_eq!(conversation.question().unwrap().eap, first);
            conversation.answered(reply(Code::Challenge, Some(request(kind::IDENTITY)), None));
            let step = conversation.handle(&response(kind::IDENTITY, again));
            assert_eq!(step == Step::Ask, goes_on, "{step:?}");
            assert_eq!(matches!(step, Step::Failure(_)), !goes_on, "{step:?}");
        }
    }
}
