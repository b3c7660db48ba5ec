//! IKE_AUTH as its responder (RFC 7296 §1.2, §2.15; RFC 8784).

use super::message::{self, AuthRequest, Proof, SHARED_KEY, same};
use crate::{
    crypto::{Distrust, Refused},
    identity::Identity,
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        context::Context,
        counter::Counter,
        event::Reason,
        exchange::mobike::addresses::Additional,
        peer::{
            Peer,
            child::{AgreedChild, ChildOffer},
            failure::Failure,
            responder::{
                Claim, EapStart, Ready, ResponderHandshake, ResponderState, Signature, Verification,
            },
            state::PendingTask,
            transcript::Side,
        },
        protection::Plaintext,
        wire::{ErrorNotify, ExchangeType, Payload, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec::Vec};

/// Longest identity of a peer, in bytes.
const LONGEST_NAME: usize = 512;

/// The next state; `None`: both sides are established.
pub(in crate::ike) type Next = Result<Option<ResponderState>, Failure>;

/// Returns that the peer's proof is not taken.
fn unauthenticated() -> Failure {
    refused(Reason::Authentication)
}

/// Returns that the peer is not taken, for a reason that it does not hear (RFC 7296 §2.21.2).
pub(super) fn refused(reason: Reason) -> Failure {
    Failure::told(reason, notify::AUTHENTICATION_FAILED)
}

impl Peer {
    /// Follows the initiator, which may go on from another port behind IKE_SA_INIT, and from
    /// another address if a NAT has several (RFC 7296 §2.23). Ours is the one that it began with:
    /// its connection allows no other without asking.
    pub(in crate::ike) fn float(&mut self, addresses: Addresses) {
        if self.addresses.local.ip() == addresses.local.ip() {
            self.addresses = addresses;
        }
    }
}

impl Ready {
    /// Takes the first request: who the peer says it is.
    pub(in crate::ike) fn auth(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        opened: &Plaintext,
    ) -> Next {
        let syntax = || Failure::told(Reason::Protocol, notify::INVALID_SYNTAX);
        // All of the suite's key exchanges come before (RFC 9370 §2.2.2).
        if self.kex_done != peer.handshake_sa()?.suite.more_kex.len() {
            return Err(syntax());
        }
        let request = opened.read(AuthRequest::read);
        let mut request = request.map_err(|why| Failure::told(Reason::Protocol, why))?;
        if request.identity.data.len() > LONGEST_NAME {
            return Err(syntax());
        }
        peer.identity = Some(request.identity.clone());
        let claimed = handshake.candidates.claimed(cx.connections, &request);
        let index = claimed.map_err(refused)?;
        let connection = cx.connections.get(index).ok_or(Reason::NoConnection)?;
        peer.connection = Some(index);
        // Whoever forbids NATs, the peer here, is told of one before all else (RFC 4555 §3.9).
        peer.no_nats = request.no_nats.is_some();
        let spi_i = handshake.transcript.spi_i;
        let is_unchanged =
            peer.came_unchanged(cx, request.no_nats.as_deref(), spi_i, handshake.nat.as_deref());
        if peer.no_nats && !is_unchanged {
            return Err(refuse_nat(cx));
        }
        let (ppk, proof) = mix_ppk(handshake, peer, cx, connection, &mut request)?;
        let identity = request.identity.clone();
        let certificates = core::mem::take(&mut request.certificates);
        let octets = handshake.transcript.octets(cx.crypto, peer.handshake_sa()?, Side::Initiator, &identity);
        let claim = Box::new(Claim { connection: index, request, ppk, is_unchanged });
        peer.handshake_sa()?.busy = true;
        match (&connection.remote_auth, proof) {
            (RemoteAuth::Psk(key), Some(proof)) => {
                let theirs = peer.shared_key(cx, &key.0, &octets);
                if !same(&theirs, &proof.data) {
                    return Err(unauthenticated());
                }
                claim.prove(handshake, peer, cx)
            }
            (RemoteAuth::Key(verifier), Some(Proof { method, data })) => {
                let verifier = verifier.clone();
                let task = Task::Verify { verifier, identity, certificates, method, data, octets };
                peer.start(cx, task, PendingTask::Handshake);
                Ok(Some(ResponderState::Verification(Verification { claim })))
            }
            (RemoteAuth::Eap(_), None) => claim.prove(handshake, peer, cx),
            _ => Err(unauthenticated()),
        }
    }
}

/// Mixes in the post-quantum key, if both have the same one; returns whether, and the proof that
/// holds then (RFC 8784 §3).
fn mix_ppk(
    handshake: &ResponderHandshake,
    peer: &mut Peer,
    cx: &Context<'_>,
    connection: &Connection,
    request: &mut AuthRequest,
) -> Result<(bool, Option<Proof>), Failure> {
    let proof = request.proof.take();
    let without_ppk = |proof: Option<Proof>, data| proof.map(|Proof { method, .. }| Proof { method, data });
    // With EAP the key is mixed in with the last proof. Such a peer goes on without it, if that is
    // allowed to whom it proves to be.
    if matches!(connection.remote_auth, RemoteAuth::Eap(_)) {
        return Ok((false, proof));
    }
    let no_ppk_auth = request.no_ppk_auth.take();
    match (&connection.ppk, &request.ppk_id, no_ppk_auth) {
        (Some(known), Some(id), _) if handshake.ppk && *id == known.id => {
            let ike_sa = peer.handshake_sa()?;
            ike_sa.keys = ike_sa.keys.with_ppk(cx.crypto, ike_sa.suite.prf, &known.secret.0);
            Ok((true, proof))
        }
        (Some(known), ..) if known.required => Err(unauthenticated()),
        (Some(_), Some(_), Some(data)) if handshake.ppk => Ok((false, without_ppk(proof, data))),
        (Some(_), Some(_), None) if handshake.ppk => Err(unauthenticated()),
        (Some(_), ..) => Ok((false, proof)),
        (None, _, Some(data)) => Ok((false, without_ppk(proof, data))),
        (None, _, None) => Ok((false, proof)),
    }
}

impl Verification {
    /// Goes on as the peer's certificate calls it: all of its names count, whichever it came by.
    pub(in crate::ike) fn verified(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<Vec<Identity>, Distrust>,
    ) -> Next {
        let names = result.map_err(|why| refused(Reason::Distrusted(why)))?;
        let Self { mut claim } = self;
        let wanted = claim.request.wanted.as_ref();
        let proved = handshake.candidates.proved(cx.connections, claim.connection, &names, wanted);
        claim.connection = proved.map_err(refused)?;
        peer.connection = Some(claim.connection);
        peer.take_names(cx, &names);
        claim.prove(handshake, peer, cx)
    }
}

impl Claim {
    fn connection<'a>(&self, cx: &Context<'a>) -> Result<&'a Connection, Failure> {
        cx.connections.get(self.connection).ok_or(Reason::NoConnection.into())
    }

    /// Proves who we are, since the peer is who it says it is, or will show it by EAP.
    fn prove(
        self: Box<Self>,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
    ) -> Next {
        let connection = self.connection(cx)?;
        let ike_sa = peer.handshake_sa()?;
        let octets = handshake.transcript.octets(cx.crypto, ike_sa, Side::Responder, &connection.local_id);
        match &connection.local_auth {
            LocalAuth::Psk(key) => {
                let data = peer.shared_key(cx, &key.0, &octets).to_vec();
                self.proved(handshake, peer, cx, Proof { method: SHARED_KEY, data })
            }
            LocalAuth::Key(signer) => {
                let task = Task::Sign(signer.clone(), octets, handshake.hashes);
                peer.start(cx, task, PendingTask::Handshake);
                Ok(Some(ResponderState::Signature(Signature { claim: self })))
            }
            LocalAuth::Eap(_) => Err(refused(Reason::NoConnection)),
        }
    }

    /// Goes on with our proof: with EAP, or with the last answer.
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
        // The conversation's first packet goes with our proof (RFC 7296 §2.16).
        let conversation = authenticator.begin(&self.request.identity.data);
        peer.start(cx, Task::Eap(conversation, Vec::new()), PendingTask::Handshake);
        Ok(Some(ResponderState::EapStart(Box::new(EapStart { claim: self, proof }))))
    }

    /// Sends the last answer, with addresses and the first child SA: both have proved who they are.
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
        // Any source can be written on its last request: it is where it got our first answer, until
        // it says otherwise.
        let seen = peer.place();
        peer.addresses.remote.set_ip(peer.from);
        let AuthRequest { initial_contact, terms, .. } = self.request;
        peer.mobike = connection.mobike && terms.mobike;
        peer.established(cx, initial_contact);

        let mut answer = Vec::new();
        if !with_eap {
            answer.push(Payload::IdR(connection.local_id.clone()));
            answer.extend(message::certificates(&connection.local_auth));
        }
        answer.push(proof.payload());
        if self.ppk {
            answer.push(Payload::notify(notify::PPK_IDENTITY, &[]));
        }
        let configured = match &terms.configuration {
            Some(asked) => peer.configure(cx, connection, asked),
            None => Ok(None),
        };
        let agreed: Result<Option<AgreedChild>, ErrorNotify> = match (&configured, &terms.child) {
            (Err(kind), _) => Err((*kind).into()),
            (Ok(_), None) => Ok(None),
            (Ok(_), Some(Err(why))) => Err((*why).into()),
            (Ok(_), Some(Ok(offer))) => match peer.agree_first_child(cx, connection, offer) {
                Ok(agreed) => Ok(Some(agreed)),
                Err(kind) => Err(kind.into()),
            },
        };
        if let Ok(Some(configuration)) = &configured {
            answer.push(Payload::Cp(configuration.clone()));
        }
        let additional = peer.additional_addresses(connection);
        if peer.mobike {
            answer.push(Payload::notify(notify::MOBIKE_SUPPORTED, &[]));
            answer.extend(additional.iter().map(Additional::payload));
        }
        match &agreed {
            Ok(Some(agreed)) => answer.extend(ChildOffer::from(agreed).payloads()),
            Ok(None) => {}
            // The IKE SA stays without it (RFC 7296 §1.2, §2.21.2).
            Err(why) => answer.push(why.payload()),
        }
        let datagrams = peer.handshake_sa()?.answer(cx, ExchangeType::Auth, &answer);
        cx.send_all(seen.addresses, datagrams);
        drop(answer);
        if let Ok(Some(agreed)) = agreed {
            let transcript = &handshake.transcript;
            peer.install(cx, agreed, &[], [&transcript.nonce_i, &transcript.nonce_r], false, true);
        }
        peer.go(cx, seen, true);
        Ok(None)
    }
}

impl Signature {
    /// Goes on with our signature.
    pub(in crate::ike) fn signed(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(u8, Vec<u8>), Refused>,
    ) -> Next {
        let (method, data) = result.map_err(|Refused| unauthenticated())?;
        self.claim.proved(handshake, peer, cx, Proof { method, data })
    }
}

/// Returns that a NAT is on the way, and none is allowed (RFC 4555 §3.9).
fn refuse_nat(cx: &mut Context<'_>) -> Failure {
    cx.count(Counter::NatRefused);
    Failure::told(Reason::Nat, notify::UNEXPECTED_NAT_DETECTED)
}
