//! Hostile messages of unknown senders and of peers: they cause no panic and harm nobody else.

use crate::pair::Pair;
use std::{net::SocketAddr, time::Duration};
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, terminal};
use wayfarer::{
    primitives::{OsRandom, Primitives},
    sim::{mutation::mutated, random::Random},
};
use wayfarer_mobility::{
    crypto::Secret,
    ike::{
        event::Event,
        protection::Protection,
        schedule::IkeSaKeys,
        settings::Settings,
        suite::IkeSuite,
        view::State,
        wire::{
            self, Delete, ExchangeType, HEADER, Header, Notify, Payload, Proposal, TrafficSelector,
            Transform, flags, notify,
        },
    },
    path::Addresses,
};

fn from(address: [u8; 4], port: u16) -> Addresses {
    Addresses { local: SocketAddr::from((GATEWAY, port)), remote: SocketAddr::from((address, port)) }
}

/// Writes the message's true length to its header, because others are dropped early.
fn fix_length(message: &mut [u8]) {
    let length = message.len() as u32;
    if let Some(field) = message.get_mut(24..HEADER) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[test]
fn mutated_messages_of_unknown_senders_harm_nobody() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.terminal.work(pair.now)[0].1.clone();
    pair.gateway.endpoint.handle_datagram(pair.now, from(TERMINAL, 500), &first);
    let answer = pair.gateway.work(pair.now)[0].1.clone();
    pair.terminal.endpoint.handle_datagram(pair.now, from(GATEWAY, 500), &answer);
    pair.terminal = Pair::new(gateway(), terminal()).terminal;
    pair.now += Duration::from_secs(60);
    pair.gateway.endpoint.handle_timeout(pair.now);
    pair.connect();
    let mut random = Random(5);
    for n in 0..20_000 {
        let (seed, other) = if n % 2 == 0 { (&first, &answer) } else { (&answer, &first) };
        let mut message = match n % 50 {
            0 => vec![0; random.index(65_536)],
            1 => {
                let mut message = seed.clone();
                message.resize(random.index(65_536), 0);
                message
            }
            _ => mutated(seed, other, &mut random),
        };
        fix_length(&mut message);
        pair.gateway.endpoint.handle_datagram(pair.now, from([198, 51, 100, n as u8], 500), &message);
        drop(pair.gateway.work(pair.now));
        pair.now += Duration::from_millis(5);
    }
    assert!(pair.gateway.endpoint.half_open() <= 6_000);
    let connected = pair.gateway.endpoint.peers().filter(|peer| peer.state() == State::Up).count();
    assert_eq!(connected, 1);
    pair.now += Duration::from_secs(60);
    pair.gateway.endpoint.handle_timeout(pair.now);
    assert_eq!(pair.gateway.endpoint.half_open(), 0);
}

/// Connects a pair, and returns it with the SPIs, suite and keys of its IKE SA.
fn with_keys() -> (Pair, [u64; 2], IkeSuite, IkeSaKeys) {
    let mut pair = Pair::with(gateway(), terminal(), Settings { log_keys: true, ..Settings::default() });
    pair.connect();
    let found = pair.gateway.events.iter().find_map(|event| match event {
        Event::IkeSaKeys { spis, suite, encr, integ } => {
            Some((*spis, suite.clone(), encr.clone(), integ.clone()))
        }
        _ => None,
    });
    let (spis, suite, [ei, er], [ai, ar]) = found.unwrap();
    let none = Secret::default;
    (pair, spis, suite, IkeSaKeys { d: none(), ai, ar, ei, er, pi: none(), pr: none() })
}

/// Makes the exchange type, the payloads and the first payload's type of a valid request.
fn request(random: &mut Random, nonce: &[u8; 32]) -> (ExchangeType, Vec<u8>, u8) {
    let everything = vec![TrafficSelector::range([0; 4].into(), [255; 4].into())];
    let transforms = [(1, 20, Some(256)), (2, 6, None), (4, 31, None), (5, 0, None)];
    let transforms = transforms.map(|(kind, id, key_bits)| Transform { kind, id, key_bits });
    let esp = random.percent(50);
    let (protocol, spi) = if esp { (3, vec![1, 2, 3, 4]) } else { (1, vec![5; 8]) };
    let fits = |t: &&Transform| if esp { t.kind != 2 } else { t.kind != 5 };
    let transforms = transforms.iter().filter(fits).copied().collect();
    let exchange = if random.percent(60) { ExchangeType::CreateChildSa } else { ExchangeType::Informational };
    let payloads = match exchange {
        ExchangeType::CreateChildSa => vec![
            Payload::Sa(vec![Proposal { number: 1, protocol, spi, transforms }]),
            Payload::Nonce(nonce),
            Payload::Ke { method: 31, data: nonce },
            Payload::TsI(everything.clone()),
            Payload::TsR(everything),
        ],
        _ => vec![
            Payload::Notify(Notify::new(notify::UPDATE_SA_ADDRESSES, &[])),
            Payload::Notify(Notify::new(notify::NAT_DETECTION_SOURCE_IP, &nonce[..20])),
            Payload::Notify(Notify::new(notify::NAT_DETECTION_DESTINATION_IP, &nonce[..20])),
            Payload::Notify(Notify::new(notify::COOKIE2, nonce)),
            Payload::Delete(Delete { protocol: 3, spis: vec![7, 8] }),
        ],
    };
    let mut body = vec![];
    let first = wire::emit(&payloads, &mut body);
    (exchange, body, first)
}

#[test]
fn mutated_messages_of_a_peer_harm_only_that_peer() {
    let mut random = Random(9);
    let mut answers = 0;
    for _ in 0..60 {
        let (mut pair, [spi_i, spi_r], suite, keys) = with_keys();
        let mut counter = 1 << 40;
        for message_id in 2..40 {
            let mut nonce = [0; 32];
            nonce.fill_with(|| random.next() as u8);
            let (exchange, body, first) = request(&mut random, &nonce);
            let body = mutated(&body, &body, &mut random);
            let header = Header {
                spi_i,
                spi_r,
                next: 0,
                version: wire::VERSION,
                exchange: exchange.number(),
                flags: flags::INITIATOR,
                message_id,
                length: 0,
            };
            let protection =
                Protection { crypto: &Primitives, suite: &suite, keys: &keys, from_initiator: true };
            for message in protection.seal(&OsRandom, header, first, body, None, &mut counter) {
                pair.gateway.endpoint.handle_datagram(pair.now, from(TERMINAL, 4500), &message);
            }
            answers += pair.gateway.work(pair.now).len();
        }
        let peers: Vec<_> = pair.gateway.endpoint.peers().map(|peer| peer.id()).collect();
        peers.into_iter().for_each(|peer| pair.gateway.endpoint.close(pair.now, peer));
        for _ in 0..200 {
            pair.now += Duration::from_secs(1);
            pair.gateway.endpoint.handle_timeout(pair.now);
            drop(pair.gateway.work(pair.now));
        }
        assert_eq!((pair.gateway.endpoint.peers().count(), pair.gateway.endpoint.poll_timeout()), (0, None));
        let all = format!("{:?}", pair.gateway.endpoint);
        for empty in [" spis: {}", "child_spis: {}", "children: {}", "task_owners: {}", "used: {}"] {
            assert!(all.contains(empty), "not {empty}: {all}");
        }
    }
    assert!(answers > 60 * 20, "{answers}");
}
