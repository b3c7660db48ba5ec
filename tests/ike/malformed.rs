//! Authentic but malformed messages: they are refused, never taken for empty ones.

use crate::insider::{Answer, Insider};
use std::{net::SocketAddr, time::Duration};
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, terminal},
    side::to_gateway,
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        description,
        reason::Reason,
        settings::Settings,
        wire::{
            self, Delete, ExchangeType, Header, Notify, Payload, Proposal, TrafficSelector, Transform, flags,
            kind, notify,
        },
    },
    path::{Addresses, Path},
};

const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];
/// The header of a payload that is longer than its message.
pub(super) const CUT: [u8; 4] = [0, 0, 0, 200];

fn insider(mobike: bool) -> Insider {
    Insider::new(Connection { mobike, ..gateway() }, terminal(), Settings::default())
}

/// Makes the payloads of a request for a child SA.
fn create() -> Vec<Payload<'static>> {
    let transforms = [(1, 20, Some(256)), (4, 31, None), (5, 0, None)];
    let transforms = transforms.map(|(kind, id, key_bits)| Transform { kind, id, key_bits }).to_vec();
    let everything = vec![TrafficSelector::range([0; 4].into(), [255; 4].into())];
    vec![
        Payload::Sa(vec![Proposal { number: 1, protocol: 3, spi: vec![0, 0, 0x10, 0], transforms }]),
        Payload::Nonce(&[7; 32]),
        Payload::Ke { method: 31, data: &[9; 32] },
        Payload::TsI(everything.clone()),
        Payload::TsR(everything),
    ]
}

#[test]
fn refuses_malformed_requests_and_keeps_the_ike_sa() {
    let mut insider = insider(true);
    for exchange in [ExchangeType::CreateChildSa, ExchangeType::Informational] {
        let cut = insider.seal_body(exchange, kind::NOTIFY, CUT.to_vec());
        assert_eq!(insider.send(&cut), Answer::Refused(notify::INVALID_SYNTAX));
    }
    assert_eq!((insider.pair.gateway.end_reasons(), insider.children()), (vec![], 1));
}

#[test]
fn refuses_child_sa_requests_without_a_required_payload() {
    let mut insider = insider(true);
    for kind in [kind::SA, kind::NONCE, kind::TS_I, kind::TS_R] {
        let some: Vec<_> = create().into_iter().filter(|payload| payload.kind() != kind).collect();
        let answer = insider.ask(ExchangeType::CreateChildSa, &some);
        assert_eq!(answer, Answer::Refused(notify::INVALID_SYNTAX), "without {kind}");
    }
    // REKEY_SA must have an ESP SPI of 4 bytes. One of 8 bytes does not make this a request for
    // another child SA.
    let rekey = Notify { protocol: 3, spi: &[1; 8], kind: notify::REKEY_SA, data: &[] };
    let all = [vec![Payload::Notify(rekey)], create()].concat();
    let answer = insider.ask(ExchangeType::CreateChildSa, &all);
    assert_eq!((answer, insider.children()), (Answer::Refused(notify::INVALID_SYNTAX), 1));
    assert!(matches!(insider.ask(ExchangeType::CreateChildSa, &create()), Answer::Accepted(_)));
}

#[test]
fn does_nothing_of_a_request_with_a_malformed_end() {
    let mut insider = insider(true);
    let spi = insider.first_spi();
    for (protocol, spis) in [(1, vec![]), (3, vec![spi])] {
        let mut body = vec![];
        let vendor = Payload::Vendor(b"cut here");
        let first = wire::emit(&[Payload::Delete(Delete { protocol, spis }), vendor], &mut body);
        body.pop();
        let message = insider.seal_body(ExchangeType::Informational, first, body);
        assert_eq!(insider.send(&message), Answer::Refused(notify::INVALID_SYNTAX));
    }
    let short = [
        Payload::notify(notify::UPDATE_SA_ADDRESSES, &[]),
        Payload::notify(notify::NAT_DETECTION_SOURCE_IP, &[1; 19]),
        Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, &[1; 20]),
    ];
    let answer = insider.ask(ExchangeType::Informational, &short);
    assert_eq!(answer, Answer::Refused(notify::INVALID_SYNTAX), "NAT_DETECTION data is no SHA-1 hash");
    for length in [0, 11, 13, 35] {
        let path = [7; 35];
        let payloads = [
            Payload::notify(notify::UPDATE_SA_ADDRESSES, &[]),
            Payload::notify(notify::NO_NATS_ALLOWED, &path[..length]),
        ];
        let answer = insider.ask(ExchangeType::Informational, &payloads);
        assert_eq!(answer, Answer::Refused(notify::INVALID_SYNTAX), "NO_NATS_ALLOWED of {length} bytes");
    }
    assert_eq!((insider.pair.gateway.end_reasons(), insider.children()), (vec![], 1));
}

#[test]
fn unreadable_description_of_a_path_refuses_nothing() {
    let mut insider = insider(true);
    let payloads = [
        Payload::notify(notify::UPDATE_SA_ADDRESSES, &[]),
        Payload::notify(description::REQUEST, &[4, 17, 0]),
    ];
    assert_eq!(insider.ask(ExchangeType::Informational, &payloads), Answer::Other);
}

/// Sends the terminal's malformed answer to the gateway's first request.
fn answer(insider: &mut Insider, exchange: ExchangeType, address: [u8; 4]) {
    let answer = insider.protect(exchange, flags::INITIATOR | flags::RESPONSE, 0, kind::NOTIFY, CUT.to_vec());
    insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, to_gateway(address, 4500), &answer);
}

#[test]
fn retries_a_rekey_after_a_malformed_answer() {
    for ike_sa in [false, true] {
        let mut insider = insider(true);
        let peer = insider.pair.connected_peers()[1][0];
        insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, ike_sa);
        assert_eq!(insider.pair.down().len(), 1);
        answer(&mut insider, ExchangeType::CreateChildSa, TERMINAL);
        // The terminal may have created a child SA, which is deleted.
        assert_eq!(insider.pair.down().len(), usize::from(!ike_sa));
        assert_eq!((insider.children(), insider.ike_sas()), (1, 1));
        let flags = flags::INITIATOR | flags::RESPONSE;
        let deleted = insider.protect(ExchangeType::Informational, flags, 1, 0, vec![]);
        insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, to_gateway(TERMINAL, 4500), &deleted);
        insider.pair.now += Duration::from_secs(60);
        insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
        let requests = insider.pair.down();
        let rekeys = |(_, message): &&(Addresses, Vec<u8>)| {
            Header::parse(message).unwrap().exchange == ExchangeType::CreateChildSa.number()
        };
        assert_eq!(requests.iter().filter(rekeys).count(), 1);
    }
}

#[test]
fn ignores_an_answer_of_another_exchange() {
    let mut insider = insider(true);
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, false);
    let request = insider.pair.down();
    answer(&mut insider, ExchangeType::Informational, TERMINAL);
    assert_eq!(insider.pair.gateway.endpoint.count(Counter::Malformed), 1);
    request.iter().for_each(|message| insider.pair.deliver_down(message));
    insider.pair.settle();
    let children = insider.pair.gateway.children();
    assert_eq!(children.len(), 2, "the real answer is still awaited");
}

#[test]
fn malformed_answer_does_not_confirm_a_move() {
    let mut insider = insider(false);
    let peer = insider.pair.gateway.endpoint.peers().next().unwrap().id();
    let path = Path { local: GATEWAY.into(), remote: ELSEWHERE.into(), udp: Some((4500, 4500)) };
    insider.pair.gateway.endpoint.handle_path(insider.pair.now, peer, path);
    assert_eq!(insider.pair.down().len(), 1, "the peer is probed");
    answer(&mut insider, ExchangeType::Informational, ELSEWHERE);
    let endpoint = &insider.pair.gateway.endpoint;
    assert_eq!(endpoint.count(Counter::Unconfirmed), 1);
    let address_now = endpoint.peers().next().unwrap().addresses().remote;
    assert_eq!(address_now, SocketAddr::from((TERMINAL, 4500)), "the move is taken back");
}

#[test]
fn malformed_answer_to_an_address_update_ends_the_ike_sa() {
    let mut insider = insider(true);
    let peer = insider.pair.connected_peers()[0][0];
    let terminal = &mut insider.pair.terminal.endpoint;
    terminal.handle_local(insider.pair.now, peer, ELSEWHERE.into(), None).unwrap();
    assert_eq!(insider.pair.up().len(), 1);
    let answer = insider.protect(ExchangeType::Informational, flags::RESPONSE, 2, kind::NOTIFY, CUT.to_vec());
    let there =
        Addresses { local: SocketAddr::from((ELSEWHERE, 4500)), remote: SocketAddr::from((GATEWAY, 4500)) };
    insider.pair.terminal.endpoint.handle_datagram(insider.pair.now, there, &answer);
    drop(insider.pair.up());
    assert_eq!(insider.pair.terminal.end_reasons(), [Reason::Protocol]);
}
