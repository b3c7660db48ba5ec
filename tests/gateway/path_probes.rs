//! The MTU outside on paths whose routers say nothing: what probes find, and who hears of it.

use crate::{links::settle, path_mtu::report};
use std::time::Duration;
use wayfarer::{
    control::protocol::{Command, Outcome, PeerView, Reply, SaView, View},
    sim::{
        fixtures::{INSIDE, OUTSIDE, config},
        frames::datagram,
        ike::{
            configured::{for_terminals, ike},
            peer::Peer,
        },
        world::World,
    },
};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::ip::{IpHeader, protocol},
};

const SECOND: Duration = Duration::from_secs(1);

/// A terminal, which sends no probes of its own.
const TERMINAL: &str = r#"
[[connection]]
name = "home"
local = "192.0.2.1"
local_id = "cl.test"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
encap = "udp"
inner_local = ["10.98.0.0/16"]
inner_remote = ["10.99.0.0/24"]
path_mtu_probing = "off"
"#;

/// Connects a terminal to a gateway, whose connection has these keys, by a path that drops what is
/// longer than `mtu`.
fn connected(keys: &str, mtu: usize) -> (World, Peer) {
    connected_as(Peer::new(TERMINAL, "192.0.2.1"), keys, mtu)
}

fn connected_as(peer: Peer, keys: &str, mtu: usize) -> (World, Peer) {
    let mut config = config(vec![]);
    let net = "encap = \"udp\"\ninner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"10.98.0.0/16\"]\n";
    config.ike = for_terminals("10.97.0.0/24", &(net.to_owned() + keys));
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let mut peer = peer.behind(mtu);
    peer.connect(&mut world);
    settle(&mut world, &mut peer);
    world.take(OUTSIDE);
    (world, peer)
}

/// Lets time pass, in which data flows to the terminal.
fn pass(world: &mut World, peer: &mut Peer, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.pass(SECOND / 4);
        world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.7", (2, 1), b"down"));
        settle(world, peer);
    }
}

fn shown(world: &mut World) -> PeerView {
    match world.ask(Command::Show { what: View::Peers }).outcome {
        Outcome::Result(Reply::Peers(mut all)) => all.pop().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Returns the MTU of the path and who has found it, as both views have it.
fn found(world: &mut World) -> (Option<u16>, Option<String>) {
    let PeerView { path_mtu, path_mtu_source, .. } = shown(world);
    match world.ask(Command::Show { what: View::Sa }).outcome {
        Outcome::Result(Reply::Sa(all)) => {
            let of = |sa: &SaView| (sa.path_mtu, sa.path_mtu_source.clone());
            assert_eq!(of(&all[0]), (path_mtu, path_mtu_source.clone()));
        }
        other => panic!("{other:?}"),
    }
    (path_mtu, path_mtu_source)
}

/// Sends a packet that must not be cut to the terminal. Returns the outer packet, or the MTU that its
/// sender is told.
fn send(world: &mut World, length: usize) -> Result<Vec<u8>, usize> {
    let down = datagram("10.99.0.7", "10.98.0.7", (2, 1), &vec![7; length - 28]);
    world.send(INSIDE, &down);
    // A message of IKE may come at any time, because its keys are worked out beside the workers.
    let is_ike = |packet: &Vec<u8>| packet[9] == protocol::UDP && packet[28..32] == [0; 4];
    let outer = world.take(OUTSIDE).into_iter().rfind(|packet| !is_ike(packet));
    match (outer, world.take(INSIDE).pop()) {
        (Some(outer), None) => Ok(outer),
        (None, Some(answer)) => Err(u16::from_be_bytes([answer[26], answer[27]]).into()),
        other => panic!("{other:?} {:?}", world.all_drops()),
    }
}

#[test]
fn inner_senders_hear_of_an_mtu_that_no_router_reports() {
    let (mut world, mut peer) = connected("", 1400);
    assert!(send(&mut world, 1400).unwrap().len() > 1400);
    pass(&mut world, &mut peer, 12 * SECOND);
    assert_eq!(found(&mut world), (Some(1400), Some("probe".to_owned())));
    let told = send(&mut world, 1400).unwrap_err();
    let fits = send(&mut world, told).unwrap();
    assert!((1397..=1400).contains(&fits.len()), "{told} makes {}", fits.len());
    // The path takes more again.
    peer = peer.behind(1500);
    pass(&mut world, &mut peer, 130 * SECOND);
    assert_eq!(shown(&mut world).path_mtu, None);
    assert!(send(&mut world, 1400).is_ok());
    assert_eq!(world.slow_drops(DropReason::PathMtu), 0);
}

/// Its new link begins where the old one was.
#[test]
fn terminal_that_authenticates_again_keeps_the_mtu_of_its_path() {
    let mut terminal = ike(TERMINAL, "192.0.2.1");
    terminal.connections[0].protocol.lifetimes.authentication = Some(60 * SECOND);
    let (mut world, mut peer) = connected_as(Peer::with(terminal, "192.0.2.1"), "", 1400);
    peer.may_end = true;
    let first = peer.side.connected_peers();
    pass(&mut world, &mut peer, 15 * SECOND);
    let told = send(&mut world, 1400).unwrap_err();
    for _ in 0..300 {
        world.pass(SECOND / 4);
        peer.side.endpoint.handle_timeout(world.now);
        settle(&mut world, &mut peer);
        world.take(OUTSIDE);
        assert_eq!(send(&mut world, 1400).unwrap_err(), told);
    }
    assert_ne!(peer.side.connected_peers(), first);
}

#[test]
fn probes_go_whole_and_may_not_be_cut() {
    let (mut world, _) = connected("", 1500);
    world.pass(2 * SECOND);
    let sent = world.take(OUTSIDE);
    let probes: Vec<_> = sent.iter().filter(|packet| packet.len() == 1500).collect();
    assert!(!probes.is_empty(), "{:?}", sent.iter().map(Vec::len).collect::<Vec<_>>());
    assert!(probes.iter().all(|probe| IpHeader::parse(probe).unwrap().dont_fragment));
}

#[test]
fn mtu_of_the_connection_is_not_exceeded_and_off_means_off() {
    // Routers may cut outer packets if these may be sent in fragments.
    for (keys, wanted) in
        [("mtu = 1400", Some(1400)), ("path_mtu_probing = \"off\"", None), ("outer_fragments = true", None)]
    {
        let (mut world, _) = connected(keys, 1500);
        world.pass(5 * SECOND);
        assert_eq!(world.take(OUTSIDE).iter().map(Vec::len).max(), wanted, "{keys}");
    }
}

#[test]
fn probes_check_what_routers_report() {
    let (mut world, mut peer) = connected("", 1500);
    pass(&mut world, &mut peer, 5 * SECOND);
    assert_eq!(shown(&mut world).path_mtu, None);
    // Somebody on the way reports what is not true.
    let outer = send(&mut world, 1400).unwrap();
    world.send(OUTSIDE, &report(&outer, 600, 16));
    assert_eq!(shown(&mut world).path_mtu, Some(600));
    // It is checked at once, and undone in a minute, although the link is idle.
    world.pass(SECOND / 4);
    assert!(world.take(OUTSIDE).iter().any(|packet| (584..=600).contains(&packet.len())));
    for _ in 0..75 {
        world.pass(SECOND);
        settle(&mut world, &mut peer);
    }
    assert_eq!(shown(&mut world).path_mtu, None);
}

#[test]
fn mtu_that_probes_confirm_stays_the_finding_of_the_router_that_reported_it() {
    let (mut world, mut peer) = connected("", 1500);
    pass(&mut world, &mut peer, 5 * SECOND);
    let outer = send(&mut world, 1400).unwrap();
    peer = peer.behind(1400);
    world.send(OUTSIDE, &report(&outer, 1400, 16));
    for _ in 0..2 {
        assert_eq!(found(&mut world), (Some(1400), Some("router".to_owned())));
        // Probes check it at once.
        pass(&mut world, &mut peer, 20 * SECOND);
    }
    // No router tells that it has become smaller.
    peer = peer.behind(1300);
    pass(&mut world, &mut peer, 130 * SECOND);
    assert_eq!(found(&mut world), (Some(1300), Some("probe".to_owned())));
}

#[test]
fn report_that_shows_too_little_only_starts_probes() {
    let (mut world, mut peer) = connected("", 1500);
    pass(&mut world, &mut peer, 15 * SECOND);
    let outer = send(&mut world, 1400).unwrap();
    peer = peer.behind(1400);
    for _ in 0..20 {
        world.send(OUTSIDE, &report(&outer, 1300, 8));
    }
    assert_eq!(shown(&mut world).path_mtu, None);
    assert_eq!(world.slow_drops(DropReason::PathMtu), 19, "one look-up a second");
    pass(&mut world, &mut peer, 20 * SECOND);
    assert_eq!(shown(&mut world).path_mtu, Some(1400));
}

#[test]
fn strangers_who_guess_paths_use_up_no_report() {
    let (mut world, mut peer) = connected("", 1500);
    pass(&mut world, &mut peer, 15 * SECOND);
    let outer = send(&mut world, 1400).unwrap();
    let mut guess = outer.clone();
    guess[23] ^= 1;
    for _ in 0..300 {
        world.send(OUTSIDE, &report(&guess, 1300, 8));
    }
    world.send(OUTSIDE, &report(&outer, 1300, 8));
    assert_eq!(world.slow_drops(DropReason::PathMtu), 300);
}

#[test]
fn report_about_a_probe_names_the_next_length_to_try() {
    let (mut world, mut peer) = connected("", 1441);
    world.pass(SECOND);
    let probe = world.take(OUTSIDE).into_iter().find(|packet| packet.len() == 1500).unwrap();
    world.send(OUTSIDE, &report(&probe, 1441, 16));
    assert_eq!(world.slow_drops(DropReason::PathMtu), 0);
    pass(&mut world, &mut peer, 12 * SECOND);
    assert!((1438..=1441).contains(&shown(&mut world).path_mtu.unwrap()));
}

/// They go in fragments of IKE or, to a peer that knows none, of IP.
#[test]
fn messages_are_cut_for_what_the_path_takes() {
    for (fragment, are_cut) in [("1280", false), ("\"none\"", true)] {
        let keys =
            format!("fragment = {fragment}\nproposals = [\"aes256gcm16-prfsha384-x25519-ke1_mlkem768\"]\n");
        let terminal = Peer::new(&(TERMINAL.to_owned() + &keys), "192.0.2.1");
        let (mut world, mut peer) = connected_as(terminal, &keys, 600);
        pass(&mut world, &mut peer, 20 * SECOND);
        assert_eq!(shown(&mut world).path_mtu, Some(576), "{fragment}");
        let spis = |peer: &Peer| peer.side.endpoint.peers().next().unwrap().spis();
        let before = spis(&peer);
        (peer.longest, peer.fragments) = (0, 0);
        let rekey = Command::PeerRekey { peer: "cl.test".into(), ike: true };
        assert_eq!(world.ask(rekey).outcome, Outcome::Result(Reply::Done));
        peer.until(&mut world, |peer| spis(peer) != before);
        assert!((500..=576).contains(&peer.longest), "{fragment}: {}", peer.longest);
        assert_eq!(peer.fragments > 0, are_cut, "{fragment}: {} fragments of IP", peer.fragments);
    }
}
