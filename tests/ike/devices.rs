//! Several devices of one identity, and devices that reconnect (RFC 7296 §2.4).

use crate::{fleet::Fleet, pair::Pair};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, prefix, terminal};
use wayfarer_mobility::ike::{
    connection::{ChildPolicy, Connection, Remote},
    event::Event,
    reason::Reason,
    settings::Settings,
    view::State,
};

const LAPTOP: [u8; 4] = [192, 0, 2, 8];
const PHONE: [u8; 4] = [192, 0, 2, 9];
const SECOND: Duration = Duration::from_secs(1);

/// Connects a laptop and a phone of one identity to a gateway that allows several.
fn two_devices() -> Fleet {
    let mut fleet = Fleet::new(vec![Connection { unique: false, ..gateway() }]);
    fleet.connect(LAPTOP, terminal());
    fleet.connect(PHONE, terminal());
    fleet
}

#[test]
fn two_devices_of_one_identity_stay() {
    let mut fleet = two_devices();
    fleet.pass(120 * SECOND);
    assert_eq!(fleet.gateway.end_reasons(), []);
    let inner: Vec<_> = fleet.connected_peers().iter().flat_map(|view| view.inner()).collect();
    assert!(matches!(inner[..], [one, other] if one != other), "{inner:?}");
}

#[test]
fn finds_the_dead_one_of_several_devices_at_once() {
    let mut fleet = two_devices();
    let phone = fleet.peer_at(PHONE);
    // The laptop restarts elsewhere. The data plane reports nothing, so no peer is probed for
    // another reason.
    fleet.terminals.remove(0);
    fleet.connect([192, 0, 2, 77], terminal());
    assert_eq!(fleet.connected_peers().len(), 3);
    fleet.pass(Settings::default().retransmission.total() + SECOND);
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Timeout]);
    assert_eq!(
        (fleet.connected_peers().len(), fleet.peer_at(PHONE), fleet.peer_at(LAPTOP)),
        (2, phone, None)
    );
}

#[test]
fn peer_from_the_same_socket_replaces_the_device() {
    let mut fleet = two_devices();
    fleet.terminals.remove(0);
    fleet.connect(LAPTOP, terminal());
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Replaced]);
    assert!(fleet.peer_at(PHONE).is_some() && fleet.peer_at(LAPTOP).is_some());
    assert_eq!(fleet.connected_peers().len(), 2);
}

#[test]
fn forged_source_replaces_no_other_device() {
    let mut fleet = two_devices();
    let laptop = fleet.peer_at(LAPTOP);
    fleet.connect_forged([192, 0, 2, 77], LAPTOP, terminal());
    fleet.pass(120 * SECOND);
    assert!(!fleet.gateway.end_reasons().contains(&Reason::Replaced));
    assert_eq!(fleet.peer_at(LAPTOP), laptop);
}

#[test]
fn replaced_device_is_told() {
    let mut fleet = Fleet::new(vec![gateway()]);
    let laptop = fleet.connect(LAPTOP, terminal());
    fleet.connect(PHONE, terminal());
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Replaced]);
    assert_eq!(fleet.terminals[laptop].end_reasons(), [Reason::Deleted]);
}

#[test]
fn two_sites_that_connect_at_once_keep_the_same_ike_sa() {
    let mut kept = BTreeSet::new();
    for seed in 0..6 {
        let site = |local: [u8; 4], remote: [u8; 4], base: Connection| {
            let net = |host: [u8; 4]| vec![prefix([10, host[0], 0, 0], [10, host[0], 0, 255])];
            let child =
                ChildPolicy { name: "net".into(), local: net(local), remote: net(remote), transport: false };
            let remote = vec![Remote::At(SocketAddr::from((remote, 500)))];
            Connection { remote, children: vec![child], ask_address: false, pools: vec![], ..base }
        };
        let ours = site(TERMINAL, GATEWAY, terminal());
        let theirs = Connection { local: vec![], ..site(GATEWAY, TERMINAL, gateway()) };
        let mut pair = Pair::seeded(seed, theirs, ours, Settings::default());
        pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
        pair.gateway.endpoint.dial(pair.now, 0, GATEWAY.into());
        pair.settle();
        pair.pass(100 * SECOND);
        let spis = [&pair.terminal, &pair.gateway].map(|side| {
            let connected = side.endpoint.peers().filter(|view| view.state() == State::Up);
            connected.map(|view| view.spis().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!((spis[0].len(), &spis[0]), (1, &spis[1]));
        for side in [&pair.terminal, &pair.gateway] {
            let connections =
                side.events.iter().filter(|event| matches!(event, Event::PeerUp { .. })).count();
            assert!(connections <= 2, "{:#?}", side.events);
        }
        kept.insert(pair.is_ike_sa_by_terminal());
    }
    assert_eq!(kept.len(), 2, "each site's SPIs are lower with some seed");
}
