//! Commands about peers of IKE, and the names of peers that the gateway connects to.

use crossbeam::channel::{Receiver, bounded};
use std::time::{Duration, Instant};
use wayfarer::{
    config::model::Config,
    control::protocol::{Answer, Command, MOVE_TIME, Outcome, PeerView, Reply, View},
    sim::{
        fixtures::{OUTSIDE, config, ip, open_ports},
        ike::{
            configured::{for_terminals, ike},
            peer::Peer,
        },
        world::World,
    },
};

/// The connection of the other gateway, which answers.
const OFFICE: &str = r#"
[[connection]]
name = "gateway"
local = "192.0.2.1"
local_id = "office.test"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
inner_local = "10.98.0.0/24"
inner_remote = "10.99.0.0/24"
"#;

/// The connection of a terminal.
const TERMINAL: &str = r#"
[[connection]]
name = "home"
local = "192.0.2.1"
local_id = "cl.test"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
request_address = true
inner_remote = "0.0.0.0/0"
"#;

/// Makes a gateway, and a terminal that has connected to it.
fn with_terminal() -> (World, Peer) {
    let mut config = config(vec![]);
    config.ike = for_terminals("10.97.0.0/24", "inner_local = \"0.0.0.0/0\"");
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let mut peer = Peer::new(TERMINAL, "192.0.2.1");
    peer.connect(&mut world);
    (world, peer)
}

/// Makes the configuration of a gateway that connects to an office at `remote`, from one of two
/// addresses. Its only route leads to the office's network.
fn of_office(remote: &str) -> Config {
    let mut config = config(vec![]);
    let text = format!(
        r#"
[[connection]]
name = "office"
local = ["203.0.113.1", "10.99.0.1"]
local_id = "gw.test"
remote = {remote}
remote_id = "office.test"
auth = "psk"
psk_file = "$PSK"
inner_local = "10.99.0.0/24"
inner_remote = "10.98.0.0/24"
"#
    );
    config.ike = ike(&text, "203.0.113.1");
    config.routes.truncate(1);
    config.routes[0].to = "192.0.2.0/24".parse().unwrap();
    config
}

/// Makes a gateway that tries to connect to an office at `remote`.
fn connecting(remote: &str) -> World {
    let mut world = World::with(of_office(remote), 512);
    world.meet_neighbours();
    world
}

/// Makes a gateway as [`connecting`] does, and the office to which it has connected.
fn dialling(remote: &str) -> (World, Peer) {
    let mut world = connecting(remote);
    let mut office = Peer::new(OFFICE, "192.0.2.1");
    carry_until(&mut world, &mut office, |world| peers(world).iter().any(|peer| peer.state == "up"));
    (world, office)
}

/// Carries messages between the gateway and the office until `done`. The gateway's threads compute in
/// real time, and must not miss the end of a try, so virtual time only advances if nothing comes for
/// a second.
fn carry_until(world: &mut World, office: &mut Peer, mut done: impl FnMut(&mut World) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut silent_since = Instant::now();
    while !done(world) {
        assert!(Instant::now() < deadline, "nothing comes of it: {:?}", world.all_drops());
        if silent_since.elapsed() > Duration::from_secs(1) {
            world.pass(Duration::from_secs(1));
            silent_since = Instant::now();
        }
        let messages = office.side.work(world.now);
        office.send(world, messages);
        if office.receive(world) {
            silent_since = Instant::now();
        }
        std::thread::yield_now();
    }
}

/// Sends a command, and returns the channel of its answer.
fn send(world: &mut World, command: Command) -> Receiver<Answer> {
    let (to, answers) = bounded(1);
    world.assembly.requests.send((command, to)).unwrap();
    world.settle();
    answers
}

fn move_to(local: &str) -> Command {
    Command::PeerMove { peer: "office".into(), local: ip(local) }
}

fn error(outcome: Outcome) -> String {
    match outcome {
        Outcome::Error(why) => why,
        other => panic!("{other:?}"),
    }
}

fn peers(world: &mut World) -> Vec<PeerView> {
    match world.ask(Command::Show { what: View::Peers }).outcome {
        Outcome::Result(Reply::Peers(all)) => all,
        other => panic!("{other:?}"),
    }
}

fn bars(world: &mut World) -> Vec<(String, f64)> {
    match world.ask(Command::Show { what: View::Bars }).outcome {
        Outcome::Result(Reply::Bars(all)) => all.into_iter().map(|bar| (bar.identity, bar.left_s)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn move_by_hand_is_answered_once_the_peer_has_answered() {
    let (mut world, mut office) = dialling("\"192.0.2.1\"");
    let answers = send(&mut world, move_to("10.99.0.1"));
    assert!(answers.try_recv().is_err(), "the peer has not answered yet");
    carry_until(&mut world, &mut office, |_| !answers.is_empty());
    assert_eq!(answers.try_recv().unwrap().outcome, Outcome::Result(Reply::Done));
    assert!(peers(&mut world)[0].local.starts_with("10.99.0.1:"));
}

#[test]
fn move_by_hand_takes_only_addresses_of_ours() {
    let (mut world, _) = dialling("\"192.0.2.1\"");
    for (local, why) in [
        ("203.0.113.2", "no port has that address"),
        ("10.99.0.7", "no port has that address"),
        ("2001:db8:1::1", "the peer's connection does not have that address in `local`"),
    ] {
        assert_eq!(error(world.ask(move_to(local)).outcome), why, "{local}");
    }
    let view = &peers(&mut world)[0];
    assert_eq!((&view.local[..], view.moves), ("203.0.113.1:4500", 0));
}

#[test]
fn move_by_hand_needs_a_connected_peer_with_mobike() {
    let mut world = connecting("\"192.0.2.1\"");
    assert_eq!(error(world.ask(move_to("10.99.0.1")).outcome), "the peer is not connected");
    let (mut world, _) = dialling("\"192.0.2.1\"\nmobike = false");
    let why = "the peer cannot move: not both sides support MOBIKE";
    assert_eq!(error(world.ask(move_to("10.99.0.1")).outcome), why);
    assert!(peers(&mut world)[0].local.starts_with("203.0.113.1:"));
}

#[test]
fn move_by_hand_says_that_the_peer_does_not_answer() {
    let (mut world, _) = dialling("\"192.0.2.1\"");
    let answers = send(&mut world, move_to("10.99.0.1"));
    world.pass(MOVE_TIME - Duration::from_secs(1));
    assert!(answers.try_recv().is_err());
    world.pass(Duration::from_secs(1));
    let why = error(answers.try_recv().unwrap().outcome);
    assert!(why.starts_with("not moved yet: the peer has not answered for 30 s"), "{why}");
    let answers = send(&mut world, move_to("10.99.0.1"));
    world.pass(MOVE_TIME - Duration::from_secs(1));
    send(&mut world, Command::PeerDown { peer: "office".into(), bar_ms: None });
    let why = error(answers.try_recv().unwrap().outcome);
    assert_eq!(why, "not moved: the link has ended: closed here");
}

#[test]
fn later_move_answers_for_an_earlier_one() {
    let (mut world, mut office) = dialling("\"192.0.2.1\"");
    let first = send(&mut world, move_to("10.99.0.1"));
    let second = send(&mut world, move_to("203.0.113.1"));
    carry_until(&mut world, &mut office, |_| !second.is_empty());
    assert_eq!(second.try_recv().unwrap().outcome, Outcome::Result(Reply::Done));
    assert_eq!(error(first.try_recv().unwrap().outcome), "a later move took the link to 203.0.113.1");
}

#[test]
fn only_the_side_that_connected_moves_by_hand() {
    let (mut world, _peer) = with_terminal();
    let command = Command::PeerMove { peer: "cl.test".into(), local: ip("203.0.113.1") };
    let why = "the peer connected to us, so only the peer can move the link (RFC 4555)";
    assert_eq!(error(world.ask(command).outcome), why);
}

#[test]
fn barred_peer_is_listed_refused_and_admitted_again() {
    let (mut world, mut peer) = with_terminal();
    peer.may_end = true;
    assert_eq!(bars(&mut world), []);
    let bar = Command::PeerDown { peer: "cl.test".into(), bar_ms: Some(3_600_000) };
    assert_eq!(world.ask(bar).outcome, Outcome::Result(Reply::Done));
    let listed = bars(&mut world);
    assert!(matches!(&listed[..], [(name, left)] if name == "cl.test" && *left > 3599.0), "{listed:?}");
    peer.until(&mut world, |peer| peer.side.end_reasons().len() == 1);
    // It comes again at once, and is refused.
    let mut again = Peer::new(TERMINAL, "192.0.2.1");
    again.may_end = true;
    again.side.endpoint.dial(world.now, 0, ip("192.0.2.1"));
    again.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    let failed = match world.ask(Command::Show { what: View::FailedPeers }).outcome {
        Outcome::Result(Reply::FailedPeers(all)) => all,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed[0].reason, "the operator has barred this identity");
    let unbar = |name: &str| Command::PeerUnbar { identity: name.into() };
    assert_eq!(error(world.ask(unbar("alice")).outcome), "no identity of that name is barred");
    assert_eq!(world.ask(unbar("cl.test")).outcome, Outcome::Result(Reply::Done));
    assert_eq!(bars(&mut world), []);
    let mut third = Peer::new(TERMINAL, "192.0.2.1");
    third.connect(&mut world);
}

/// The system's resolver takes the first name for a number: 198.51.100.1, to which no route leads.
#[test]
fn name_that_leads_nowhere_leaves_the_turn_to_the_next_address() {
    let mut world = connecting("[\"0xc6336401\", \"192.0.2.1:4500\"]");
    let deadline = Instant::now() + Duration::from_secs(20);
    // No virtual time passes, so that no attempt is given up.
    while world.take(OUTSIDE).is_empty() {
        assert!(Instant::now() < deadline, "nothing is sent: {:?}", world.all_drops());
        std::thread::yield_now();
        world.settle();
    }
    let view = &peers(&mut world)[0];
    assert_eq!((&view.remote[..], &view.remote_name), ("192.0.2.1:4500", &None));
}

#[test]
fn connection_begins_from_an_address_of_the_port_that_its_packets_leave_by() {
    for (local, from) in [
        (["10.99.0.1", "203.0.113.1"], "203.0.113.1"),
        (["203.0.113.1", "203.0.113.2"], "203.0.113.1"),
        // The port's second address stays as well.
        (["203.0.113.2", "203.0.113.1"], "203.0.113.2"),
    ] {
        let mut config = of_office("\"192.0.2.1\"");
        config.ike.connections[0].protocol.local = local.map(ip).to_vec();
        let (mut ports, wires) = open_ports(1, 512);
        ports[OUTSIDE].addresses.push((ip("203.0.113.2"), "203.0.113.0/24".parse().unwrap()));
        let mut world = World::on(config, (ports, wires));
        world.meet_neighbours();
        let view = &peers(&mut world)[0];
        assert!(view.local.starts_with(&format!("{from}:")), "{local:?}: {}", view.local);
    }
}
