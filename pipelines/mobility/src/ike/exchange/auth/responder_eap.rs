//! The responder's side of EAP in IKE_AUTH (RFC 7296 §2.16).

use super::{
    message::{self, EapProofRequest, EapRequest, Proof, SHARED_KEY, constant_time_eq},
    responder::{Next, mix_ppk, refused},
};
use crate::{
    aaa::eap::{Conversation, Step, packet},
    identity::Identity,
    ike::{
        context::Context,
        counter::Counter,
        event::Event,
        method::Method,
        peer::{
            Peer,
            failure::Failure,
            grant::check_filters,
            responder::{Claim, EapMethod, EapProof, EapStart, EapTurn, ResponderHandshake, ResponderState},
            state::PendingTask,
            transcript::Side,
        },
        protection::Plaintext,
        reason::Reason,
        wire::{ExchangeType, Payload},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec::Vec};

impl EapStart {
    /// Sends our proof together with the method's first packet.
    pub(in crate::ike) fn handle_step(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        (conversation, step): (Box<dyn Conversation>, Step),
    ) -> Next {
        let connection = cx.connections.get(self.claim.connection).ok_or(Reason::NoConnection)?;
        let mut payloads = alloc::vec![Payload::IdR(self.claim.own_id(connection)?.clone())];
        let ocsp = message::ocsp(&connection.local_auth, self.claim.request.wants_ocsp);
        payloads.extend(message::certificates(&connection.local_auth, &ocsp));
        payloads.push(self.proof.payload());
        self.claim.handle_step(handshake, peer, cx, (conversation, step), payloads)
    }
}

impl EapMethod {
    /// Sends the method's next packet.
    pub(in crate::ike) fn handle_step(
        mut self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        (conversation, step): (Box<dyn Conversation>, Step),
    ) -> Next {
        self.claim.server_time.end(cx.now);
        self.claim.handle_step(handshake, peer, cx, (conversation, step), Vec::new())
    }
}

impl Claim {
    /// Sends the method's packet, preceded by our proof if that is not sent yet.
    fn handle_step(
        mut self: Box<Self>,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        (conversation, step): (Box<dyn Conversation>, Step),
        proof: Vec<Payload<'_>>,
    ) -> Next {
        peer.method = Some(Method::Eap(conversation.method()));
        let (packet, next) = match step {
            Step::Send(packet) => {
                (packet, Ok(ResponderState::EapTurn(EapTurn { claim: self, conversation })))
            }
            Step::Success(packet, Some(key)) => {
                match self.take_eap_names(handshake, peer, cx, &*conversation) {
                    Ok(()) => (packet, Ok(ResponderState::EapProof(EapProof { claim: self, key }))),
                    Err(why) => (packet::failure(&packet), Err(why)),
                }
            }
            // A method without a key does not exclude a man in the middle (RFC 7296 §2.16).
            Step::Success(packet, None) => (packet::failure(&packet), Err(Reason::Eap)),
            Step::Failure(packet) => {
                (packet, Err(conversation.refusal().map_or(Reason::Eap, Reason::Verification)))
            }
            Step::Unanswered(packet) => (packet, Err(Reason::NoServer)),
            Step::Ask | Step::Wait(_) => (packet::failure(&[]), Err(Reason::Eap)),
        };
        let payloads: Vec<_> = proof.into_iter().chain([Payload::Eap(&packet)]).collect();
        let addresses = peer.addresses;
        let datagrams = peer.handshake_sa()?.answer(cx, ExchangeType::Auth, &payloads);
        cx.send_all(addresses, datagrams);
        match &next {
            Err(Reason::Eap | Reason::Verification(_)) => cx.count(Counter::EapRefused),
            Err(Reason::NoServer) => cx.count(Counter::NoServer),
            _ => {}
        }
        Ok(Some(next?))
    }

    /// Adopts the names that EAP accepted. They are the peer's identity and select its connection, but
    /// are proved only by [`EapProof::auth`]: somebody may have relayed the EAP of another.
    fn take_eap_names(
        &mut self,
        handshake: &ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        conversation: &dyn Conversation,
    ) -> Result<(), Reason> {
        let proved = conversation.identity().filter(|name| !name.is_empty()).map(Identity::from_name);
        let others = conversation.other_names();
        let others = others.iter().map(|name| Identity::from_name(name));
        let names: Vec<Identity> = proved.iter().cloned().chain(others).collect();
        let asked = self.request.responder_id.as_ref();
        let candidates = &handshake.candidates;
        let chosen = candidates.choose_proved(cx.connections, self.connection, &names, asked, None);
        let chosen = chosen.map_err(|why| match (peer.note_no_choice(why), &proved) {
            (Reason::NoConnection, None) => Reason::Unnamed,
            (why, _) => why,
        });
        // A peer without a name is never another device of a named one, whatever it claims.
        peer.account = Some(Box::new(proved.unwrap_or_else(|| Identity::unnamed(peer.id.0))));
        peer.take_names(cx, &names)?;
        peer.grant = conversation.grant().cloned().map(Box::new);
        if let Some(prefix) = peer.grant.as_ref().and_then(|grant| grant.ignored_prefix) {
            cx.tell(Event::PrefixIgnored { peer: peer.id, prefix });
        }
        self.connection = chosen?;
        peer.connection = Some(self.connection);
        let connection = cx.connections.get(self.connection).ok_or(Reason::NoConnection)?;
        let filters = peer.grant.as_ref().map_or(&[][..], |grant| &grant.filters);
        check_filters(connection, filters).map_err(|reason| {
            cx.tell(Event::GrantRefused { peer: peer.id, reason });
            Reason::Grant
        })
    }

    /// Notes whether a later request came from other addresses.
    fn note_path(&mut self, peer: &Peer, addresses: Addresses) {
        self.is_unchanged &= addresses == peer.addresses;
    }
}

impl EapTurn {
    /// Passes the peer's packet to the EAP method.
    pub(in crate::ike) fn auth(
        mut self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        addresses: Addresses,
        opened: &Plaintext,
    ) -> Next {
        self.claim.note_path(peer, addresses);
        peer.float(addresses);
        let request = opened.read(EapRequest::read);
        let request = request.map_err(|why| Failure::with_notify(Reason::Protocol, why))?;
        peer.handshake_sa()?.defer_answer();
        peer.start(cx, Task::Eap(self.conversation, request.packet), PendingTask::Handshake);
        Ok(Some(ResponderState::EapMethod(EapMethod { claim: self.claim })))
    }
}

impl EapProof {
    /// Checks the proof that the peer took part in the EAP conversation, and sends ours: both have
    /// the method's key (RFC 7296 §2.16).
    pub(in crate::ike) fn auth(
        mut self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        addresses: Addresses,
        opened: &Plaintext,
    ) -> Next {
        self.claim.note_path(peer, addresses);
        peer.float(addresses);
        let request = opened.read(EapProofRequest::read);
        let EapProofRequest { proof: theirs, ppk, crash_token } =
            request.map_err(|why| Failure::with_notify(Reason::Protocol, why))?;
        let connection = cx.connections.get(self.claim.connection).ok_or(Reason::NoConnection)?;
        // Our first proof was made without the key, which goes into the last ones (RFC 8784 §3).
        let (mixed, theirs) = mix_ppk(handshake, peer, cx, self.claim.connection, (theirs, ppk))?;
        self.claim.ppk = mixed;
        let identity = &self.claim.request.identity;
        let octets = handshake.transcript.octets(cx.crypto, peer.handshake_sa()?, Side::Initiator, identity);
        if theirs.method != SHARED_KEY
            || !constant_time_eq(&peer.shared_key(cx, &self.key, &octets), &theirs.data)
        {
            return Err(refused(Reason::Authentication));
        }
        peer.is_proved = true;
        // Some give it in the first request already.
        let terms = &mut self.claim.request.terms;
        terms.crash_token = crash_token.or(terms.crash_token.take());
        let ike_sa = peer.handshake_sa()?;
        let octets =
            handshake.transcript.octets(cx.crypto, ike_sa, Side::Responder, self.claim.own_id(connection)?);
        let data = peer.shared_key(cx, &self.key, &octets).to_vec();
        self.claim.establish(handshake, peer, cx, &Proof { method: SHARED_KEY, data }, true)
    }
}
