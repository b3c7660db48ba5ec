//! The responder's side of IKE_AUTH (RFC 7296 §1.2, §2.15; RFC 8784).

use super::message::{self, AuthRequest, MAX_IDENTITY_LEN, PpkNotifies, Proof, SHARED_KEY, constant_time_eq};
use crate::{
    aaa::eap,
    crypto::{PeerSignature, SignError, VerifyError},
    identity::{Forms, Identity},
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        context::Context,
        counter::Counter,
        crash::CrashToken,
        exchange::{auth_lifetime::AuthLifetime, mobike::addresses::Additional},
        method::Method,
        peer::{
            Peer,
            child::{AgreedChild, ChildOffer},
            choose::{self, NoChoice},
            failure::Failure,
            request::QueuedRequest,
            responder::{
                Claim, EapStart, Ready, ResponderHandshake, ResponderState, ServerTime, Signature,
                Verification,
            },
            state::PendingTask,
            transcript::Side,
        },
        protection::Plaintext,
        reason::Reason,
        wire::{ErrorNotify, ExchangeType, Payload, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec::Vec};

/// The next state; `None` once both sides are established.
pub(in crate::ike) type Next = Result<Option<ResponderState>, Failure>;

/// Returns the failure for a wrong proof.
fn unauthenticated() -> Failure {
    refused(Reason::Authentication)
}

/// Returns a failure whose reason the peer is not told (RFC 7296 §2.21.2).
pub(super) fn refused(reason: Reason) -> Failure {
    Failure::with_notify(reason, notify::AUTHENTICATION_FAILED)
}

impl Peer {
    /// Follows the initiator, which may change its port after IKE_SA_INIT, and its address if a NAT
    /// has several (RFC 7296 §2.23). Our own address stays the one that the initiator began with,
    /// because its connection may allow no other.
    pub(in crate::ike) fn float(&mut self, addresses: Addresses) {
        if self.addresses.local.ip() == addresses.local.ip() {
            self.addresses = addresses;
        }
    }

    /// Notes which connection would be for the peer, if there is one. Returns the reason why it has
    /// none.
    pub(super) fn note_no_choice(&mut self, NoChoice { reason, connection }: NoChoice) -> Reason {
        self.connection = connection.or(self.connection);
        reason
    }
}

impl Ready {
    /// Handles the first request, in which the peer claims an identity.
    pub(in crate::ike) fn auth(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        opened: &Plaintext,
    ) -> Next {
        let syntax = || Failure::with_notify(Reason::Protocol, notify::INVALID_SYNTAX);
        // All of the suite's key exchanges come first (RFC 9370 §2.2.2).
        if self.kex_done != peer.handshake_sa()?.suite.more_kex.len() {
            return Err(syntax());
        }
        let request = opened.read(AuthRequest::read);
        let mut request = request.map_err(|why| Failure::with_notify(Reason::Protocol, why))?;
        // They are compared with those of all connections, before anything is proved.
        let identities = [Some(&request.identity), request.responder_id.as_ref()];
        if identities.into_iter().flatten().any(|id| id.data.len() > MAX_IDENTITY_LEN) {
            return Err(syntax());
        }
        peer.identity = Some(request.identity.clone());
        peer.method = Some(match &request.proof {
            None => Method::Eap(eap::Method::default()),
            Some(Proof { method: SHARED_KEY, .. }) => Method::Psk,
            Some(_) => Method::Certificate(None),
        });
        let claimed = handshake.candidates.choose_claimed(cx.connections, &request);
        let index = claimed.map_err(|why| peer.note_no_choice(why)).map_err(refused)?;
        let connection = cx.connections.get(index).ok_or(Reason::NoConnection)?;
        peer.connection = Some(index);
        // A peer that forbids NATs is told of one before anything else (RFC 4555 §3.9).
        peer.no_nats = request.no_nats.is_some();
        let spi_i = handshake.transcript.spi_i;
        let is_unchanged = peer.is_path_unchanged(cx, request.no_nats, spi_i, handshake.nat.as_deref());
        if peer.no_nats && !is_unchanged {
            return Err(refuse_nat(cx));
        }
        // With EAP, the key is mixed in with the last proof.
        let (ppk, proof) = match (&connection.remote_auth, request.proof.take()) {
            (RemoteAuth::Eap(_), proof) => (None, proof),
            (_, Some(proof)) => {
                let notifies = core::mem::take(&mut request.ppk);
                let (ppk, proof) = mix_ppk(handshake, peer, cx, index, (proof, notifies))?;
                (ppk, Some(proof))
            }
            (_, None) => (None, None),
        };
        let identity = request.identity.clone();
        let certificates = core::mem::take(&mut request.certificates);
        let octets = handshake.transcript.octets(cx.crypto, peer.handshake_sa()?, Side::Initiator, &identity);
        let claim = Box::new(Claim {
            connection: index,
            request,
            ppk,
            is_unchanged,
            server_time: ServerTime::default(),
        });
        peer.handshake_sa()?.defer_answer();
        match (&connection.remote_auth, proof) {
            (RemoteAuth::Psk(key), Some(proof)) => {
                let expected = peer.shared_key(cx, &key.0, &octets);
                if !constant_time_eq(&expected, &proof.data) {
                    return Err(unauthenticated());
                }
                peer.is_proved = true;
                claim.prove(handshake, peer, cx)
            }
            (RemoteAuth::Key(verifier), Some(Proof { method, data })) => {
                peer.method = Some(Method::Certificate(verifier.scheme(method, &data)));
                let verifier = verifier.clone();
                let signature = PeerSignature { method, data, octets, hashes: handshake.hashes };
                let task = Task::Verify { verifier, identity, certificates, signature, may_wait: true };
                peer.start(cx, task, PendingTask::Handshake);
                Ok(Some(ResponderState::Verification(Verification { claim })))
            }
            (RemoteAuth::Eap(_), None) => claim.prove(handshake, peer, cx),
            _ => Err(unauthenticated()),
        }
    }
}

/// Mixes in the post-quantum key that the peer names, if the peer's connection has it or, while only
/// certificates can tell which connection that is, another one that may be. Returns the index of the
/// connection that has it, and the proof that then applies: the initiator's AUTH payload, or
/// NO_PPK_AUTH without the key (RFC 8784 §3, table 1).
pub(super) fn mix_ppk(
    handshake: &ResponderHandshake,
    peer: &mut Peer,
    cx: &Context<'_>,
    index: usize,
    (proof, PpkNotifies { id, no_ppk_auth }): (Proof, PpkNotifies),
) -> Result<(Option<usize>, Proof), Failure> {
    let connection = cx.connections.get(index).ok_or(Reason::NoConnection)?;
    let id = id.filter(|_| handshake.ppk);
    let known = id.as_ref().and_then(|id| handshake.candidates.with_ppk(cx.connections, index, id));
    if let Some((index, ppk)) = known {
        let ike_sa = peer.handshake_sa()?;
        ike_sa.keys = ike_sa.keys.with_ppk(cx.crypto, ike_sa.suite.prf, &ppk.secret.0);
        return Ok((Some(index), proof));
    }
    // With certificates, the connection for the names that they prove decides.
    let is_final = !matches!(connection.remote_auth, RemoteAuth::Key(_));
    if is_final && connection.ppk.as_ref().is_some_and(|known| known.required) {
        return Err(unauthenticated());
    }
    match (id, no_ppk_auth) {
        (Some(_), Some(data)) => Ok((None, Proof { data, ..proof })),
        // The initiator does not go on without a key that we do not have.
        (Some(_), None) => Err(unauthenticated()),
        (None, _) => Ok((None, proof)),
    }
}

impl Verification {
    /// Continues with the names in the peer's certificate. All of them count, whichever it claimed.
    pub(in crate::ike) fn handle_verification(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<Vec<Identity>, VerifyError>,
    ) -> Next {
        let names = result.map_err(|why| refused(Reason::Verification(why)))?;
        peer.is_proved = true;
        let Self { mut claim } = self;
        let responder_id = claim.request.responder_id.as_ref();
        let candidates = &handshake.candidates;
        let mixed = claim.ppk.and_then(|index| cx.connections.get(index)?.ppk.as_ref());
        let proved = candidates.choose_proved(cx.connections, claim.connection, &names, responder_id, mixed);
        claim.connection = proved.map_err(|why| peer.note_no_choice(why)).map_err(refused)?;
        peer.connection = Some(claim.connection);
        peer.take_names(cx, &names).map_err(refused)?;
        claim.prove(handshake, peer, cx)
    }
}

impl Claim {
    fn connection<'a>(&self, cx: &Context<'a>) -> Result<&'a Connection, Failure> {
        cx.connections.get(self.connection).ok_or(Reason::NoConnection.into())
    }

    /// Returns our identity: the one that the peer asked for, if it did.
    pub(super) fn own_id<'a>(&self, connection: &'a Connection) -> Result<&'a Identity, Failure> {
        let asked = self.request.responder_id.as_ref().map(Forms::of);
        connection.own_id(asked.as_ref()).ok_or(Reason::NoConnection.into())
    }

    /// Sends our proof, or prepares it: the peer is authenticated, or will be by EAP.
    fn prove(
        self: Box<Self>,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
    ) -> Next {
        let connection = self.connection(cx)?;
        let ike_sa = peer.handshake_sa()?;
        let octets =
            handshake.transcript.octets(cx.crypto, ike_sa, Side::Responder, self.own_id(connection)?);
        match &connection.local_auth {
            LocalAuth::Psk(key) => {
                let data = peer.shared_key(cx, &key.0, &octets).to_vec();
                self.proved(handshake, peer, cx, Proof { method: SHARED_KEY, data })
            }
            LocalAuth::Key(signer) => {
                let (hashes, wants_ocsp) = (handshake.hashes, self.request.wants_ocsp);
                let task = Task::Sign { signer: signer.clone(), octets, hashes, wants_ocsp };
                peer.start(cx, task, PendingTask::Handshake);
                Ok(Some(ResponderState::Signature(Signature { claim: self })))
            }
            LocalAuth::Eap(_) => Err(refused(Reason::NoConnection)),
        }
    }

    /// Continues with our proof: starts EAP, or sends the last response.
    fn proved(
        self: Box<Self>,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        proof: Proof,
    ) -> Next {
        let RemoteAuth::Eap(authenticator) = &self.connection(cx)?.remote_auth else {
            return self.establish(handshake, peer, cx, &proof, false);
        };
        // The first packet of the conversation goes with our proof (RFC 7296 §2.16).
        let conversation = authenticator.begin(peer.origin(self.connection(cx)?));
        peer.start(cx, Task::Eap(conversation, Vec::new()), PendingTask::Handshake);
        Ok(Some(ResponderState::EapStart(Box::new(EapStart { claim: self, proof }))))
    }

    /// Sends the last response, with inner addresses and the first child SA: both sides are
    /// authenticated.
    pub(super) fn establish(
        self: Box<Self>,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        proof: &Proof,
        with_eap: bool,
    ) -> Next {
        let connection = self.connection(cx)?;
        if (connection.no_nats || peer.no_nats) && !self.is_unchanged {
            return Err(refuse_nat(cx));
        }
        peer.check_bars(cx).map_err(refused)?;
        // The source address of the last request could be forged. Until a probe confirms it, the
        // peer counts as being where it received our first response.
        let seen = peer.current_path();
        peer.addresses.remote.set_ip(peer.from);
        let own_id = self.own_id(connection)?.clone();
        let AuthRequest { initial_contact, wants_ocsp, terms, .. } = self.request;
        peer.mobike = connection.mobike && terms.mobike;
        peer.handshake_sa()?.crash_token = terms.crash_token.map(Box::new);
        peer.established(cx, initial_contact);
        // The algorithms were chosen by other connections too. What their peers need must not make
        // this peer's keys weaker for longer than it takes to replace them.
        let in_use = &peer.handshake_sa()?.suite;
        if let Some(better) = choose::better_suite(connection, &handshake.transcript.first, in_use) {
            peer.better = Some(Box::new(better));
            peer.enqueue(QueuedRequest::RekeyIkeSa);
        }

        let lifetime = peer.own_auth_lifetime(cx);
        let token = peer.own_crash_token(cx);
        let ocsp = message::ocsp(&connection.local_auth, wants_ocsp && !with_eap);
        let mut answer = Vec::new();
        if !with_eap {
            answer.push(Payload::IdR(own_id));
            answer.extend(message::certificates(&connection.local_auth, &ocsp));
        }
        answer.push(proof.payload());
        if self.ppk.is_some() {
            answer.push(Payload::notify(notify::PPK_IDENTITY, &[]));
        }
        answer.extend(token.as_ref().map(CrashToken::payload));
        let configured = match &terms.configuration {
            Some(request) => peer.configure(cx, connection, request),
            None => Ok(None),
        };
        let agreed: Result<Option<AgreedChild>, ErrorNotify> = match (&configured, &terms.child) {
            (Err(kind), child) => {
                if let Some(offer) = child {
                    peer.tell_child_refused(cx, *kind, offer.as_ref().ok());
                }
                Err((*kind).into())
            }
            (Ok(_), None) => Ok(None),
            (Ok(_), Some(Err(why))) => {
                let refusal = ErrorNotify::from(*why);
                peer.tell_child_refused(cx, refusal.kind, None);
                Err(refusal)
            }
            (Ok(_), Some(Ok(offer))) => match peer.agree_first_child(cx, connection, offer) {
                Ok(agreed) => Ok(Some(agreed)),
                Err(kind) => Err(kind.into()),
            },
        };
        if let Ok(Some(configuration)) = &configured {
            answer.push(Payload::Cp(configuration.clone()));
        }
        answer.extend(lifetime.as_ref().map(AuthLifetime::payload));
        let additional = peer.additional_addresses(connection);
        if peer.mobike {
            answer.push(Payload::notify(notify::MOBIKE_SUPPORTED, &[]));
            answer.extend(additional.iter().map(Additional::payload));
        }
        match &agreed {
            Ok(Some(agreed)) => answer.extend(ChildOffer::from(agreed).payloads()),
            Ok(None) => {}
            // The IKE SA stays without the child SA (RFC 7296 §1.2, §2.21.2).
            Err(why) => answer.push(why.payload()),
        }
        let datagrams = peer.handshake_sa()?.answer(cx, ExchangeType::Auth, &answer);
        cx.send_all(seen.addresses, datagrams);
        drop(answer);
        if let Ok(Some(agreed)) = agreed {
            let transcript = &handshake.transcript;
            peer.install(cx, agreed, &[], [&transcript.nonce_i, &transcript.nonce_r], false, true);
        }
        peer.move_to(cx, seen, true);
        Ok(None)
    }
}

impl Signature {
    /// Continues with our signature.
    pub(in crate::ike) fn handle_signature(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(u8, Vec<u8>), SignError>,
    ) -> Next {
        let (method, data) = result.map_err(|why| refused(Reason::Signature(why)))?;
        self.claim.proved(handshake, peer, cx, Proof { method, data })
    }
}

/// Returns the failure for a NAT on the path if none is allowed (RFC 4555 §3.9).
fn refuse_nat(cx: &mut Context<'_>) -> Failure {
    cx.count(Counter::NatRefused);
    Failure::with_notify(Reason::Nat, notify::UNEXPECTED_NAT_DETECTED)
}
