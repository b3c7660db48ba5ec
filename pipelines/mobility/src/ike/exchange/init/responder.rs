//! The responder's side of IKE_SA_INIT.

use super::message::{InitMessage, VENDOR_ID, hash_numbers};
use crate::{
    crypto::{Refused, Secret, SignatureHashes, Verifier},
    ike::{
        bounds,
        connection::RemoteAuth,
        connections::Connections,
        context::Context,
        counter::Counter,
        event::PeerId,
        nat::NatDetection,
        peer::{
            Peer, Phase,
            choose::{self, Candidates},
            failure::Failure,
            ike_sa::IkeSa,
            responder::{InitKex, Ready, Responder, ResponderHandshake, ResponderState},
            state::PendingTask,
            transcript::Transcript,
        },
        reason::Reason,
        schedule::{IkeSaKeys, NONCE},
        wire::{self, ErrorNotify, ExchangeType, Header, Payload, certificate, notify},
    },
    path::Addresses,
    rate::Rate,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};

/// Bytes of a CERTREQ payload besides the authorities: its header and the encoding (RFC 7296 §3.7).
const CERT_REQ_OVERHEAD: usize = 5;

/// Bytes of an authority's hash (RFC 7296 §3.7).
const AUTHORITY_LEN: usize = 20;

impl Peer {
    /// Creates a peer from its first message. The response follows once the key exchange is done.
    ///
    /// # Errors
    /// The notify that refuses the message. Nothing is stored then.
    pub(in crate::ike) fn answer_init(
        cx: &mut Context<'_>,
        id: PeerId,
        header: &Header,
        message: &[u8],
        request: InitMessage,
        addresses: Addresses,
    ) -> Result<Self, ErrorNotify> {
        let Some(chosen) = choose::choose_suite(cx.connections, addresses, &request) else {
            return Err(notify::NO_PROPOSAL_CHOSEN.into());
        };
        let kex = chosen.suite.kex;
        // The public value must be of the chosen method (RFC 7296 §1.2, §3.4).
        if request.method != kex.transform() {
            return Err(ErrorNotify::invalid_ke_payload(kex.transform()));
        }
        // The identity comes later. Until then, every connection that accepts the choice is
        // possible.
        let candidates = Candidates::new(cx.connections, addresses, &chosen.suite);

        let mut peer = Self::new(id, cx.now, addresses);
        let spi = cx.draw_spi(id);
        let nat =
            request.nat.as_ref().map(|detection| detection.nat(cx.crypto, [header.spi_i, 0], addresses));
        peer.nat = nat.unwrap_or_default();
        peer.is_wayfarer = request.is_wayfarer && cx.settings.vendor_id;
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

    /// Sends the response to the peer's first message again, if `message` repeats it and it was
    /// answered (RFC 7296 §2.1).
    pub(in crate::ike) fn repeat_init(&mut self, cx: &mut Context<'_>, message: &[u8], addresses: Addresses) {
        let Phase::Responder(responder) = &mut self.phase else { return };
        let ResponderHandshake { transcript: Transcript { first, second, .. }, repeats, .. } =
            &mut responder.handshake;
        if second.is_empty() || first != message {
            return;
        }
        // The source address is not proved, so it must not receive more than a peer on a lossy path
        // needs.
        if repeats.admits(cx.now, bounds::REPEAT_BURST, bounds::REPEAT_REFILL) {
            cx.count(Counter::Repeated);
            cx.send(addresses, second);
        } else {
            cx.count(Counter::TooOften);
        }
    }
}

impl InitKex {
    /// Answers the peer's first message.
    pub(in crate::ike) fn handle_kex_answer(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) -> Result<ResponderState, Failure> {
        // An invalid public value: its sender can only start over.
        let (data, shared) = result.map_err(|Refused| Reason::KeyExchange)?;
        let Self { chosen } = self;
        let suite = &chosen.suite;
        let ResponderHandshake { candidates, transcript, .. } = handshake;
        let (spi_i, spi_r) = (transcript.spi_i, transcript.spi_r);
        let keys = IkeSaKeys::first(cx.crypto, suite, &shared, transcript.seed());

        let nat = NatDetection::new(cx.crypto, [spi_i, spi_r], peer.addresses);
        let known = hash_numbers(SignatureHashes::ALL);
        let limits = candidates.fitting(cx.connections).filter_map(|connection| connection.fragment);
        let limit = limits.min().filter(|_| handshake.fragments);
        handshake.ppk &= candidates.fitting(cx.connections).any(|connection| connection.ppk.is_some());
        let mut payloads = vec![
            Payload::Sa(vec![suite.proposal(chosen.number, &[])]),
            Payload::Ke { method: suite.kex.transform(), data: &data },
            Payload::Nonce(&transcript.nonce_r),
        ];
        payloads.extend(nat.payloads());
        let cert_req_at = payloads.len();
        if verifiers(candidates, cx.connections).any(|verifier| verifier.wants_ocsp()) {
            payloads.push(Payload::CertReq { encoding: certificate::OCSP_CONTENT, authorities: &[] });
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
        if peer.is_wayfarer {
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
        let mut message = wire::emit_message(header, &payloads);
        // A message of this exchange cannot be fragmented (RFC 7383 §1). The request is a hint (RFC 7296
        // §3.7), so a shorter one will do.
        let room = bounds::INIT_RESPONSE.saturating_sub(message.len() + CERT_REQ_OVERHEAD);
        let authorities = authorities(candidates, cx.connections, room / AUTHORITY_LEN);
        if !authorities.is_empty() {
            let encoding = certificate::X509_SIGNATURE;
            payloads.insert(cert_req_at, Payload::CertReq { encoding, authorities: &authorities });
            message = wire::emit_message(header, &payloads);
        }
        cx.send(peer.addresses, &message);
        transcript.second = message;
        cx.log_keys([spi_i, spi_r], suite, &keys);

        let mut ike_sa = IkeSa::new(false, [spi_i, spi_r], suite.clone(), keys);
        ike_sa.expected = 1;
        ike_sa.limit = limit;
        peer.active = ike_sa.local_spi();
        // There may be many half-open peers, so no capacity beyond what is needed.
        peer.ike_sas.reserve_exact(1);
        peer.ike_sas.push(ike_sa);
        Ok(ResponderState::Ready(Ready { kex_done: 0 }))
    }
}

/// Returns the verifiers of the connections whose peers have certificates.
fn verifiers<'a>(
    candidates: &'a Candidates,
    connections: &'a Connections,
) -> impl Iterator<Item = &'a dyn Verifier> {
    candidates.fitting(connections).filter_map(|connection| match &connection.remote_auth {
        RemoteAuth::Key(verifier) => Some(&**verifier),
        _ => None,
    })
}

/// Returns the first authorities that the connections trust, at most this many, without duplicates (RFC
/// 7296 §3.7). It compares each with those alone, because senders of first messages pay nothing for it.
fn authorities(candidates: &Candidates, connections: &Connections, most: usize) -> Vec<u8> {
    let mut authorities: Vec<u8> = Vec::new();
    let all = verifiers(candidates, connections);
    for hash in all.flat_map(|verifier| verifier.authorities().chunks(AUTHORITY_LEN)) {
        if authorities.len() >= most * AUTHORITY_LEN {
            break;
        }
        if !authorities.chunks(AUTHORITY_LEN).any(|known| known == hash) {
            authorities.extend_from_slice(hash);
        }
    }
    authorities
}
