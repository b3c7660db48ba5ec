//! Moves that are not confirmed: what they are worth to whoever forges them, and what they cost an
//! honest peer.

use crate::{
    doubles::{Names, Says},
    fleet::Fleet,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, terminal};
use wayfarer_mobility::{
    crypto::Verifier,
    identity::Identity,
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, RemoteAuth},
        event::{Event, PeerId},
    },
    path::Path,
};

const SECOND: Duration = Duration::from_secs(1);
const VICTIM: [u8; 4] = [198, 51, 100, 66];
const OTHER: [u8; 4] = [198, 51, 100, 67];
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];

fn connected() -> (Fleet, PeerId) {
    let mut fleet = Fleet::new(vec![gateway()]);
    fleet.connect(TERMINAL, terminal());
    let peer = fleet.peer_at(TERMINAL).unwrap();
    (fleet, peer)
}

/// A terminal of this name.
fn named(n: u8) -> Connection {
    let local_id = Identity::from_text(&format!("t{n}.test")).unwrap();
    Connection { local_id, ..terminal() }
}

/// A gateway with a connection for each of so many terminals.
fn gateway_of(terminals: u8) -> Fleet {
    let only = |n| IdentityPattern::Of(vec![named(n).local_id]);
    Fleet::new((0..terminals).map(|n| Connection { remote_id: only(n), ..gateway() }).collect())
}

/// The data plane sees the gateway's peer of this number at `address`; nothing is sent yet.
fn seen_of(fleet: &mut Fleet, peer: usize, address: [u8; 4]) {
    let child = fleet.ups()[peer].children().next().unwrap();
    let path = Path { local: GATEWAY.into(), remote: address.into(), udp: Some((4500, 4500)) };
    fleet.gateway.endpoint.handle_path(fleet.now, child, path);
}

/// The data plane sees the first peer at `address`.
fn seen(fleet: &mut Fleet, address: [u8; 4]) {
    seen_of(fleet, 0, address);
    fleet.settle();
}

/// The terminal of this number says that it is at `address`.
fn say(fleet: &mut Fleet, terminal: usize, address: [u8; 4]) {
    let side = &mut fleet.terminals[terminal];
    let here = side.endpoint.peers().next().unwrap().id();
    side.endpoint.handle_local(fleet.now, here, address.into(), None).unwrap();
    fleet.settle();
}

/// The first terminal says that it is at `address`; it is, if `truly`.
fn says(fleet: &mut Fleet, address: [u8; 4], truly: bool) {
    if truly {
        fleet.terminals[0].at = Some(address.into());
    }
    say(fleet, 0, address);
}

/// How often a peer was sent to `address` before it said that it is there.
fn unconfirmed(fleet: &Fleet, address: [u8; 4]) -> usize {
    let to = |event: &&Event| matches!(event, Event::PeerMoved { path, confirmed: false, .. } if path.remote == IpAddr::from(address));
    fleet.gateway.events.iter().filter(to).count()
}

fn at(address: [u8; 4]) -> SocketAddr {
    SocketAddr::from((address, 4500))
}

#[test]
fn after_a_move_that_was_not_confirmed_a_peer_is_asked_first() {
    let (mut fleet, peer) = connected();
    // By its own word, from a source that is not its own.
    says(&mut fleet, VICTIM, false);
    assert_eq!((fleet.place(peer), unconfirmed(&fleet, VICTIM)), (at(VICTIM), 1));
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.place(peer), at(TERMINAL), "it did not answer there");
    says(&mut fleet, TERMINAL, true);
    // Nor is a path that the data plane saw worth more.
    fleet.pass(300 * SECOND);
    for victim in [VICTIM, OTHER, VICTIM, OTHER] {
        seen(&mut fleet, victim);
        assert_eq!(fleet.place(peer), at(TERMINAL));
        fleet.pass(20 * SECOND);
    }
    assert_eq!((unconfirmed(&fleet, VICTIM), unconfirmed(&fleet, OTHER)), (1, 0));
    // After a while it is trusted again.
    fleet.pass(1200 * SECOND);
    seen(&mut fleet, OTHER);
    assert_eq!((fleet.place(peer), unconfirmed(&fleet, OTHER)), (at(OTHER), 1));
}

#[test]
fn an_honest_peer_that_is_doubted_moves_as_soon_as_it_answers() {
    let (mut fleet, peer) = connected();
    seen(&mut fleet, VICTIM);
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.place(peer), at(TERMINAL));
    for place in [ELSEWHERE, TERMINAL, [192, 0, 2, 98], ELSEWHERE] {
        fleet.pass(2 * SECOND);
        says(&mut fleet, place, true);
        // The question to the victim still has the window.
        fleet.pass(Duration::from_millis(110));
        assert_eq!((fleet.place(peer), unconfirmed(&fleet, place)), (at(place), 0));
    }
    // And by a packet only, as behind a NAT.
    fleet.terminals[0].at = Some(OTHER.into());
    seen(&mut fleet, OTHER);
    assert_eq!((fleet.place(peer), unconfirmed(&fleet, OTHER)), (at(OTHER), 0));
}

#[test]
fn a_word_that_comes_behind_a_packet_is_asked_about_at_once() {
    let (mut fleet, peer) = connected();
    for _ in 0..2 {
        seen(&mut fleet, VICTIM);
        fleet.pass(11 * SECOND);
    }
    seen(&mut fleet, VICTIM);
    fleet.pass(70 * SECOND);
    // Questions are rare by now, and the first that is heard of this place is a packet.
    seen(&mut fleet, OTHER);
    fleet.pass(11 * SECOND);
    seen(&mut fleet, ELSEWHERE);
    fleet.pass(SECOND);
    assert_eq!(fleet.place(peer), at(TERMINAL));
    says(&mut fleet, ELSEWHERE, true);
    fleet.pass(Duration::from_millis(200));
    assert_eq!((fleet.place(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
}

#[test]
fn a_copy_from_elsewhere_does_not_come_between_a_peers_word_and_its_answer() {
    for doubted in [false, true] {
        let (mut fleet, peer) = connected();
        if doubted {
            seen(&mut fleet, VICTIM);
            fleet.pass(70 * SECOND);
        }
        // It says that it moved, and gets our answer and our question late.
        says(&mut fleet, ELSEWHERE, false);
        for n in 0..5 {
            seen(&mut fleet, if n % 2 == 0 { OTHER } else { VICTIM });
        }
        fleet.terminals[0].at = Some(ELSEWHERE.into());
        fleet.pass(2 * SECOND);
        assert_eq!(fleet.place(peer), at(ELSEWHERE), "doubted: {doubted}");
        let last = fleet.gateway.events.iter().rev().find_map(|event| match event {
            Event::PeerMoved { path, confirmed, .. } => Some((path.remote, *confirmed)),
            _ => None,
        });
        assert_eq!(last, Some((ELSEWHERE.into(), true)));
    }
}

#[test]
fn a_question_to_where_the_peer_is_no_more_does_not_keep_it_from_being_found() {
    let (mut fleet, peer) = connected();
    seen(&mut fleet, VICTIM);
    fleet.pass(11 * SECOND);
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    // The window is one request, and this one comes to nobody.
    fleet.gateway.endpoint.handle_liveness(fleet.now, peer, false);
    fleet.settle();
    seen(&mut fleet, ELSEWHERE);
    fleet.pass(2 * SECOND);
    assert_eq!((fleet.place(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
}

#[test]
fn to_and_fro_is_worth_no_more_than_once() {
    let (mut fleet, peer) = connected();
    for _ in 0..20 {
        seen(&mut fleet, VICTIM);
        fleet.pass(SECOND);
        seen(&mut fleet, TERMINAL);
        assert_eq!(fleet.place(peer), at(TERMINAL));
        fleet.pass(SECOND);
    }
    assert_eq!(unconfirmed(&fleet, VICTIM), 1);
    // Nor does one forged place after another prolong it.
    seen(&mut fleet, OTHER);
    assert_eq!(unconfirmed(&fleet, OTHER), 0);
}

#[test]
fn enough_bytes_end_it_and_the_question_remains() {
    let (mut fleet, peer) = connected();
    seen(&mut fleet, ELSEWHERE);
    fleet.gateway.endpoint.handle_unconfirmed(fleet.now, peer);
    assert_eq!(fleet.place(peer), at(TERMINAL));
    // It is there after all: the answer was slow.
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    fleet.pass(2 * SECOND);
    assert_eq!((fleet.place(peer), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 1));
}

#[test]
fn a_place_that_was_given_up_can_be_news_again() {
    let (mut fleet, peer) = connected();
    seen(&mut fleet, ELSEWHERE);
    fleet.pass(200 * SECOND);
    // The data plane is told the path once more when the questions end: it reports any other from
    // then on.
    let told = |event: &&Event| matches!(event, Event::PeerMoved { path, .. } if path.remote == IpAddr::from(TERMINAL));
    assert_eq!(fleet.gateway.events.iter().filter(told).count(), 2);
    fleet.terminals[0].at = Some(ELSEWHERE.into());
    seen(&mut fleet, ELSEWHERE);
    fleet.pass(33 * SECOND);
    assert_eq!(fleet.place(peer), at(ELSEWHERE));
}

#[test]
fn questions_to_a_victim_are_few() {
    let (mut fleet, peer) = connected();
    for n in 0..600 {
        seen(&mut fleet, if n % 2 == 0 { VICTIM } else { OTHER });
        fleet.pass(SECOND);
    }
    assert_eq!(fleet.place(peer), at(TERMINAL));
    let bytes: usize = fleet.lost.iter().map(|(_, message)| message.len()).sum();
    assert!(bytes < 600 * 100, "{bytes} bytes for 600 packets: {}", fleet.lost.len());
}

#[test]
fn one_word_after_another_draws_no_copies_of_what_waits_for_an_answer() {
    let (mut fleet, peer) = connected();
    // New keys are asked for, and the peer does not answer.
    fleet.gateway.endpoint.rekey(fleet.now, peer, true);
    let asked = fleet.gateway.work(fleet.now)[0].1.len();
    let mut bytes = 0;
    for n in 0..200u32 {
        let child = fleet.ups()[0].children().next().unwrap();
        let remote = IpAddr::from([198, 51, 100, n as u8 + 1]);
        let path = Path { local: GATEWAY.into(), remote, udp: Some((4500, 4500)) };
        fleet.gateway.endpoint.handle_path(fleet.now, child, path);
        fleet.now += Duration::from_millis(1);
        fleet.gateway.endpoint.handle_timeout(fleet.now);
        bytes += fleet.gateway.work(fleet.now).iter().map(|(_, message)| message.len()).sum::<usize>();
    }
    assert!(bytes <= 8 * asked, "{bytes} bytes by a request of {asked}");
}

#[test]
fn who_comes_again_is_doubted_still() {
    // Also before it is clear that it is not there.
    for later in [11 * SECOND, SECOND] {
        let (mut fleet, _) = connected();
        seen(&mut fleet, VICTIM);
        fleet.pass(later);
        fleet.terminals.clear();
        fleet.connect(TERMINAL, terminal());
        let peer = fleet.peer_at(TERMINAL).unwrap();
        seen(&mut fleet, VICTIM);
        assert_eq!((fleet.place(peer), unconfirmed(&fleet, VICTIM)), (at(TERMINAL), 1));
    }
}

#[test]
fn of_one_owners_devices_one_at_a_time_is_followed() {
    let mut fleet = Fleet::new(vec![Connection { unique: false, ..gateway() }]);
    let all = [10, 11, 12, 13].map(|n| [192, 0, 2, n]);
    for address in all {
        fleet.connect(address, terminal());
    }
    let devices = all.map(|address| fleet.peer_at(address).unwrap());
    // What is confirmed does not count.
    fleet.terminals[3].at = Some(ELSEWHERE.into());
    say(&mut fleet, 3, ELSEWHERE);
    assert_eq!((fleet.place(devices[3]), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 1));
    (0..3).for_each(|device| say(&mut fleet, device, VICTIM));
    assert_eq!(unconfirmed(&fleet, VICTIM), 1);
    // An honest one meanwhile is asked, and followed when it answers.
    fleet.terminals[2].at = Some(OTHER.into());
    say(&mut fleet, 2, OTHER);
    fleet.pass(Duration::from_millis(200));
    assert_eq!((fleet.place(devices[2]), unconfirmed(&fleet, OTHER)), (at(OTHER), 0));
    fleet.pass(60 * SECOND);
    assert_eq!(unconfirmed(&fleet, VICTIM), 1);
}

#[test]
fn those_whose_names_nobody_proved_answer_together() {
    let by_key = |n| (gateway(), named(n));
    let nameless = |n| {
        let eap = || Arc::new(Says(None));
        let here = Connection { remote_auth: RemoteAuth::Eap(eap()), ..gateway() };
        (here, Connection { local_auth: LocalAuth::Eap(eap()), ..named(n) })
    };
    for of in [&by_key as &dyn Fn(u8) -> (Connection, Connection), &nameless] {
        let mut fleet = Fleet::new(vec![of(0).0]);
        // It comes again and again, each time by another name.
        for n in 1..=20 {
            fleet.terminals.clear();
            fleet.connect([192, 0, 2, n + 20], of(n).1);
            let newest = fleet.ups().len() - 1;
            seen_of(&mut fleet, newest, VICTIM);
            fleet.settle();
            fleet.pass(3 * SECOND);
        }
        assert_eq!(unconfirmed(&fleet, VICTIM), 1);
        // An honest one meanwhile moves as soon as it answers, however rare the questions to the
        // others are.
        fleet.connect(TERMINAL, of(0).1);
        let honest = fleet.peer_at(TERMINAL).unwrap();
        let newest = fleet.ups().len() - 1;
        fleet.terminals.last_mut().unwrap().at = Some(ELSEWHERE.into());
        seen_of(&mut fleet, newest, ELSEWHERE);
        fleet.settle();
        assert_eq!((fleet.place(honest), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
    }
}

#[test]
fn who_proved_several_names_answers_for_itself() {
    let authority: Arc<dyn Verifier> = Arc::new(Names(vec![]));
    let mut fleet = Fleet::new(vec![Connection { remote_auth: RemoteAuth::Key(authority), ..gateway() }]);
    for n in 0..2 {
        let certificate = Names(format!("t{n}.test t{n}@example.org").into());
        let local_auth = LocalAuth::Key(Arc::new(certificate));
        fleet.connect([192, 0, 2, n + 1], Connection { local_auth, ..named(n) });
    }
    (0..2).for_each(|device| say(&mut fleet, device, VICTIM));
    assert_eq!(unconfirmed(&fleet, VICTIM), 2);
}

#[test]
fn moves_of_many_owners_that_are_under_way_count_together() {
    let mut fleet = gateway_of(40);
    (0..40).for_each(|n| {
        fleet.connect([192, 0, 2, n + 1], named(n));
    });
    (0..39).for_each(|device| say(&mut fleet, device, VICTIM));
    assert_eq!(unconfirmed(&fleet, VICTIM), 32);
    // An honest one meanwhile is asked, and followed when it answers.
    let honest = fleet.peer_at([192, 0, 2, 40]).unwrap();
    fleet.terminals[39].at = Some(ELSEWHERE.into());
    say(&mut fleet, 39, ELSEWHERE);
    assert_eq!((fleet.place(honest), unconfirmed(&fleet, ELSEWHERE)), (at(ELSEWHERE), 0));
    // The others have failed when their time is over, which is as bad.
    fleet.pass(30 * SECOND);
    say(&mut fleet, 38, OTHER);
    assert_eq!((unconfirmed(&fleet, VICTIM), unconfirmed(&fleet, OTHER)), (32, 0));
}

#[test]
fn an_honest_crowd_moves_at_once_or_upon_its_first_answer() {
    let mut fleet = gateway_of(200);
    (0..200).for_each(|n| {
        fleet.connect([192, 0, 2, n + 1], named(n));
    });
    let peers: Vec<PeerId> = fleet.ups().iter().map(|view| view.id()).collect();
    for restart in 1..=3 {
        // Their NAT restarts, and a packet of each comes before any answer can.
        let place = |n: usize| [100, 64, restart, n as u8 + 1];
        for n in 0..200 {
            fleet.terminals[n].at = Some(place(n).into());
            seen_of(&mut fleet, n, place(n));
        }
        fleet.settle();
        let at_once = (0..200).map(|n| unconfirmed(&fleet, place(n))).sum::<usize>();
        assert_eq!(at_once, 32, "restart {restart}");
        // No time has passed: the others needed no more than one question and its answer.
        (0..200).for_each(|n| assert_eq!(fleet.place(peers[n]), at(place(n))));
    }
}

#[test]
fn a_forged_source_of_the_last_request_is_a_move_that_is_not_confirmed() {
    let mut fleet = Fleet::new(vec![gateway()]);
    fleet.connect_forged(TERMINAL, VICTIM, terminal());
    let installed = fleet.gateway.children()[0].path.remote;
    assert_eq!((installed, unconfirmed(&fleet, VICTIM)), (IpAddr::from(TERMINAL), 1));
    fleet.pass(11 * SECOND);
    let peer = fleet.ups()[0].id();
    assert_eq!(fleet.place(peer).ip(), IpAddr::from(TERMINAL));
}
