//! EAP with a RADIUS server behind us: packets are passed through, whatever their method (RFC
//! 3579).

use super::{
    packet::Code,
    question::{Question, Realm, Reply},
};
use crate::aaa::{
    eap::{
        Authenticator, Conversation, Method, Step,
        packet::{Packet, kind},
    },
    grant::Grant,
    origin::Origin,
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{fmt, mem};

/// Most requests of one conversation.
const MAX_ROUNDS: u32 = 64;

/// Authenticates peers by RADIUS servers.
#[derive(Clone, Debug)]
pub struct Radius(Arc<Realm>);

impl Radius {
    /// Creates an authenticator that asks the servers of this realm.
    pub fn new(realm: Realm) -> Self {
        Self(Arc::new(realm))
    }
}

impl Authenticator for Radius {
    fn begin(&self, origin: Origin) -> Box<dyn Conversation> {
        let realm = self.0.clone();
        Box::new(PassThrough {
            realm,
            origin,
            stage: Stage::Nothing,
            claimed_identity: Vec::new(),
            name: None,
            grant: None,
            method: 0,
            rounds: 0,
        })
    }
}

/// One conversation.
struct PassThrough {
    realm: Arc<Realm>,
    origin: Origin,
    stage: Stage,
    /// The EAP identity that the peer claims.
    claimed_identity: Vec<u8>,
    /// The user that the server has accepted.
    name: Option<Vec<u8>>,
    /// What the server grants, once it has accepted the user.
    grant: Option<Grant>,
    /// EAP type of the server's last request.
    method: u8,
    rounds: u32,
}

enum Stage {
    Nothing,
    IdentityRequest,
    /// A server is being asked: the peer's packet, its identifier, and the server that knows the
    /// conversation.
    Asking {
        id: u8,
        eap: Vec<u8>,
        context: Option<ServerContext>,
    },
    /// The peer has received the server's challenge.
    Challenge(ServerContext),
    Success,
    Over,
}

/// The server that knows this conversation, and the state to return to it.
struct ServerContext {
    server: usize,
    state: Option<Vec<u8>>,
}

impl PassThrough {
    /// Handles the peer's packet; returns `None` if it makes no sense.
    fn take(&mut self, packet: &[u8]) -> Option<Step> {
        let Some(Packet::Response(response)) = Packet::parse(packet) else { return None };
        let context = match (mem::replace(&mut self.stage, Stage::Over), response.kind) {
            (Stage::IdentityRequest, kind::IDENTITY) => {
                self.claimed_identity = response.data.to_vec();
                None
            }
            // If the server repeated a name that came later, it would seem to be the server's own.
            (Stage::Challenge(_), kind::IDENTITY) if response.data != self.claimed_identity => return None,
            (Stage::Challenge(context), _) => Some(context),
            _ => return None,
        };
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return None;
        }
        // Without padding (RFC 3748 §4.1), which a server might take for part of the name.
        self.stage = Stage::Asking { id: response.id, eap: Packet::Response(response).emit(), context };
        Some(Step::Ask)
    }

    /// Handles the server's answer to the peer's packet of this identifier; returns `None` if it
    /// makes no sense.
    fn handle_reply(&mut self, id: u8, reply: Reply) -> Option<Step> {
        let packet = reply.eap.as_deref().map(Packet::parse);
        match (reply.code, packet) {
            (Code::Challenge, Some(Some(Packet::Request(request)))) => {
                self.method = request.kind;
                let context = ServerContext { server: reply.server, state: reply.state };
                self.stage = Stage::Challenge(context);
                reply.eap.map(Step::Send)
            }
            (Code::Accept, None | Some(Some(Packet::Success(_)))) => {
                let key = reply.msk?;
                let mut grant = reply.grant?;
                if grant.user_name.is_empty() {
                    grant.user_name.clone_from(&self.claimed_identity);
                }
                grant.origin = Some(self.origin.clone());
                self.grant = Some(grant);
                self.name = self.accepted(reply.server, reply.user_name);
                self.stage = Stage::Success;
                Some(Step::Success(Packet::Success(id).emit(), key))
            }
            _ => None,
        }
    }

    /// Returns the user that the server has accepted; `None` if only the peer itself vouches for
    /// the name. A server that knows no other name repeats the one that the peer began with (RFC
    /// 3579 §3), or a part of it. So a name is the server's own only if its user does not occur in
    /// what the peer claimed. Its realm may occur there, because that is how a peer reaches its
    /// server.
    fn accepted(&self, server: usize, user_name: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let is_trusted = self.realm.servers.get(server).is_some_and(|server| server.trust_identity);
        let Some(name) = user_name.filter(|name| !name.is_empty()) else {
            return is_trusted.then(|| self.claimed_identity.clone());
        };
        let [text, claimed] =
            [&name, &self.claimed_identity].map(|name| String::from_utf8_lossy(name).to_lowercase());
        let user = user_of(&text);
        let is_own = !claimed.contains(user);
        // A password proves the user, but not the realm: a server that strips or ignores realms
        // repeats any that the peer wrote, so one user could become many. If the server checks
        // realms, the operator says so by `trust_identity`.
        let is_proved = self.method == kind::MSCHAPV2 && user == text;
        (is_trusted || is_own || is_proved).then_some(name)
    }

    fn fail(&mut self, id: u8) -> Step {
        self.stage = Stage::Over;
        Step::Failure(Packet::Failure(id).emit())
    }
}

/// Returns a name without its realms, which stand after `@` or `%`, or before `\\`, `/` or `!` (RFC
/// 7542 §3.3).
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

    fn method(&self) -> Method {
        let is_known = self.method > kind::NAK;
        Method { by_radius: true, kind: is_known.then_some(self.method) }
    }

    fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    fn question(&self) -> Option<Question> {
        let Stage::Asking { eap, context, .. } = &self.stage else { return None };
        Some(Question {
            realm: self.realm.clone(),
            origin: self.origin.clone(),
            server: context.as_ref().map(|context| context.server),
            user_name: self.claimed_identity.clone(),
            state: context.as_ref().and_then(|context| context.state.clone()),
            eap: eap.clone(),
        })
    }

    fn answered(&mut self, reply: Option<Reply>) -> Step {
        let id = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asking { id, .. } => id,
            _ => 0,
        };
        match reply {
            Some(reply) => self.handle_reply(id, reply).unwrap_or_else(|| self.fail(id)),
            None => Step::Unanswered(Packet::Failure(id).emit()),
        }
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

    fn origin() -> Origin {
        Origin { connection: "people".into(), local: [203, 0, 113, 1].into(), remote: [192, 0, 2, 7].into() }
    }

    fn conversation(trust_identity: bool) -> Box<dyn Conversation> {
        let server = Server::new(([10, 0, 0, 5], 1812).into(), Secret::new(b"secret".to_vec()));
        let radius = Radius::new(Realm::new(vec![Server { trust_identity, ..server }], "gateway"));
        let mut conversation = radius.begin(origin());
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
        let (msk, grant) = (Some(Some(Secret::new(vec![7; 64]))), Some(Grant::default()));
        Some(Reply {
            server: 0,
            code,
            eap,
            state: None,
            user_name: user_name.map(<[u8]>::to_vec),
            msk,
            grant,
        })
    }

    /// Returns the accepted name if the peer claims `claimed`, and the server uses `method` and
    /// reports `user_name` in the end.
    fn accepted(trust_identity: bool, method: u8, claimed: &str, user_name: Option<&str>) -> Option<String> {
        let mut conversation = conversation(trust_identity);
        assert_eq!(conversation.handle(&response(kind::IDENTITY, claimed.as_bytes())), Step::Ask);
        assert_eq!(conversation.question().unwrap().user_name, claimed.as_bytes());
        let challenge = reply(Code::Challenge, Some(request(method)), Some(b"alice"));
        assert_eq!(conversation.answered(challenge), Step::Send(request(method)));
        assert_eq!(conversation.identity(), None, "only an acceptance names anybody");
        assert_eq!(conversation.handle(&response(method, b"proof")), Step::Ask);
        let step = conversation.answered(reply(Code::Accept, None, user_name.map(str::as_bytes)));
        assert!(matches!(step, Step::Success(_, Some(_))), "{step:?}");
        conversation.identity().map(|name| String::from_utf8(name.to_vec()).unwrap())
    }

    #[test]
    fn a_name_that_only_the_peer_claims_is_not_accepted() {
        for method in [kind::TLS, TTLS] {
            for (claimed, user_name) in [
                ("bob@corp", "alice"),
                ("anonymous@corp", "alice@corp"),
                (r"CORP\anonymous", r"CORP\alice"),
                ("@corp", "alice@corp"),
            ] {
                let name = accepted(false, method, claimed, Some(user_name));
                assert_eq!(name.as_deref(), Some(user_name), "{claimed}: the server's own word");
            }
            for (claimed, user_name) in [
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
                assert_eq!(accepted(false, method, claimed, Some(user_name)), None, "{claimed}: {user_name}");
            }
            assert_eq!(accepted(true, method, "alice@corp", Some("alice")).as_deref(), Some("alice"));
            assert_eq!(accepted(true, method, "alice@corp", None).as_deref(), Some("alice@corp"));
        }
    }

    #[test]
    fn only_an_acceptance_grants_anything() {
        let user_name = b"alice".to_vec();
        let grant = Grant { session_timeout: Some(15), user_name, ..Grant::default() };
        let mut conversation = conversation(false);
        conversation.handle(&response(kind::IDENTITY, b"alice"));
        let challenge = reply(Code::Challenge, Some(request(TTLS)), None).unwrap();
        conversation.answered(Some(Reply { grant: Some(grant.clone()), ..challenge }));
        assert_eq!(conversation.grant(), None);
        conversation.handle(&response(TTLS, b"proof"));
        let acceptance = reply(Code::Accept, None, Some(b"alice")).unwrap();
        conversation.answered(Some(Reply { grant: Some(grant.clone()), ..acceptance }));
        assert_eq!(conversation.grant(), Some(&Grant { origin: Some(origin()), ..grant }));
    }

    #[test]
    fn silence_is_no_refusal() {
        for (answer, is_refused) in [(None, false), (reply(Code::Reject, None, None), true)] {
            let mut conversation = conversation(false);
            conversation.handle(&response(kind::IDENTITY, b"alice"));
            let failure = Packet::Failure(1).emit();
            let step = if is_refused { Step::Failure(failure) } else { Step::Unanswered(failure) };
            assert_eq!(conversation.answered(answer), step);
            assert!(matches!(conversation.handle(&response(kind::IDENTITY, b"alice")), Step::Failure(_)));
        }
    }

    #[test]
    fn a_password_proves_a_user_but_no_realm() {
        let by_password = |trust_identity, claimed, user_name| {
            accepted(trust_identity, kind::MSCHAPV2, claimed, Some(user_name)).is_some()
        };
        assert!(by_password(false, "bob", "bob") && by_password(false, "bob@corp", "bob"));
        assert!(by_password(false, "bob@corp", "robert@corp"), "the server's own word");
        for (claimed, user_name) in
            [("bob@corp", "bob@corp"), (r"CORP\bob", r"CORP\bob"), ("corp!bob", "bob@corp")]
        {
            assert!(!by_password(false, claimed, user_name), "{claimed}: {user_name}");
            assert!(by_password(true, claimed, user_name), "{claimed}: {user_name}");
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
