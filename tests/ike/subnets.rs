//! Child SAs with many prefixes: all of them are agreed on, or none. Child SAs that are refused.

use crate::{insider::Insider, pair::Pair};
use wayfarer::sim::ike::{
    connections::{gateway, offer, prefix, terminal},
    side::{Side, reversed},
};
use wayfarer_mobility::{
    crypto::Encr,
    ike::{
        connection::{ChildPolicy, Connection},
        event::Event,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
        wire::{ExchangeType, Payload, Proposal, TrafficSelector, Transform, flags, notify},
    },
};

/// Returns this many networks of 256 addresses.
fn networks(first: u8, count: u32) -> Vec<TrafficSelector> {
    let network = |n: u32| {
        let [_, high, low, _] = (n << 8).to_be_bytes();
        prefix([first, high, low, 0], [first, high, low, 255])
    };
    (0..count).map(network).collect()
}

/// Returns the connections of two sites with these networks at the terminal and at the gateway, the
/// gateway's first.
fn connections(ours: &[TrafficSelector], theirs: &[TrafficSelector]) -> [Connection; 2] {
    let with = |mut connection: Connection, local: &[TrafficSelector], remote: &[TrafficSelector]| {
        connection.children[0].local = local.to_vec();
        connection.children[0].remote = remote.to_vec();
        Connection { pools: vec![], ask_address: false, ..connection }
    };
    [with(gateway(), theirs, ours), with(terminal(), ours, theirs)]
}

/// Connects two such sites.
fn sites(ours: Vec<TrafficSelector>, theirs: Vec<TrafficSelector>) -> Pair {
    let [gateway, terminal] = connections(&ours, &theirs);
    Pair::connected(gateway, terminal)
}

/// Returns how many networks the gateway left out last, if the terminal was told of any.
fn left_out(terminal: &Side) -> Option<usize> {
    terminal.events.iter().rev().find_map(|event| match event {
        Event::ChildNarrowed { left_out, .. } => Some(*left_out),
        _ => None,
    })
}

fn sides(side: &Side) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let sa = side.newest_child();
    (sa.local.clone(), sa.remote.clone())
}

#[test]
fn every_network_is_agreed_on_and_kept_by_rekeys() {
    for (here, there) in [(1, 20), (20, 1), (1, 100), (100, 1), (16, 16), (255, 1)] {
        let (ours, theirs) = (networks(10, here), networks(11, there));
        let mut pair = sites(ours.clone(), theirs.clone());
        pair.assert_one_each();
        for rekeys in 0..3 {
            assert_eq!(sides(&pair.terminal), (ours.clone(), theirs.clone()), "{here} {there} {rekeys}");
            assert_eq!(sides(&pair.gateway), (theirs.clone(), ours.clone()), "{here} {there} {rekeys}");
            let [us, them] = pair.connected_peers().map(|all| all[0]);
            match rekeys {
                0 => pair.terminal.endpoint.rekey(pair.now, us, false),
                _ => pair.gateway.endpoint.rekey(pair.now, them, false),
            }
            pair.settle();
        }
    }
}

#[test]
fn gateway_refuses_more_than_it_can_install_instead_of_cutting_it() {
    let (ours, theirs) = (networks(10, 20), networks(11, 20));
    let pair = sites(ours, theirs);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Refused(notify::TS_UNACCEPTABLE)]);
    let refused = |event: &Event| matches!(event, Event::SelectorsRefused { local: 20, remote: 20, .. });
    assert!(pair.gateway.events.iter().any(refused), "{:?}", pair.gateway.events);
    let is_up = |event: &Event| matches!(event, Event::ChildUp { .. });
    assert!(!pair.gateway.events.iter().any(is_up));
}

#[test]
fn gateway_tells_which_child_sa_it_has_refused_and_why() {
    let elsewhere = prefix([10, 55, 0, 0], [10, 55, 0, 255]);
    let child = ChildPolicy { remote: vec![elsewhere], ..terminal().children.remove(0) };
    let allowed = terminal().children.remove(0);
    let other = Offer { encr: vec![Encr::ChaCha20Poly1305], ..offer() };
    // The first child SA in IKE_AUTH, and one beside it.
    for (asking, refusal, local, ends) in [
        (
            Connection { children: vec![child.clone()], ..terminal() },
            notify::TS_UNACCEPTABLE,
            elsewhere,
            true,
        ),
        (Connection { esp: vec![other], ..terminal() }, notify::NO_PROPOSAL_CHOSEN, allowed.remote[0], true),
        (
            Connection { children: vec![allowed, child], ..terminal() },
            notify::TS_UNACCEPTABLE,
            elsewhere,
            false,
        ),
    ] {
        let pair = Pair::connected(gateway(), asking);
        let told = pair.gateway.events.iter().filter_map(|event| match event {
            Event::ChildRefused { refusal, local, remote, .. } => Some((*refusal, *local, remote.is_some())),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(refusal, Some(local), true)]);
        let reasons = pair.terminal.end_reasons();
        assert_eq!(reasons, if ends { vec![Reason::Refused(refusal)] } else { vec![] });
    }
}

#[test]
fn terminal_hears_of_networks_that_the_gateway_leaves_out() {
    let (ours, theirs) = (networks(10, 1), networks(11, 40));
    let narrower = |mut connection: Connection, count: usize| {
        connection.children[0].local = theirs[..count].to_vec();
        connection.children[0].remote = ours.clone();
        Connection { pools: vec![], ..connection }
    };
    let mut asking = terminal();
    asking.children[0].local = ours.clone();
    asking.children[0].remote = theirs.clone();
    asking.ask_address = false;
    for (count, expected) in [(30, Some(10)), (40, None)] {
        let pair = Pair::connected(narrower(gateway(), count), asking.clone());
        pair.assert_one_each();
        assert_eq!(sides(&pair.terminal).1, theirs[..count]);
        assert_eq!(left_out(&pair.terminal), expected);
    }
}

#[test]
fn terminal_hears_of_networks_that_the_gateway_takes_away_with_new_keys() {
    let (ours, theirs) = (networks(10, 1), networks(11, 20));
    let half = [&theirs[1..], &[prefix([11, 0, 0, 0], [11, 0, 0, 127])]].concat();
    for (kept, expected) in [(theirs.clone(), None), (theirs[..16].to_vec(), Some(4)), (half, Some(1))] {
        let [gateway, terminal] = connections(&ours, &theirs);
        let mut insider = Insider::new(gateway, terminal, Settings::default());
        let here = insider.pair.connected_peers()[0][0];
        insider.pair.terminal.endpoint.rekey(insider.pair.now, here, false);
        let (addresses, _) = insider.pair.up().remove(0);
        let transforms = [(1, 20, Some(256)), (4, 31, None), (5, 0, None)];
        let transforms = transforms.map(|(kind, id, key_bits)| Transform { kind, id, key_bits }).to_vec();
        let spi = 0x1000u32.to_be_bytes().to_vec();
        let answer = [
            Payload::Sa(vec![Proposal { number: 1, protocol: 3, spi, transforms }]),
            Payload::Nonce(&[7; 32]),
            Payload::Ke { method: 31, data: &[9; 32] },
            Payload::TsI(ours.clone()),
            Payload::TsR(kept.clone()),
        ];
        let message = insider.protect_payloads(ExchangeType::CreateChildSa, flags::RESPONSE, 2, &answer);
        insider.pair.terminal.endpoint.handle_datagram(insider.pair.now, reversed(addresses), &message);
        drop(insider.pair.up());
        assert_eq!(sides(&insider.pair.terminal), (ours.clone(), kept));
        assert_eq!(left_out(&insider.pair.terminal), expected);
    }
}
