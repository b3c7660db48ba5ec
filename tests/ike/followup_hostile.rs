//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4) with an authenticated peer that breaks the rules.

use crate::{
    followup::with_more,
    insider::{Answer, Insider},
};
use std::time::Duration;
use wayfarer::{
    primitives::Primitives,
    sim::ike::{
        connections::{TERMINAL, gateway, prefix, terminal},
        side::to_gateway,
    },
};
use wayfarer_mobility::{
    crypto::{Crypto, Kex},
    ike::{
        bounds,
        connection::Connection,
        counter::Counter,
        event::Event,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
        wire::{
            Delete, ExchangeType, Header, Notify, Payload, Proposal, TrafficSelector, Transform, flags, kind,
            notified, notify,
        },
    },
};

const MOMENT: Duration = Duration::from_millis(10);

/// A peer that knows the keys, and whose exchanges have small additional key exchanges.
struct Hostile {
    insider: Insider,
    /// The terminal's SPI of the next SA.
    spi: u32,
}

/// Returns a public value.
fn public(kex: Kex) -> Vec<u8> {
    Primitives.kex_begin(kex).unwrap().1
}

/// Returns the ticket in the payloads.
fn ticket(payloads: &[Payload<'_>]) -> Option<Vec<u8>> {
    notified(payloads, notify::ADDITIONAL_KEY_EXCHANGE).map(<[u8]>::to_vec)
}

/// Returns the transforms of the gateway's offer, for IKE or ESP.
fn transforms(is_ike: bool) -> Vec<Transform> {
    let all = [(1, 20, Some(256)), (2, 6, None), (4, 31, None), (6, 19, None), (7, 20, None), (5, 0, None)];
    let is_used = |(kind, ..): &(u8, u16, Option<u16>)| if is_ike { *kind != 5 } else { *kind != 2 };
    let transform = |(kind, id, key_bits)| Transform { kind, id, key_bits };
    all.into_iter().filter(is_used).map(transform).collect()
}

/// Returns a selector of all IPv4 addresses.
fn everything() -> Vec<TrafficSelector> {
    vec![prefix([0; 4], [255; 4])]
}

/// Returns the proposal for a child SA with this SPI.
fn proposal(spi: u32) -> Proposal {
    let spi = spi.to_be_bytes().to_vec();
    Proposal { number: 1, protocol: 3, spi, transforms: transforms(false) }
}

impl Hostile {
    fn new() -> Self {
        let with = |connection| {
            let offer = Offer { kex: vec![Kex::X25519], ..with_more(&[Kex::Ecp256, Kex::Ecp384]) };
            Connection { ike: vec![offer.clone()], esp: vec![offer], fragment: None, ..connection }
        };
        let mut insider = Insider::new(with(gateway()), with(terminal()), Settings::default());
        // Two exchanges IKE_INTERMEDIATE came before IKE_AUTH.
        insider.skip(2);
        Self { insider, spi: 0x1000 }
    }

    /// Sends a request, and returns the ticket in the gateway's answer.
    fn ask(&mut self, exchange: ExchangeType, payloads: &[Payload<'_>]) -> Result<Option<Vec<u8>>, u16> {
        let message = self.insider.seal(exchange, payloads);
        let pair = &mut self.insider.pair;
        pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(TERMINAL, 4500), &message);
        let answers = pair.down();
        let [(_, answer)] = &answers[..] else { panic!("{} answers", answers.len()) };
        self.insider.read(answer, |payloads| {
            let error = payloads.iter().find_map(|payload| match payload {
                Payload::Notify(n) if notify::is_error(n.kind) => Some(n.kind),
                _ => None,
            });
            error.map_or_else(|| Ok(ticket(payloads)), Err)
        })
    }

    /// Asks for a new child SA, or for one in place of `old`, and returns the ticket.
    fn child(&mut self, old: Option<u32>) -> Result<Option<Vec<u8>>, u16> {
        self.spi += 1;
        let old = old.map(u32::to_be_bytes);
        let rekeyed = old.as_ref().map(|old| {
            Payload::Notify(Notify { protocol: 3, spi: &old[..], kind: notify::REKEY_SA, data: &[] })
        });
        let data = public(Kex::X25519);
        let payloads: Vec<_> = rekeyed
            .into_iter()
            .chain([
                Payload::Sa(vec![proposal(self.spi)]),
                Payload::Nonce(&[7; 32]),
                Payload::Ke { method: 31, data: &data },
                Payload::TsI(everything()),
                Payload::TsR(everything()),
            ])
            .collect();
        self.ask(ExchangeType::CreateChildSa, &payloads)
    }

    /// Asks for a successor of the IKE SA, and returns the ticket.
    fn ike_sa(&mut self) -> Result<Option<Vec<u8>>, u16> {
        let (spi, data) = (vec![9; 8], public(Kex::X25519));
        let proposal = Proposal { number: 1, protocol: 1, spi, transforms: transforms(true) };
        let payloads =
            [Payload::Sa(vec![proposal]), Payload::Nonce(&[7; 32]), Payload::Ke { method: 31, data: &data }];
        self.ask(ExchangeType::CreateChildSa, &payloads)
    }

    /// Sends the next key exchange.
    fn follow(&mut self, kex: Kex, ticket: &[u8]) -> Result<Option<Vec<u8>>, u16> {
        let data = public(kex);
        let payloads = [
            Payload::Ke { method: kex.transform(), data: &data },
            Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, ticket),
        ];
        self.ask(ExchangeType::FollowupKe, &payloads)
    }

    /// Lets the gateway begin to rekey.
    fn begin_rekey(&mut self, ike_sa: bool) {
        let pair = &mut self.insider.pair;
        let peer = pair.connected_peers()[1][0];
        pair.gateway.endpoint.rekey(pair.now, peer, ike_sa);
    }

    /// Takes the messages that the gateway sends, and returns their exchanges.
    fn sent(&mut self) -> Vec<ExchangeType> {
        let sent = self.insider.pair.down();
        let exchange = |message: &[u8]| Header::parse(message).unwrap().exchange;
        sent.iter().map(|(_, message)| ExchangeType::from_number(exchange(message)).unwrap()).collect()
    }

    /// Answers the gateway's request with this message ID.
    fn answer(&mut self, exchange: ExchangeType, message_id: u32, payloads: &[Payload<'_>]) {
        let flags = flags::INITIATOR | flags::RESPONSE;
        let answer = self.insider.protect_payloads(exchange, flags, message_id, payloads);
        let pair = &mut self.insider.pair;
        pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(TERMINAL, 4500), &answer);
    }

    /// Agrees to the gateway's request for a child SA, with this ticket.
    fn agree(&mut self, ticket: Option<&[u8]>) {
        let child = self.insider.pair.gateway.newest_child();
        let (local, remote, data) = (child.local.clone(), child.remote.clone(), public(Kex::X25519));
        let ticket = ticket.map(|ticket| Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, ticket));
        let payloads: Vec<_> = [
            Payload::Sa(vec![proposal(0x9001)]),
            Payload::Nonce(&[7; 32]),
            Payload::Ke { method: 31, data: &data },
            Payload::TsI(local),
            Payload::TsR(remote),
        ]
        .into_iter()
        .chain(ticket)
        .collect();
        self.answer(ExchangeType::CreateChildSa, 0, &payloads);
    }

    /// Returns the number of the gateway's SPIs, of IKE SAs and of child SAs.
    fn spis(&self) -> (usize, usize) {
        let sizes = self.insider.pair.gateway.endpoint.state_sizes();
        (sizes.spis, sizes.child_spis)
    }
}

#[test]
fn only_the_ticket_continues_an_exchange() {
    let mut peer = Hostile::new();
    assert_eq!(peer.follow(Kex::Ecp256, &[]), Err(notify::STATE_NOT_FOUND), "there is none");
    let first = peer.child(None).unwrap().unwrap();
    assert_eq!(peer.follow(Kex::Ecp256, &[]), Err(notify::STATE_NOT_FOUND), "empty");
    assert_eq!(peer.follow(Kex::Ecp256, &[0; 16]), Err(notify::STATE_NOT_FOUND), "wrong");
    let data = public(Kex::Ecp256);
    let without = [Payload::Ke { method: 19, data: &data }];
    assert_eq!(peer.ask(ExchangeType::FollowupKe, &without), Err(notify::STATE_NOT_FOUND), "missing");
    let second = peer.follow(Kex::Ecp256, &first).unwrap().unwrap();
    assert_ne!(first, second);
    assert_eq!(peer.follow(Kex::Ecp384, &first), Err(notify::STATE_NOT_FOUND), "used");
    assert_eq!(peer.insider.children(), 1);
    assert_eq!(peer.follow(Kex::Ecp384, &second), Ok(None));
    assert_eq!(peer.insider.children(), 2);
    assert_eq!(peer.follow(Kex::Ecp384, &second), Err(notify::STATE_NOT_FOUND), "over");
    assert_eq!(peer.spis(), (1, 2));
}

#[test]
fn key_exchange_must_be_the_next_one() {
    let mut peer = Hostile::new();
    for (wrong, data) in [(Kex::Ecp384, public(Kex::Ecp384)), (Kex::Ecp256, vec![0; 64])] {
        let first = peer.child(None).unwrap().unwrap();
        assert_eq!(peer.spis(), (1, 2));
        let payloads = [
            Payload::Ke { method: wrong.transform(), data: &data },
            Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, &first),
        ];
        assert_eq!(peer.ask(ExchangeType::FollowupKe, &payloads), Err(notify::INVALID_SYNTAX));
        assert_eq!(peer.follow(Kex::Ecp256, &first), Err(notify::STATE_NOT_FOUND), "given up");
        assert_eq!((peer.spis(), peer.insider.children()), ((1, 1), 1));
    }
    let first = peer.child(None).unwrap().unwrap();
    let payloads = [Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, &first)];
    assert_eq!(peer.ask(ExchangeType::FollowupKe, &payloads), Err(notify::INVALID_SYNTAX));
}

#[test]
fn exchange_that_the_peer_does_not_continue_is_forgotten() {
    for ike_sa in [true, false] {
        let mut peer = Hostile::new();
        let first = if ike_sa { peer.ike_sa() } else { peer.child(None) }.unwrap().unwrap();
        let reserved = if ike_sa { (2, 1) } else { (1, 2) };
        peer.insider.pass(bounds::FOLLOWUP_WAIT - MOMENT);
        assert_eq!(peer.spis(), reserved);
        let second = peer.follow(Kex::Ecp256, &first).unwrap().unwrap();
        peer.insider.pass(bounds::FOLLOWUP_WAIT - MOMENT);
        assert_eq!(peer.spis(), reserved, "each key exchange has its time");
        peer.insider.pass(2 * MOMENT);
        assert_eq!(peer.spis(), (1, 1));
        assert_eq!(peer.follow(Kex::Ecp384, &second), Err(notify::STATE_NOT_FOUND));
    }
}

#[test]
fn peer_has_one_unfinished_exchange() {
    let mut peer = Hostile::new();
    for _ in 0..20 {
        let child = peer.child(None).unwrap().unwrap();
        assert_eq!(peer.spis(), (1, 2));
        let ike_sa = peer.ike_sa().unwrap().unwrap();
        assert_eq!(peer.spis(), (2, 1));
        assert_eq!(peer.follow(Kex::Ecp256, &child), Err(notify::STATE_NOT_FOUND));
        let second = peer.follow(Kex::Ecp256, &ike_sa).unwrap().unwrap();
        assert!(peer.child(Some(1)).is_err(), "no such child SA");
        assert_eq!(peer.follow(Kex::Ecp384, &second), Err(notify::STATE_NOT_FOUND));
        assert_eq!(peer.spis(), (1, 1));
    }
}

#[test]
fn end_of_an_sa_ends_the_exchanges_for_its_successor() {
    for ike_sa in [true, false] {
        let mut peer = Hostile::new();
        let old = peer.insider.first_spi();
        let first = if ike_sa { peer.ike_sa() } else { peer.child(Some(old)) }.unwrap().unwrap();
        if ike_sa {
            let delete = [Payload::Delete(Delete { protocol: 1, spis: vec![] })];
            assert_eq!(peer.insider.ask(ExchangeType::Informational, &delete), Answer::Other);
            assert_eq!(peer.insider.pair.gateway.end_reasons(), [Reason::Deleted]);
            assert_eq!(peer.spis(), (1, 0), "only the deleted one, for a while");
            peer.insider.pass(Duration::from_secs(10));
            assert_eq!(peer.spis(), (0, 0));
        } else {
            peer.insider.delete(old);
            let second = peer.follow(Kex::Ecp256, &first);
            assert_eq!(second, Err(notify::TEMPORARY_FAILURE));
            assert_eq!((peer.spis(), peer.insider.children()), ((1, 0), 0));
        }
    }
}

#[test]
fn followup_of_an_unauthenticated_peer_is_ignored() {
    let with = |connection| Connection { ike: vec![with_more(&[Kex::Ecp384])], ..connection };
    let mut insider = Insider::after(1, with(gateway()), with(terminal()));
    let data = public(Kex::Ecp384);
    let payloads =
        [Payload::Ke { method: 20, data: &data }, Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, &[7; 16])];
    assert_eq!(insider.ask(ExchangeType::FollowupKe, &payloads), Answer::None);
    assert_eq!(insider.pair.gateway.endpoint.count(Counter::UnknownExchange), 1);
}

/// The gateway's own requests, to a peer whose answers break the rules.
#[test]
fn gateway_begins_anew_after_an_unusable_answer() {
    let ticket = [5; 3];
    let refusal = |kind| Payload::notify(kind, &[]);
    let data = public(Kex::Ecp384);
    for answer in [
        vec![refusal(notify::STATE_NOT_FOUND)],
        vec![Payload::Ke { method: 20, data: &data }],
        vec![Payload::Ke { method: 19, data: &data[..10] }],
        vec![Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, &ticket)],
        vec![],
    ] {
        let mut peer = Hostile::new();
        peer.begin_rekey(false);
        assert_eq!(peer.sent(), [ExchangeType::CreateChildSa]);
        peer.agree(Some(&ticket));
        assert_eq!(peer.sent(), [ExchangeType::FollowupKe]);
        // It refuses the same rekey from now on.
        let old = peer.insider.first_spi();
        assert_eq!(peer.child(Some(old)), Err(notify::TEMPORARY_FAILURE));
        assert_eq!(peer.ike_sa(), Err(notify::TEMPORARY_FAILURE));
        peer.answer(ExchangeType::FollowupKe, 1, &answer);
        drop(peer.insider.pair.down());
        assert_eq!(peer.spis(), (1, 1), "what was reserved is released");
        let events = &peer.insider.pair.gateway.events;
        assert!(events.iter().any(|event| matches!(event, Event::CreateFailed { .. })), "{events:?}");
    }
}

#[test]
fn gateway_does_not_go_on_without_a_ticket() {
    let mut peer = Hostile::new();
    peer.begin_rekey(false);
    assert_eq!(peer.sent(), [ExchangeType::CreateChildSa]);
    peer.agree(None);
    assert_eq!((peer.sent(), peer.spis()), (vec![], (1, 1)));
}

/// The peer answers the gateway's request while the gateway still computes its answer to the same
/// request of the peer.
#[test]
fn request_in_progress_gives_way_to_an_agreed_exchange() {
    let mut peer = Hostile::new();
    peer.begin_rekey(false);
    assert_eq!(peer.sent(), [ExchangeType::CreateChildSa]);
    let old = peer.insider.first_spi().to_be_bytes();
    let data = public(Kex::X25519);
    let payloads = [
        Payload::Notify(Notify { protocol: 3, spi: &old, kind: notify::REKEY_SA, data: &[] }),
        Payload::Sa(vec![proposal(0x9002)]),
        Payload::Nonce(&[7; 32]),
        Payload::Ke { method: 31, data: &data },
        Payload::TsI(everything()),
        Payload::TsR(everything()),
    ];
    let message = peer.insider.seal(ExchangeType::CreateChildSa, &payloads);
    let pair = &mut peer.insider.pair;
    pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(TERMINAL, 4500), &message);
    peer.agree(Some(&[5; 3]));
    let sent = peer.insider.pair.down();
    assert_eq!(sent.len(), 2);
    let is_refusal =
        |payloads: &[Payload<'_>]| payloads[0] == Payload::notify(notify::TEMPORARY_FAILURE, &[]);
    assert!(peer.insider.read(&sent[0].1, is_refusal));
    assert!(peer.insider.read(&sent[1].1, |payloads| payloads[0].kind() == kind::KE));
    assert_eq!(peer.spis(), (1, 2));
}
