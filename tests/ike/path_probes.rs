//! The MTU of a path that drops longer packets without a word, found by probes (RFC 8899).

mod rig;

use rig::{Rig, SECOND, probing};
use std::{net::SocketAddr, time::Duration};
use wayfarer::sim::ike::{
    connections::{gateway, offer, terminal},
    side::{reversed, run_tasks},
};
use wayfarer_mobility::{
    crypto::{Encr, Integ},
    ike::{
        connection::Connection,
        counter::Counter,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
        wire::{ExchangeType, Header},
    },
    path_mtu::{PacketsSent, PathProbing},
    transmit::{Payload, Transmit},
};

#[test]
fn mtu_of_a_silent_path_is_found_in_seconds() {
    for (mtu, found) in [(1492, 1492), (1439, 1430), (1400, 1400), (1280, 1280), (1100, 1006), (576, 576)] {
        let mut rig = Rig::new(mtu);
        // Whatever the path takes, something that passes is known soon.
        let is_any_known =
            |rig: &Rig| rig.found().iter().all(|found| found.is_some_and(|(mtu, _)| mtu.is_some()));
        let soon = rig.until(8 * SECOND, is_any_known);
        let all = rig.until(20 * SECOND, |rig| rig.has_found(Some(found)));
        eprintln!("{mtu}: {soon:?}, {all:?}, {:?}", rig.probes);
        rig.assert_connected();
    }
}

#[test]
fn path_that_takes_all_costs_one_exchange() {
    for most in [1280, 1500, 9000] {
        let mut rig = Rig::new(9000);
        rig.most = most;
        let sent = rig.sent;
        rig.pass(25 * SECOND);
        assert!(rig.has_found(None));
        assert_eq!((&rig.probes[..], rig.sent - sent), (&[most.into()][..], 4));
        // It is confirmed about once a minute while much is sent, and each ten minutes while little is.
        rig.pass(575 * SECOND);
        assert!((9..13).contains(&rig.probes.len()), "{}", rig.probes.len());
        for (data, wanted) in [(PacketsSent::Little, 3..7), (PacketsSent::None, 0..1)] {
            (rig.data, rig.probes) = (data, vec![]);
            rig.pass(3600 * SECOND);
            assert!(wanted.contains(&rig.probes.len()), "{data:?} {:?}", rig.probes);
        }
    }
}

#[test]
fn block_cipher_claims_no_more_than_was_sent() {
    let offers = vec![Offer { encr: vec![Encr::AesCbc(256)], integ: vec![Integ::HmacSha256], ..offer() }];
    for mtu in [1500, 1492, 1400] {
        let cbc = |connection| Connection { ike: offers.clone(), ..probing(connection) };
        let mut rig = Rig::with(mtu, cbc(gateway()), cbc(terminal()));
        rig.pass(20 * SECOND);
        for found in rig.found() {
            let Some((Some(found), true)) = found else { panic!("{mtu}: {found:?}") };
            assert!((mtu - 16..=mtu).contains(&found.into()), "{mtu}: {found}");
            assert_eq!(rig.is_limited(), mtu < 1480, "{mtu}");
        }
    }
}

#[test]
fn path_that_changes_is_noticed_while_data_flows() {
    let mut rig = Rig::new(1500);
    rig.pass(300 * SECOND);
    assert!(rig.has_found(None));
    rig.mtu = 1400;
    rig.until(80 * SECOND, |rig| rig.has_found(Some(1400)));
    rig.mtu = 1300;
    rig.until(85 * SECOND, |rig| rig.has_found(Some(1300)));
    rig.mtu = 1460;
    rig.until(130 * SECOND, |rig| rig.has_found(Some(1460)));
    rig.pass(3600 * SECOND);
    assert!(rig.has_found(Some(1460)), "{:?}", rig.found());
    // After an hour, longer packets are tried each ten minutes.
    rig.probes = vec![];
    rig.pass(3000 * SECOND);
    let tried = rig.probes.iter().filter(|size| **size == 1500).count() / 3;
    assert!((4..=6).contains(&tried), "{tried}");
    rig.mtu = 1500;
    rig.until(700 * SECOND, |rig| rig.has_found(None));
    rig.assert_connected();
}

#[test]
fn other_requests_do_not_wait_for_a_probe() {
    type Act = fn(&mut Rig);
    let acts: [(Act, ExchangeType); 2] = [
        (|rig| rig.sides[0].endpoint.rekey(rig.now, rig.peer(), false), ExchangeType::CreateChildSa),
        (|rig| rig.sides[0].endpoint.rekey(rig.now, rig.peer(), true), ExchangeType::CreateChildSa),
    ];
    for (act, exchange) in acts {
        let mut rig = Rig::new(1400);
        rig.until(2 * SECOND, |rig| !rig.probes.is_empty());
        act(&mut rig);
        let mut exchanges = vec![];
        // The answers come at once, so no time passes.
        while let Some(Transmit { addresses, payload: Payload::Message(message) }) = {
            run_tasks(&mut rig.sides[0].endpoint, rig.now);
            rig.sides[0].endpoint.poll_transmit()
        } {
            exchanges.push(Header::parse(&message).unwrap().exchange);
            rig.sides[1].endpoint.handle_datagram(rig.now, reversed(addresses), &message);
            run_tasks(&mut rig.sides[1].endpoint, rig.now);
            while let Some(Transmit { addresses, payload }) = rig.sides[1].endpoint.poll_transmit() {
                let (Payload::Message(message) | Payload::Probe(message)) = payload else { continue };
                rig.sides[0].endpoint.handle_datagram(rig.now, reversed(addresses), &message);
            }
        }
        assert!(exchanges.contains(&exchange.number()), "{exchanges:?}");
        let rekeyed = u64::from(exchange == ExchangeType::CreateChildSa);
        assert_eq!(rig.sides[0].endpoint.count(Counter::Rekeyed), rekeyed);
        rig.until(20 * SECOND, |rig| rig.has_found(Some(1400)));
        rig.assert_connected();
    }
}

#[test]
fn closed_link_does_not_wait_for_a_probe() {
    let mut rig = Rig::new(1400);
    rig.until(2 * SECOND, |rig| !rig.probes.is_empty());
    let peer = rig.peer();
    rig.sides[0].endpoint.close(rig.now, peer);
    rig.carry();
    assert_eq!(rig.sides[1].end_reasons().len(), 1);
}

#[test]
fn path_after_a_move_is_probed_anew() {
    let mut rig = Rig::new(1400);
    rig.until(2 * SECOND, |rig| !rig.probes.is_empty());
    // The probe of the first path is still outstanding.
    let roam = |rig: &mut Rig, address: [u8; 4]| {
        let (now, peer) = (rig.now, rig.peer());
        rig.sides[0].endpoint.handle_local(now, peer, address.into(), None).unwrap();
        rig.carry();
    };
    roam(&mut rig, [192, 0, 2, 8]);
    rig.pass(SECOND / 5);
    let view = rig.sides[1].endpoint.peers().next().unwrap();
    assert_eq!(view.addresses().remote, SocketAddr::from(([192, 0, 2, 8], 4500)), "the update did not wait");
    rig.until(20 * SECOND, |rig| rig.has_found(Some(1400)));
    rig.mtu = 1500;
    roam(&mut rig, [192, 0, 2, 9]);
    rig.until(5 * SECOND, |rig| rig.has_found(None));
    rig.assert_connected();
}

#[test]
fn loss_lowers_no_mtu() {
    let mut rig = Rig::new(1500);
    rig.until(5 * SECOND, |rig| rig.has_found(None));
    rig.loss = 20;
    rig.pass(4000 * SECOND);
    rig.assert_nothing_lowered();
    assert!(rig.probes.len() > 60);
    rig.assert_connected();
}

#[test]
fn short_outage_lowers_no_mtu() {
    for outage in (250..20_000).step_by(750).map(Duration::from_millis) {
        let mut rig = Rig::new(1500);
        rig.until(5 * SECOND, |rig| rig.has_found(None));
        // It begins with a probe.
        let before = rig.probes.len();
        rig.loss = 100;
        rig.until(70 * SECOND, |rig| rig.probes.len() > before);
        rig.pass(outage);
        rig.loss = 0;
        rig.pass(130 * SECOND);
        rig.assert_nothing_lowered();
        rig.assert_connected();
    }
}

#[test]
fn probe_without_an_answer_ends_no_link() {
    let quiet = |connection| Connection { liveness: None, ..probing(connection) };
    let mut rig = Rig::with(1500, quiet(gateway()), quiet(terminal()));
    rig.until(5 * SECOND, |rig| rig.has_found(None));
    rig.loss = 100;
    rig.pass(1800 * SECOND);
    rig.assert_connected();
    rig.loss = 0;
    rig.mtu = 1400;
    rig.until(120 * SECOND, |rig| rig.has_found(Some(1400)));
    rig.assert_nothing_but(1400);
    // Another request does not wait for ever.
    rig.loss = 100;
    rig.pass(600 * SECOND);
    rig.assert_connected();
    let (now, peer) = (rig.now, rig.peer());
    rig.sides[0].endpoint.handle_liveness(now, peer, false);
    rig.pass(Settings::default().retransmission.total() - SECOND);
    assert_eq!(rig.sides[0].end_reasons(), []);
    rig.pass(2 * SECOND);
    assert_eq!(rig.sides[0].end_reasons(), [Reason::Timeout]);
}

#[test]
fn dead_peer_is_noticed_although_a_probe_is_outstanding() {
    let delays = [Duration::ZERO, Duration::from_millis(1400)];
    // A length that has passed before is tried for longer once it fails, so the check waits longer.
    let all = [2u32, 30].into_iter().flat_map(|liveness| delays.map(|delay| (liveness * SECOND, delay)));
    for ((liveness, delay), is_doubted) in all.flat_map(|each| [(each, false), (each, true)]) {
        let checked = |connection| Connection { liveness: Some(liveness), ..probing(connection) };
        let mut rig = Rig::with(1500, checked(gateway()), checked(terminal()));
        rig.until(5 * SECOND, |rig| rig.has_found(None));
        rig.heard = Some(true);
        // Another search learns how long answers take.
        rig.delay = delay;
        rig.pass(130 * SECOND);
        let before = rig.probes.len();
        if is_doubted {
            rig.mtu = 1400;
            // The first probe is sent three times.
            rig.until(90 * SECOND, |rig| rig.probes.len() > before + 3);
        } else {
            rig.until(90 * SECOND, |rig| rig.probes.len() > before);
        }
        (rig.loss, rig.heard) = (100, Some(false));
        // The probe is sent whole for six times four seconds at most, and short four seconds later.
        let most = liveness + 28 * SECOND + Settings::default().retransmission.total();
        rig.until(most + 3 * SECOND, |rig| !rig.sides[0].end_reasons().is_empty());
        assert_eq!(rig.sides[0].end_reasons(), [Reason::Timeout]);
    }
}

#[test]
fn frequent_liveness_checks_end_no_search() {
    let mut rig = Rig::new(1400);
    rig.until(2 * SECOND, |rig| !rig.probes.is_empty());
    let (start, peer) = (rig.now, rig.peer());
    while !rig.has_found(Some(1400)) {
        assert!(rig.now < start + 20 * SECOND, "{:?}", rig.probes);
        let now = rig.now;
        rig.sides[0].endpoint.handle_liveness(now, peer, false);
        rig.pass(SECOND / 2);
    }
}

#[test]
fn link_that_wakes_looks_within_two_minutes() {
    let mut rig = Rig::new(1500);
    rig.until(5 * SECOND, |rig| rig.has_found(None));
    rig.data = PacketsSent::None;
    rig.pass(7200 * SECOND);
    rig.mtu = 1400;
    rig.data = PacketsSent::Much;
    rig.until(90 * SECOND, |rig| rig.has_found(Some(1400)));
}

#[test]
fn slow_path_is_not_probed_without_end() {
    let mut rig = Rig::new(1500);
    (rig.mtu, rig.delay) = (1400, 3 * SECOND / 2);
    rig.until(120 * SECOND, |rig| rig.has_found(Some(1400)));
    // No answer comes before the probe has become short and was repeated.
    rig.delay = 15 * SECOND;
    rig.pass(600 * SECOND);
    rig.probes = vec![];
    rig.pass(7200 * SECOND);
    assert!((6..150).contains(&rig.probes.len()), "{}", rig.probes.len());
    rig.assert_connected();
}

#[test]
fn peer_rekeys_the_ike_sa_while_a_probe_is_outstanding() {
    let mut rig = Rig::new(1400);
    rig.until(2 * SECOND, |rig| !rig.probes.is_empty());
    let (now, peer) = (rig.now, rig.sides[1].connected_peers()[0]);
    rig.sides[1].endpoint.rekey(now, peer, true);
    rig.pass(SECOND / 2);
    assert_eq!(rig.sides[1].endpoint.count(Counter::Rekeyed), 1);
    rig.until(20 * SECOND, |rig| rig.has_found(Some(1400)));
    rig.pass(120 * SECOND);
    rig.assert_connected();
}

#[test]
fn false_report_does_not_outlast_a_minute_on_an_idle_link() {
    let mut rig = Rig::new(1500);
    rig.until(5 * SECOND, |rig| rig.has_found(None));
    rig.data = PacketsSent::None;
    rig.pass(30 * SECOND);
    let (now, peer) = (rig.now, rig.peer());
    rig.sides[0].endpoint.handle_path_report(now, peer, 600, true);
    rig.pass(SECOND);
    assert_eq!(rig.found()[0], Some((Some(600), true)));
    rig.until(70 * SECOND, |rig| rig.has_found(None));
}

#[test]
fn peer_without_fragments_is_probed_as_well() {
    let terminal = Connection { fragment: None, ..probing(terminal()) };
    let mut rig = Rig::with(1400, probing(gateway()), terminal);
    rig.until(20 * SECOND, |rig| rig.has_found(Some(1400)));
    rig.assert_connected();
}

#[test]
fn only_paths_in_udp_are_probed_by_default() {
    let by_default = |connection| Connection { path_probing: PathProbing::Udp, ..connection };
    for force_udp in [false, true] {
        let with = |connection| Connection { force_udp, ..by_default(connection) };
        let mut rig = Rig::with(1500, with(gateway()), with(terminal()));
        rig.pass(10 * SECOND);
        let found = force_udp.then_some((None, true));
        assert_eq!((rig.found(), rig.probes.len()), ([found; 2], usize::from(force_udp)));
    }
}

#[test]
fn nothing_is_learnt_from_a_peer_that_ignores_probes() {
    let mut rig = Rig::new(1500);
    rig.ignores_probes = true;
    rig.pass(3600 * SECOND);
    assert_eq!(rig.found(), [None; 2]);
    rig.assert_connected();
    assert!(rig.probes.len() <= 7 * 9, "{:?}", rig.probes);
}

#[test]
fn reports_of_routers_are_confirmed_by_a_probe() {
    let mut rig = Rig::new(1500);
    rig.pass(30 * SECOND);
    let report = |rig: &mut Rig, mtu, certain| {
        let (now, peer) = (rig.now, rig.peer());
        rig.sides[0].endpoint.handle_path_report(now, peer, mtu, certain);
        rig.probes = vec![];
    };
    let found = |rig: &Rig| rig.found()[0];
    rig.mtu = 1438;
    report(&mut rig, 1438, true);
    rig.pass(Duration::ZERO);
    assert_eq!((found(&rig), &rig.probes[..]), (Some((Some(1438), true)), &[1438][..]));
    // What is not true does not last.
    rig.mtu = 1500;
    report(&mut rig, 600, true);
    rig.until(130 * SECOND, |rig| found(rig) == Some((None, true)));
    // One that anybody may have sent only makes us look now, and not too often.
    rig.pass(11 * SECOND);
    rig.mtu = 1438;
    report(&mut rig, 1438, false);
    rig.until(20 * SECOND, |rig| found(rig) == Some((Some(1438), true)));
    for _ in 0..50 {
        report(&mut rig, 1300, false);
        rig.pass(Duration::ZERO);
        assert!(rig.probes.is_empty(), "{:?}", rig.probes);
    }
    // It does not wake an idle link, and a link that sends little looks.
    for (data, wanted) in [(PacketsSent::None, 0), (PacketsSent::Little, 1)] {
        rig.pass(15 * SECOND);
        rig.data = data;
        report(&mut rig, 1300, false);
        rig.pass(Duration::ZERO);
        assert_eq!(rig.probes.len(), wanted, "{data:?}");
    }
}
