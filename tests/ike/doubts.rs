//! Unconfirmed moves: how little forged ones gain, and how little honest peers lose by the defence.

use crate::{doubles::FakeCertificate, fleet::Fleet};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, terminal},
    eap::FakeEap,
};
use wayfarer_mobility::{
    crypto::Verifier,
    identity::Identity,
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, RemoteAuth},
        counter::Counter,
        event::{Event, PeerId},
    },
    path::Path,
};

const SECOND: Duration = Duration::from_secs(1);
const VICTIM: [u8; 4] = [198, 51, 100, 66];
const OTHER: [u8; 4] = [198, 51, 100, 67];
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];

/// Connects one terminal to a gateway, and returns its peer there.
fn connected() -> (Fleet, PeerId) {
    let mut fleet = Fleet::new(vec![gateway()]);
    fleet.connect(TERMINAL, terminal());
    let peer = fleet.peer_at(TERMINAL).unwrap();
    (fleet, peer)
}

/// Makes the connection of terminal number `n`.
fn named(n: u8) -> Connection {
    let local_id = Identity::from_text(&format!("t{n}.test")).unwrap();
    Connection { local_id, ..terminal() }
}

/// Makes a gateway with a connection for each of `terminals`.
fn gateway_for(terminals: u8) -> Fleet {
    let only = |n| IdentityPattern::of(vec![named(n).local_id]);
    Fleet::new((0..terminals).map(|n| Connection { remote_id: only(n), ..gateway() }).collect())
}

/// Reports, as the data plane does, that the gateway's peer of this index is at `address`; does not
/// carry messages yet.
fn report_path_of(fleet: &mut Fleet, peer: usize, address: [u8; 4]) {
    let peer = fleet.connected_peers()[peer].id();
    let path = Path { local: GATEWAY.into(), remote: address.into(), udp: Some((4500, 4500)) };
    fleet.gateway.endpoint.handle_path(fleet.now, peer, path);
}

/// Reports that the first peer is at `address`, and carries messages.
fn report_path(fleet: &mut Fleet, address: [u8; 4]) {
    report_path_of(fleet, 0, address);
    fleet.settle();
}

/// Has the terminal of this index announce that it is at `address`.
fn announce_of(fleet: &mut Fleet, terminal: usize, address: [u8; 4]) {
    let side = &mut fleet.terminals[terminal];
    let here = side.endpoint.peers().next().unwrap().id();
    side.endpoint.handle_local(fleet.now, here, address.into(), None).unwrap();
    fleet.settle();
}

/// Has the first terminal announce that it is at `address`, which is true if `is_there`.
fn announce(fleet: &mut Fleet, address: [u8; 4], is_there: bool) {
    if is_there {
        fleet.terminals[0].at = Some(address.into());
    }
    announce_of(fleet, 0, address);
}

/// Counts the moves to `address` that were made before their confirmation.
fn unconfirmed(fleet: &Fleet, address: [u8; 4]) -> usize {
    let to = |event: &&Event| matches!(event, Event::PeerMoved { path, confirmed: false, .. } if path.remote == IpAddr::from(address));
    fleet.gateway.events.iter().filter(to).count()
}

fn at(address: [u8; 4]) -> SocketAddr {
    SocketAddr::from((address, 4500))
}

#[test]
fn probes_before_a_move_after_an_unconfirmed_one() {
    let (mut fleet, peer) = connected();
    // The peer announces the move itself, to an address that is not its own.
    announce(&mut fleet, VICTIM, false);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, VICTIM)), (at(VICTIM), 1));
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.address_of(peer), at(TERMINAL), "the victim did not answer");
    announce(&mut fleet, TERMINAL, true);
    // A path that the data plane saw is not trusted either.
    fleet.pass(300 * SECOND);
    for victim in [VICTIM, OTHER, VICTIM, OTHER] {
        report_path(&mut fleet, victim);
        assert_eq!(fleet.address_of(peer), at(TERMINAL));
        fleet.pass(20 * SECOND);
    }
    assert_eq!((unconfirmed(&fleet, VICTIM), unconfirmed(&fleet, OTHER)), (1, 0));
    // After a while the peer is trusted again.
    fleet.pass(1200 * SECOND);
    report_path(&mut fleet, OTHER);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, OTHER)), (at(OTHER), 1));
}

#[test]
fn doubted_honest_peer_moves_as_soon_as_it_answers() {
    let (mut fleet, peer) = connected();
    report_path(&mut fleet, VICTIM);
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.address_of(peer), at(TERMINAL));
    for address in [ELSEWHERE, TERMINAL, [192, 0, 2, 98], ELSEWHERE] {
        fleet.pass(2 * SECOND);
        announce(&mut fleet, address, true);
        // The probe to the victim still occupies the window.
        fleet.pass(Duration::from_millis(110));
        assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, address)), (at(address), 0));
    }
    // The same holds for a move that only packets show, as behind a NAT.
    fleet.terminals[0].at = Some(OTHER.into());
    report_path(&mut fleet, OTHER);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, OTHER)), (at(OTHER), 0));
}

#[test]
fn announcement_after_a_packet_is_probed_at_once() {
    let (mut fleet, peer) = connected();
    for _ in 0..2 {
        report_path(&mut fleet, VICTIM);
        fleet.pass(11 * SECOND);
    }
    report_path(&mut fleet, VICTIM);
    fleet.pass(70 * SECOND);
    // Probes are rare by now, and a packet is the first sign of the new address.
    report_path(&mut fleet, OTHER);
    fleet.pass(11 * SECOND);
    report_path(&mut fleet, ELSEWHERE);
    fleet.pass(SECOND);
    assert_eq!(fleet.address_of(peer), at(TERMINAL));
    announce(&mut fleet, ELSEWHERE, true);
    fleet.pass(Duration::from_millis(200));
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
}

#[test]
fn copies_from_elsewhere_do_not_disturb_an_announced_move() {
    for (doubted, seen_before) in [(false, false), (true, false), (true, true)] {
        let (mut fleet, peer) = connected();
        if doubted {
            report_path(&mut fleet, VICTIM);
            fleet.pass(70 * SECOND);
        }
        if seen_before {
            report_path(&mut fleet, ELSEWHERE);
        }
        // The peer announces a move, and gets our answer and our probe late.
        announce(&mut fleet, ELSEWHERE, false);
        for n in 0..5 {
            report_path(&mut fleet, if n % 2 == 0 { OTHER } else { VICTIM });
        }
        fleet.terminals[0].at = Some(ELSEWHERE.into());
        fleet.pass(2 * SECOND);
        assert_eq!(fleet.address_of(peer), at(ELSEWHERE), "doubted: {doubted}, seen before: {seen_before}");
        let last = fleet.gateway.events.iter().rev().find_map(|event| match event {
            Event::PeerMoved { path, confirmed, .. } => Some((path.remote, *confirmed)),
            _ => None,
        });
        assert_eq!(last, Some((ELSEWHERE.into(), true)));
    }
}

#[test]
fn unanswered_announcement_does_not_keep_a_peer_from_being_found() {
    let (mut fleet, peer) = connected();
    announce(&mut fleet, ELSEWHERE, false);
    fleet.pass(Duration::from_millis(10_500));
    // The next probe waits. Meanwhile the peer is seen at another address.
    fleet.terminals[0].at = Some(OTHER.into());
    report_path(&mut fleet, OTHER);
    fleet.pass(5 * SECOND);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, OTHER)), (at(OTHER), 0));
}

#[test]
fn later_probe_finds_the_peer() {
    let (mut fleet, peer) = connected();
    report_path(&mut fleet, ELSEWHERE);
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.address_of(peer), at(TERMINAL));
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    fleet.pass(20 * SECOND);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 1));
}

#[test]
fn lost_probe_does_not_keep_a_peer_from_being_found() {
    let (mut fleet, peer) = connected();
    report_path(&mut fleet, VICTIM);
    fleet.pass(11 * SECOND);
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    // The window is one request, and this one is lost.
    fleet.gateway.endpoint.handle_liveness(fleet.now, peer, false);
    fleet.settle();
    report_path(&mut fleet, ELSEWHERE);
    fleet.pass(2 * SECOND);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
}

#[test]
fn moving_back_does_not_allow_another_unconfirmed_move() {
    let (mut fleet, peer) = connected();
    for _ in 0..20 {
        report_path(&mut fleet, VICTIM);
        fleet.pass(SECOND);
        report_path(&mut fleet, TERMINAL);
        assert_eq!(fleet.address_of(peer), at(TERMINAL));
        fleet.pass(SECOND);
    }
    assert_eq!(unconfirmed(&fleet, VICTIM), 1);
    // Another forged address does not allow one either.
    report_path(&mut fleet, OTHER);
    assert_eq!(unconfirmed(&fleet, OTHER), 0);
}

#[test]
fn unconfirmed_move_ends_after_too_many_bytes_but_its_probe_stays() {
    let (mut fleet, peer) = connected();
    report_path(&mut fleet, ELSEWHERE);
    fleet.gateway.endpoint.handle_unconfirmed(fleet.now, peer);
    assert_eq!(fleet.address_of(peer), at(TERMINAL));
    assert_eq!(fleet.gateway.endpoint.count(Counter::Unconfirmed), 1);
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.gateway.endpoint.count(Counter::Unconfirmed), 2, "the answer is due as before");
    // The peer is there after all: its answer was slow.
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    fleet.pass(20 * SECOND);
    assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 1));
}

#[test]
fn abandoned_path_can_be_reported_again() {
    let (mut fleet, peer) = connected();
    report_path(&mut fleet, ELSEWHERE);
    fleet.pass(200 * SECOND);
    // When the probes end, the data plane is given the old path once more, and then reports any
    // other one.
    let to_terminal = |event: &&Event| matches!(event, Event::PeerMoved { path, .. } if path.remote == IpAddr::from(TERMINAL));
    assert_eq!(fleet.gateway.events.iter().filter(to_terminal).count(), 2);
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    report_path(&mut fleet, ELSEWHERE);
    fleet.pass(33 * SECOND);
    assert_eq!(fleet.address_of(peer), at(ELSEWHERE));
}

#[test]
fn probes_to_a_victim_are_few() {
    let (mut fleet, peer) = connected();
    for n in 0..600 {
        report_path(&mut fleet, if n % 2 == 0 { VICTIM } else { OTHER });
        fleet.pass(SECOND);
    }
    assert_eq!(fleet.address_of(peer), at(TERMINAL));
    let bytes: usize = fleet.lost.iter().map(|(_, message)| message.len()).sum();
    assert!(bytes < 600 * 100, "{bytes} bytes for 600 packets: {}", fleet.lost.len());
}

#[test]
fn path_reports_do_not_repeat_a_pending_request() {
    let (mut fleet, peer) = connected();
    // The gateway starts a rekey, and the peer does not answer.
    fleet.gateway.endpoint.rekey(fleet.now, peer, true);
    let request_len = fleet.gateway.work(fleet.now)[0].1.len();
    let mut bytes = 0;
    for n in 0..200u32 {
        let peer = fleet.connected_peers()[0].id();
        let remote = IpAddr::from([198, 51, 100, n as u8 + 1]);
        let path = Path { local: GATEWAY.into(), remote, udp: Some((4500, 4500)) };
        fleet.gateway.endpoint.handle_path(fleet.now, peer, path);
        fleet.now += Duration::from_millis(1);
        fleet.gateway.endpoint.handle_timeout(fleet.now);
        bytes += fleet.gateway.work(fleet.now).iter().map(|(_, message)| message.len()).sum::<usize>();
    }
    assert!(bytes <= 8 * request_len, "{bytes} bytes of a request of {request_len}");
}

#[test]
fn doubt_survives_a_reconnection() {
    // The second time before the move's failure is clear.
    for later in [11 * SECOND, SECOND] {
        let (mut fleet, _) = connected();
        report_path(&mut fleet, VICTIM);
        fleet.pass(later);
        fleet.terminals.clear();
        fleet.connect(TERMINAL, terminal());
        let peer = fleet.peer_at(TERMINAL).unwrap();
        report_path(&mut fleet, VICTIM);
        assert_eq!((fleet.address_of(peer), unconfirmed(&fleet, VICTIM)), (at(TERMINAL), 1));
    }
}

#[test]
fn one_owner_has_one_unconfirmed_move_at_a_time() {
    let mut fleet = Fleet::new(vec![Connection { unique: false, ..gateway() }]);
    let all = [10, 11, 12, 13].map(|n| [192, 0, 2, n]);
    for address in all {
        fleet.connect(address, terminal());
    }
    let devices = all.map(|address| fleet.peer_at(address).unwrap());
    // Confirmed moves do not count.
    fleet.terminals[3].at = Some(ELSEWHERE.into());
    announce_of(&mut fleet, 3, ELSEWHERE);
    assert_eq!((fleet.address_of(devices[3]), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 1));
    (0..3).for_each(|device| announce_of(&mut fleet, device, VICTIM));
    assert_eq!(unconfirmed(&fleet, VICTIM), 1);
    // Meanwhile an honest one is probed, and followed when it answers.
    fleet.terminals[2].at = Some(OTHER.into());
    announce_of(&mut fleet, 2, OTHER);
    fleet.pass(Duration::from_millis(200));
    assert_eq!((fleet.address_of(devices[2]), unconfirmed(&fleet, OTHER)), (at(OTHER), 0));
    fleet.pass(60 * SECOND);
    assert_eq!(unconfirmed(&fleet, VICTIM), 1);
}

#[test]
fn peers_without_proved_names_share_one_bound() {
    let by_key = |n| (gateway(), named(n));
    let nameless = |n| {
        let eap = || Arc::new(FakeEap::new(None));
        let here = Connection { remote_auth: RemoteAuth::Eap(eap()), ..gateway() };
        (here, Connection { local_auth: LocalAuth::Eap(eap()), ..named(n) })
    };
    for connections in [&by_key as &dyn Fn(u8) -> (Connection, Connection), &nameless] {
        let mut fleet = Fleet::new(vec![connections(0).0]);
        // The attacker reconnects again and again, each time by another name.
        for n in 1..=20 {
            fleet.terminals.clear();
            fleet.connect([192, 0, 2, n + 20], connections(n).1);
            let newest = fleet.connected_peers().len() - 1;
            report_path_of(&mut fleet, newest, VICTIM);
            fleet.settle();
            fleet.pass(3 * SECOND);
        }
        assert_eq!(unconfirmed(&fleet, VICTIM), 1);
        // Meanwhile an honest one moves as soon as it answers, however rare the probes to the
        // others are.
        fleet.connect(TERMINAL, connections(0).1);
        let honest = fleet.peer_at(TERMINAL).unwrap();
        let newest = fleet.connected_peers().len() - 1;
        fleet.terminals.last_mut().unwrap().at = Some(ELSEWHERE.into());
        report_path_of(&mut fleet, newest, ELSEWHERE);
        fleet.settle();
        assert_eq!((fleet.address_of(honest), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
    }
}

#[test]
fn peers_with_several_proved_names_have_bounds_of_their_own() {
    let authority: Arc<dyn Verifier> = Arc::new(FakeCertificate::default());
    let mut fleet = Fleet::new(vec![Connection { remote_auth: RemoteAuth::Key(authority), ..gateway() }]);
    for n in 0..2 {
        let certificate = FakeCertificate::of(&format!("t{n}.test t{n}@example.org"));
        let local_auth = LocalAuth::Key(Arc::new(certificate));
        fleet.connect([192, 0, 2, n + 1], Connection { local_auth, ..named(n) });
    }
    (0..2).for_each(|device| announce_of(&mut fleet, device, VICTIM));
    assert_eq!(unconfirmed(&fleet, VICTIM), 2);
}

#[test]
fn unconfirmed_moves_of_all_owners_share_one_bound() {
    let mut fleet = gateway_for(40);
    (0..40).for_each(|n| {
        fleet.connect([192, 0, 2, n + 1], named(n));
    });
    (0..39).for_each(|device| announce_of(&mut fleet, device, VICTIM));
    assert_eq!(unconfirmed(&fleet, VICTIM), 32);
    // Meanwhile an honest one is probed, and followed when it answers.
    let honest = fleet.peer_at([192, 0, 2, 40]).unwrap();
    fleet.terminals[39].at = Some(ELSEWHERE.into());
    announce_of(&mut fleet, 39, ELSEWHERE);
    assert_eq!((fleet.address_of(honest), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
    // The others' moves fail when their time is over, which counts as much.
    fleet.pass(30 * SECOND);
    announce_of(&mut fleet, 38, OTHER);
    assert_eq!((unconfirmed(&fleet, VICTIM), unconfirmed(&fleet, OTHER)), (32, 0));
}

#[test]
fn many_honest_peers_move_at_once_or_upon_their_first_answer() {
    let mut fleet = gateway_for(200);
    (0..200).for_each(|n| {
        fleet.connect([192, 0, 2, n + 1], named(n));
    });
    let peers: Vec<PeerId> = fleet.connected_peers().iter().map(|view| view.id()).collect();
    for restart in 1..=3 {
        // Their NAT restarts, and a packet of each comes before any answer.
        let new_address = |n: usize| [100, 64, restart, n as u8 + 1];
        for n in 0..200 {
            fleet.terminals[n].at = Some(new_address(n).into());
            report_path_of(&mut fleet, n, new_address(n));
        }
        fleet.settle();
        let at_once = (0..200).map(|n| unconfirmed(&fleet, new_address(n))).sum::<usize>();
        assert_eq!(at_once, 32, "restart {restart}");
        // No time has passed: the others needed only one probe and its answer.
        (0..200).for_each(|n| assert_eq!(fleet.address_of(peers[n]), at(new_address(n))));
    }
}

#[test]
fn forged_source_of_the_last_request_counts_as_unconfirmed_move() {
    let mut fleet = Fleet::new(vec![gateway()]);
    fleet.connect_forged(TERMINAL, VICTIM, terminal());
    let installed = fleet.gateway.children()[0].path.remote;
    assert_eq!((installed, unconfirmed(&fleet, VICTIM)), (IpAddr::from(TERMINAL), 1));
    fleet.pass(11 * SECOND);
    let peer = fleet.connected_peers()[0].id();
    assert_eq!(fleet.address_of(peer).ip(), IpAddr::from(TERMINAL));
}
