//! Hostile messages of unknown senders and of peers: they cause no panic and harm nobody else.

use crate::{insider::Insider, pair::Pair};
use std::time::Duration;
use wayfarer::sim::{
    ike::{
        connections::{TERMINAL, gateway, terminal},
        side::to_gateway,
    },
    mutation::mutated,
    random::Random,
};
use wayfarer_mobility::ike::{
    settings::Settings,
    sizes::StateSizes,
    view::State,
    wire::{
        self, Delete, ExchangeType, HEADER, Notify, Payload, Proposal, TrafficSelector, Transform, notify,
    },
};

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
    let request = pair.up().remove(0);
    pair.deliver_up(&request);
    let (first, answer) = (request.1, pair.down().remove(0).1);
    pair.replace_terminal(terminal());
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
        pair.gateway.endpoint.handle_datagram(pair.now, to_gateway([198, 51, 100, n as u8], 500), &message);
        drop(pair.gateway.work(pair.now));
        pair.now += Duration::from_millis(5);
    }
    let half_open = pair.gateway.endpoint.half_open();
    let limit = Settings::default().cookie_threshold;
    assert!((100..=limit).contains(&half_open), "{half_open} half-open peers");
    let connected = pair.gateway.endpoint.peers().filter(|peer| peer.state() == State::Up).count();
    assert_eq!(connected, 1);
    pair.now += Duration::from_secs(60);
    pair.gateway.endpoint.handle_timeout(pair.now);
    assert_eq!(pair.gateway.endpoint.half_open(), 0);
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
        let mut insider = Insider::new(gateway(), terminal(), Settings::default());
        for _ in 2..40 {
            let mut nonce = [0; 32];
            random.fill(&mut nonce);
            let (exchange, body, first) = request(&mut random, &nonce);
            let body = mutated(&body, &body, &mut random);
            let message = insider.seal_body(exchange, first, body);
            let Pair { gateway, now, .. } = &mut insider.pair;
            gateway.endpoint.handle_datagram(*now, to_gateway(TERMINAL, 4500), &message);
            answers += gateway.work(*now).len();
        }
        let pair = &mut insider.pair;
        let peers: Vec<_> = pair.gateway.endpoint.peers().map(|peer| peer.id()).collect();
        peers.into_iter().for_each(|peer| pair.gateway.endpoint.close(pair.now, peer));
        for _ in 0..200 {
            pair.now += Duration::from_secs(1);
            pair.gateway.endpoint.handle_timeout(pair.now);
            drop(pair.gateway.work(pair.now));
        }
        let kept = (pair.gateway.endpoint.state_sizes(), pair.gateway.endpoint.poll_timeout());
        assert_eq!(kept, (StateSizes::default(), None));
    }
    assert!(answers > 60 * 10, "{answers}");
}
