//! Traffic selectors as OpenIKED sends them: the unspecified address for whatever address it gets, in
//! requests and in answers, and answers with more than was asked for.

use crate::pair::Pair;
use std::{net::IpAddr, time::Duration};
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, prefix, terminal},
    keys::LoggedKeys,
    side::{Message, Side},
};
use wayfarer_mobility::ike::{
    connection::Connection,
    event::Event,
    protection::Fragments,
    reason::Reason,
    settings::Settings,
    wire::{self, Header, Payload, TrafficSelector, notify},
};

const SECOND: Duration = Duration::from_secs(1);

fn everything() -> TrafficSelector {
    prefix([0; 4], [255; 4])
}

fn elsewhere() -> TrafficSelector {
    prefix([10, 55, 0, 0], [10, 55, 0, 255])
}

/// Makes both sides of a gateway that logs its keys, not connected.
fn pair(gateway: Connection, terminal: Connection) -> Pair {
    Pair::with(gateway, terminal, Settings { log_keys: true, ..Settings::default() })
}

/// Returns a message, which is protected by the keys that the gateway has logged last, with these selectors
/// for the side of its sender.
fn with_own_side(pair: &Pair, (addresses, message): Message, own: &[TrafficSelector]) -> Message {
    let mut keys = LoggedKeys::newest(&pair.gateway.events);
    let header = Header::parse(&message).unwrap();
    let protection = keys.protection(header.is_from_initiator());
    let opened = protection.open(&header, &message, &mut Fragments::default()).unwrap().unwrap();
    let mut payloads = wire::parse(opened.first, &opened.body).unwrap();
    for payload in &mut payloads {
        match payload {
            Payload::TsI(side) if !header.is_response() => *side = own.to_vec(),
            Payload::TsR(side) if header.is_response() => *side = own.to_vec(),
            _ => {}
        }
    }
    let mut body = vec![];
    let first = wire::emit(&payloads, &mut body);
    (addresses, keys.seal(header, first, body, None).remove(0))
}

/// Returns the terminal's first request with a child SA, which is not sent yet.
fn first_request(pair: &mut Pair) -> Message {
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    pair.up().iter().for_each(|message| pair.deliver_up(message));
    pair.down().iter().for_each(|message| pair.deliver_down(message));
    pair.up().remove(0)
}

/// Returns the traffic of a side's newest child SA, its own addresses first.
fn traffic(side: &Side) -> [Vec<TrafficSelector>; 2] {
    let child = side.newest_child();
    [child.local.clone(), child.remote.clone()]
}

/// Counts the events that say that the other side has answered with too much.
fn widened(side: &Side) -> usize {
    side.events.iter().filter(|event| matches!(event, Event::ChildWidened { .. })).count()
}

/// Has the gateway rekey the child SA, which the terminal answers with these selectors for its own side.
/// Returns how often that has failed so far.
fn rekey(pair: &mut Pair, answered: TrafficSelector) -> usize {
    let there = pair.connected_peers()[1][0];
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.down().iter().for_each(|request| pair.deliver_down(request));
    let answer = pair.up().remove(0);
    let answer = with_own_side(pair, answer, &[answered]);
    pair.deliver_up(&answer);
    pair.settle();
    pair.pass(10 * SECOND);
    pair.gateway.events.iter().filter(|event| matches!(event, Event::CreateFailed { .. })).count()
}

#[test]
fn unspecified_address_stands_for_the_one_that_the_gateway_assigns() {
    let [v4, v6] = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(TrafficSelector::host);
    let assigned = prefix([10, 98, 0, 1], [10, 98, 0, 1]);
    let udp = |selector| TrafficSelector { protocol: 17, ..selector };
    let mut wide = gateway();
    wide.children[0].remote = vec![prefix([10, 98, 0, 0], [10, 98, 255, 255])];
    for (gateway, asked, agreed) in [
        (gateway(), vec![v4], vec![assigned]),
        (wide, vec![v4], vec![assigned]),
        (gateway(), vec![v6, udp(v4)], vec![udp(assigned)]),
        (gateway(), vec![v6], vec![]),
        (gateway(), vec![prefix([0; 4], [0, 0, 0, 1])], vec![]),
    ] {
        let mut pair = pair(gateway, terminal());
        let request = first_request(&mut pair);
        let request = with_own_side(&pair, request, &asked);
        pair.deliver_up(&request);
        drop(pair.down());
        let found = pair.gateway.children().first().map(|child| child.remote.clone());
        assert_eq!(found.unwrap_or_default(), agreed, "{asked:?}");
    }
    // Without an assigned address, it stands for nothing.
    let mut asking = Connection { ask_address: false, ..terminal() };
    asking.children[0].local = vec![v4];
    let pair = Pair::connected(gateway(), asking);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Refused(notify::TS_UNACCEPTABLE)]);
}

#[test]
fn first_answer_counts_as_far_as_it_was_asked_for() {
    let net = terminal().children[0].remote[0];
    let dns = TrafficSelector { protocol: 17, start_port: 53, end_port: 53, ..net };
    let wider = prefix([10, 99, 0, 0], [10, 99, 255, 255]);
    let part = prefix([10, 99, 0, 16], [10, 99, 0, 31]);
    for (asked, answered, agreed, is_wider) in [
        (net, vec![everything()], Some(net), true),
        (dns, vec![everything()], Some(dns), true),
        (net, vec![elsewhere(), wider], Some(net), true),
        (net, vec![part], Some(part), false),
        (net, vec![elsewhere()], None, false),
        (net, vec![], None, false),
    ] {
        let mut asking = terminal();
        asking.children[0].remote = vec![asked];
        let mut pair = pair(gateway(), asking);
        let request = first_request(&mut pair);
        pair.deliver_up(&request);
        let answer = pair.down().remove(0);
        let answer = with_own_side(&pair, answer, &answered);
        pair.deliver_down(&answer);
        drop(pair.up());
        match agreed {
            Some(agreed) => {
                let own = prefix([10, 98, 0, 1], [10, 98, 0, 1]);
                assert_eq!(traffic(&pair.terminal), [vec![own], vec![agreed]], "{answered:?}");
            }
            None => {
                let refused = [Reason::Refused(notify::TS_UNACCEPTABLE)];
                assert_eq!(pair.terminal.end_reasons(), refused, "{answered:?}");
            }
        }
        assert_eq!(widened(&pair.terminal), usize::from(is_wider), "{answered:?}");
    }
}

#[test]
fn answer_to_new_keys_counts_as_far_as_it_was_asked_for() {
    let mut pair = pair(gateway(), terminal());
    pair.connect();
    let before = traffic(&pair.gateway);
    let mut spis = vec![pair.gateway.newest_child().spi_in];
    for rekeys in 1..=3 {
        assert_eq!(rekey(&mut pair, everything()), 0);
        assert_eq!(traffic(&pair.gateway), before);
        assert_eq!(widened(&pair.gateway), rekeys);
        pair.assert_one_each();
        let newest = pair.gateway.newest_child().spi_in;
        assert!(!spis.contains(&newest), "it has new keys");
        spis.push(newest);
    }
    assert_eq!(rekey(&mut pair, elsewhere()), 1);
    assert_eq!((traffic(&pair.gateway), widened(&pair.gateway)), (before, 3));
}

#[test]
fn unspecified_address_in_an_answer_to_new_keys_stands_for_the_assigned_one() {
    let [v4, v6] = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(TrafficSelector::host);
    let mut pair = pair(gateway(), terminal());
    pair.connect();
    let (before, first) = (traffic(&pair.gateway), pair.gateway.newest_child().spi_in);
    assert_eq!(rekey(&mut pair, v4), 0);
    assert_eq!((traffic(&pair.gateway), widened(&pair.gateway)), (before.clone(), 0));
    let second = pair.gateway.newest_child().spi_in;
    assert_ne!(second, first, "it has new keys");
    pair.assert_one_each();
    assert_eq!(rekey(&mut pair, v6), 1, "it was assigned no address of that family");
    assert_eq!(traffic(&pair.gateway), before);
}
