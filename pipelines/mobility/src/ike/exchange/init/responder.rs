//! IKE_SA_INIT as its responder.

use super::message::{InitMessage, VENDOR_ID, hash_numbers};
use crate::{
    crypto::{Refused, Secret, SignatureHashes},
    ike::{
        bounds,
        connection::{Connection, RemoteAuth},
        context::Context,
        counter::Counter,
        event::{PeerId, Reason},
        exchange::auth::message::X509_SIGNATURE,
        nat::NatDetection,
        peer::{
            Peer, Phase,
            choose::Candidates,
            failure::Failure,
            ike_sa::IkeSa,
            responder::{InitKex, Ready, Responder, ResponderHandshake, ResponderState},
            state::PendingTask,
            transcript::Transcript,
        },
        proposal,
        schedule::{IkeSaKeys, NONCE},
        wire::{self, ErrorNotify, ExchangeType, Header, Payload, notify},
    },
    path::Addresses,
    rate::Rate,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};

impl Peer {
    /// Returns the peer whose first message this is. Its answer follows when the key exchange is
    /// done.
    ///
    /// # Errors
    /// The notify that refuses it. Nothing is kept of it then.
    pub(in crate::ike) fn answer_init(
        cx: &mut Context<'_>,
        id: PeerId,
        header: &Header,
        message: &[u8],
        request: InitMessage,
        addresses: Addresses,
    ) -> Result<Self, ErrorNotify> {
        let is_at = |c: &Connection| c.is_at(addresses.local.ip(), addresses.remote.ip());
        let at: Vec<usize> = (0..).zip(cx.connections).filter(|(_, c)| is_at(c)).map(|(i, _)| i).collect();
        let fits = |connection: &Connection| {
            let chosen = proposal::choose_ike(&connection.ike, &request.proposals)?;
            // Further key exchanges go by IKE_INTERMEDIATE only (RFC 9370 §2.2.1).
            (request.intermediate || chosen.suite.more_kex.is_empty()).then_some(chosen)
        };
        let Some(chosen) = at.iter().find_map(|i| fits(cx.connections.get(*i)?)) else {
            return Err(notify::NO_PROPOSAL_CHOSEN.into());
        };
        let kex = chosen.suite.kex;
        // The public value must be of the chosen method (RFC 7296 §1.2, §3.4).
        if request.method != kex.transform() {
            return Err(ErrorNotify::invalid_ke_payload(kex.transform()));
        }
        // Who it is comes later: all connections that take what was chosen are still possible.
        let candidates = Candidates::new(cx.connections, at.into_iter(), &chosen.suite, chosen.number);

        let mut peer = Self::new(id, cx.now, addresses);
        let spi = cx.draw_spi(id);
        let nat = request.nat.as_ref().map(|said| said.nat(cx.crypto, [header.spi_i, 0], addresses));
        peer.nat = nat.unwrap_or_default();
        peer.knows_us = request.is_ours;
        let transcript = Transcript {
            spi_i: header.spi_i,
            spi_r: spi,
            nonce_i: request.nonce,
            nonce_r: cx.random.bytes(NONCE),
            first: message.to_vec(),
            ..Transcript::default()
        };
        let handshake = ResponderHandshake {
            candidates,
            transcript,
            hashes: request.hashes,
            nat: request.nat.filter(|_| !peer.nat.any()).map(Box::new),
            fragments: request.fragments,
            ppk: request.ppk,
            repeats: Rate::default(),
        };
        let state = ResponderState::InitKex(InitKex { chosen: Box::new(chosen) });
        peer.phase = Phase::Responder(Box::new(Responder { handshake, state }));
        peer.start(cx, Task::KexAnswer(kex, request.kex), PendingTask::Handshake);
        Ok(peer)
    }

    /// Sends the answer to its first message again, if `message` is that again and it was answered
    /// (RFC 7296 §2.1).
    pub(in crate::ike) fn repeat_init(&mut self, cx: &mut Context<'_>, message: &[u8], addresses: Addresses) {
        let Phase::Responder(responder) = &mut self.phase else { return };
        let ResponderHandshake { transcript: Transcript { first, second, .. }, repeats, .. } =
            &mut responder.handshake;
        if second.is_empty() || first != message {
            return;
        }
        // Whose address that is, is not proved: it must not draw more than a peer in bad weather
        // needs.
        if repeats.admits(cx.now, bounds::REPEATS, bounds::REPEAT) {
            cx.count(Counter::Repeated);
            cx.send(addresses, second);
        } else {
            cx.count(Counter::TooOften);
        }
    }
}

impl InitKex {
    /// Answers the peer's first message.
    pub(in crate::ike) fn answered(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) -> Result<ResponderState, Failure> {
        // A public value that is none: its sender can only begin anew.
        let (data, shared) = result.map_err(|Refused| Reason::KeyExchange)?;
        let Self { chosen } = self;
        let suite = &chosen.suite;
        let ResponderHandshake { candidates, transcript, .. } = handshake;
        let (spi_i, spi_r) = (transcript.spi_i, transcript.spi_r);
        let keys = IkeSaKeys::first(cx.crypto, suite, &shared, transcript.seed());

        let nat = NatDetection::new(cx.crypto, [spi_i, spi_r], peer.addresses);
        let known = hash_numbers(SignatureHashes::ALL);
        let authorities = authorities(candidates, cx.connections);
        let limits = candidates.fitting(cx.connections).filter_map(|connection| connection.fragment);
        let limit = limits.min().filter(|_| handshake.fragments);
        handshake.ppk &= candidates.fitting(cx.connections).any(|connection| connection.ppk.is_some());
        let mut payloads = vec![
            Payload::Sa(vec![suite.proposal(chosen.number, &[])]),
            Payload::Ke { method: suite.kex.transform(), data: &data },
            Payload::Nonce(&transcript.nonce_r),
        ];
        payloads.extend(nat.payloads());
        if !authorities.is_empty() {
            payloads.push(Payload::CertReq { encoding: X509_SIGNATURE, authorities: &authorities });
        }
        if limit.is_some() {
            payloads.push(Payload::notify(notify::IKEV2_FRAGMENTATION_SUPPORTED, &[]));
        }
        payloads.push(Payload::notify(notify::SIGNATURE_HASH_ALGORITHMS, &known));
        if !suite.more_kex.is_empty() {
            payloads.push(Payload::notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]));
        }
        if handshake.ppk {
            payloads.push(Payload::notify(notify::USE_PPK, &[]));
        }
        if peer.knows_us {
            payloads.push(Payload::Vendor(&VENDOR_ID));
        }
        let header = Header {
            spi_i,
            spi_r,
            next: 0,
            version: wire::VERSION,
            exchange: ExchangeType::SaInit.number(),
            flags: wire::flags::RESPONSE,
            message_id: 0,
            length: 0,
        };
        let message = wire::emit_message(header, &payloads);
        cx.send(peer.addresses, &message);
        transcript.second = message;
        cx.log_keys([spi_i, spi_r], suite, &keys);

        let mut ike_sa = IkeSa::new(false, [spi_i, spi_r], suite.clone(), keys);
        ike_sa.expected = 1;
        ike_sa.limit = limit;
        peer.active = ike_sa.local_spi();
        // Many may be half open: no more room than it takes.
        peer.ike_sas.reserve_exact(1);
        peer.ike_sas.push(ike_sa);
        Ok(ResponderState::Ready(Ready { kex_done: 0 }))
    }
}

/// Returns the authorities that the connections trust, each once (RFC 7296 §3.7).
fn authorities(candidates: &Candidates, connections: &[Connection]) -> Vec<u8> {
    let mut authorities: Vec<u8> = Vec::new();
    for connection in candidates.fitting(connections) {
        let RemoteAuth::Key(verifier) = &connection.remote_auth else { continue };
        for hash in verifier.authorities().chunks(20) {
            if !authorities.chunks(20).any(|known| known == hash) {
                authorities.extend_from_slice(hash);
            }
        }
    }
    authorities
}
