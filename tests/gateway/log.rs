//! The log's lines about links, in both formats.

use crate::links::{connected_with, send_from, settle};
use serde_json::{Value, json};
use std::time::Duration;
use wayfarer::{
    config::model::Ike,
    control::protocol::{Command, Outcome, Reply, View},
    log::{Format, recorded},
    sim::{
        fixtures::{config, ip, suite, tunnel},
        ike::{
            configured::{for_terminals, ike},
            peer::Peer,
        },
        world::World,
    },
};
use wayfarer_mobility::{
    crypto::Secret,
    identity::{Identity, kind},
    ike::{
        connection::{LocalAuth, RemoteAuth, SharedKey},
        settings::Settings,
    },
};

const TERMINAL: &str = r#"
[[connection]]
name = "office"
local = "192.0.2.1"
local_id = "one.test"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
inner_local = ["10.98.1.0/24"]
inner_remote = ["10.99.0.0/24"]
"#;

/// Returns the objects that this thread logs during `act`, one from each line.
fn objects(act: impl FnOnce()) -> Vec<Value> {
    let text = recorded(Format::Json, act);
    assert!(!text.contains("a secret of both"), "{text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

/// Returns the events of this name.
fn named<'a>(all: &'a [Value], event: &str) -> Vec<&'a Value> {
    all.iter().filter(|object| object["event"] == event).collect()
}

/// Asserts that an object has these fields with these values.
#[track_caller]
fn assert_has(object: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&object[field], value, "{field} of {object}");
    }
}

/// Makes a gateway for terminals.
fn gateway() -> World {
    let mut config = config(vec![tunnel(1, suite("aes128gcm16"))]);
    let keys = "proposals = [\"aes256gcm16-prfsha384-ecp256\"]\ninner_local = [\"10.99.0.0/24\"]\n\
                inner_remote = [\"10.98.0.0/16\"]";
    config.ike = for_terminals("10.97.0.0/24", keys);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Has a terminal with this configuration try to connect in vain.
fn fail(world: &mut World, configuration: Ike) {
    let mut peer = Peer::with(configuration, "192.0.2.1");
    peer.may_end = true;
    peer.side.endpoint.dial(world.now, 0, ip("192.0.2.1"));
    peer.until(world, |peer| !peer.side.end_reasons().is_empty());
    world.settle();
}

#[test]
fn a_link_is_told_of_when_it_comes_moves_and_ends() {
    let all = objects(|| {
        let (mut world, mut tunnels, mut peer) = connected_with("follow", "");
        send_from(&mut world, &mut tunnels, 0, "192.0.2.77");
        settle(&mut world, &mut peer);
        let here = peer.side.connected_peers()[0];
        peer.side.endpoint.handle_local(world.now, here, ip("192.0.2.78"), None).unwrap();
        settle(&mut world, &mut peer);
        world.pass(Duration::from_secs(90));
        peer.may_end = true;
        world.ask(Command::PeerDown { peer: "one.test".into(), bar_ms: None });
    });
    let [connected] = named(&all, "peer_connected")[..] else { panic!("{all:#?}") };
    let who = json!({ "proved": "one.test", "connection": "terminals" });
    assert_has(connected, who.clone());
    assert_has(
        connected,
        json!({ "level": "INFO", "message": "peer connected", "claimed": "one.test", "method": "psk", "peer": "192.0.2.1:4500" }),
    );
    assert!(connected["time"].is_string());
    let [seen, announced] = named(&all, "peer_moved")[..] else { panic!("{all:#?}") };
    for moved in [seen, announced] {
        assert_has(moved, who.clone());
    }
    assert_has(
        seen,
        json!({
            "cause": "seen",
            "peer": "192.0.2.77",
            "from": "esp:203.0.113.1-192.0.2.1",
            "to": "esp:203.0.113.1-192.0.2.77",
        }),
    );
    assert_has(announced, json!({ "cause": "mobike", "from": seen["to"] }));
    let [gone] = named(&all, "peer_gone")[..] else { panic!("{all:#?}") };
    assert_has(gone, who);
    assert_has(
        gone,
        json!({ "claimed": "one.test", "method": "psk", "reason": "closed here", "packets_in": 1, "bytes_in": 30, "packets_out": 0, "bytes_out": 0 }),
    );
    assert!((90..100).contains(&gone["duration_s"].as_u64().unwrap()), "{gone}");
}

#[test]
fn refusals_say_how_far_the_peer_got() {
    let mut shown = vec![];
    let all = objects(|| {
        let mut world = gateway();
        let mut other_key = ike(TERMINAL, "192.0.2.1");
        let protocol = &mut other_key.connections[0].protocol;
        let key = SharedKey(Secret::new(b"another secret".to_vec()));
        (protocol.local_auth, protocol.remote_auth) = (LocalAuth::Psk(key.clone()), RemoteAuth::Psk(key));
        fail(&mut world, other_key);
        let other_algorithms = format!("{TERMINAL}proposals = [\"aes128gcm16-prfsha256-x25519\"]");
        // The refusal is not authentic, so the terminal goes on.
        let mut peer = Peer::new(&other_algorithms, "192.0.2.1");
        peer.side.endpoint.dial(world.now, 0, ip("192.0.2.1"));
        let first = peer.side.work(world.now);
        peer.send(&mut world, first);
        world.settle();
        fail(&mut world, ike(&TERMINAL.replace("one.test", "one.example"), "192.0.2.1"));
        match world.ask(Command::Show { what: View::FailedPeers }).outcome {
            Outcome::Result(Reply::FailedPeers(failed)) => shown = failed,
            other => panic!("{other:?}"),
        }
    });
    let failed = named(&all, "peer_not_connected");
    let [key, algorithms, identity] = failed[..] else { panic!("{all:#?}") };
    assert_has(
        key,
        json!({ "peer": "192.0.2.1:4500", "claimed": "one.test", "proved": null, "connection": "terminals", "method": "psk", "reason": "wrong proof of identity" }),
    );
    assert_has(
        algorithms,
        json!({ "peer": "192.0.2.1:500", "claimed": null, "method": null, "reason": "no common algorithms" }),
    );
    assert_has(
        identity,
        json!({ "claimed": "one.example", "connection": null, "method": "psk", "reason": "no connection is for this identity and its way to authenticate" }),
    );
    // `show peers --failed` has the same, the newest first.
    assert_eq!(shown.len(), 3);
    for (shown, line) in shown.iter().rev().zip(failed) {
        let shown = serde_json::to_value(shown).unwrap();
        for field in ["claimed", "proved", "connection", "method", "reason"] {
            assert_eq!(shown[field], line[field], "{field}");
        }
        assert_eq!(shown["remote"], line["peer"]);
    }
}

#[test]
fn a_refused_child_sa_has_a_line_and_is_among_the_failures() {
    let mut shown = vec![];
    let all = objects(|| {
        let mut world = gateway();
        fail(&mut world, ike(&TERMINAL.replace("10.99.0.0/24", "10.55.0.0/24"), "192.0.2.1"));
        match world.ask(Command::Show { what: View::FailedPeers }).outcome {
            Outcome::Result(Reply::FailedPeers(failed)) => shown = failed,
            other => panic!("{other:?}"),
        }
    });
    let who = json!({ "peer": "192.0.2.1:4500", "proved": "one.test", "connection": "terminals" });
    let [refused] = named(&all, "child_refused")[..] else { panic!("{all:#?}") };
    assert_has(refused, who);
    assert_has(
        refused,
        json!({ "reason": "TS_UNACCEPTABLE", "asked_local": "10.55.0.0/24", "asked_remote": "10.98.1.0/24" }),
    );
    let [shown] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!(shown.reason, "connected, but its child SA was refused: TS_UNACCEPTABLE (38)");
    assert_eq!((&shown.remote[..], shown.proved.as_deref()), ("192.0.2.1:4500", Some("one.test")));
}

#[test]
fn a_failed_attempt_to_authenticate_again_has_one_line() {
    let all = objects(|| {
        let both = "auth = \"psk\"\npsk_file = \"$PSK\"\n";
        let ours = format!(
            "[[connection]]\nname = \"branch\"\nlocal = \"203.0.113.1\"\nlocal_id = \"gw.test\"\n\
             remote = \"192.0.2.1\"\nremote_id = \"branch.test\"\ninner_local = [\"10.99.0.0/24\"]\n\
             inner_remote = [\"10.98.0.0/24\"]\n{both}"
        );
        let theirs = format!(
            "[[connection]]\nname = \"office\"\nlocal = \"192.0.2.1\"\nlocal_id = \"branch.test\"\n\
             remote_id = \"gw.test\"\ninner_local = [\"10.98.0.0/24\"]\n\
             inner_remote = [\"10.99.0.0/24\"]\n{both}"
        );
        let mut config = config(vec![]);
        config.ike = ike(&ours, "203.0.113.1");
        config.ike.connections[0].protocol.lifetimes.authentication = Some(Duration::from_secs(20));
        let mut world = World::with(config, 512);
        world.meet_neighbours();
        let mut peer = Peer::new(&theirs, "192.0.2.1");
        peer.until(&mut world, |peer| !peer.side.children().is_empty());
        settle(&mut world, &mut peer);
        let mut changed = ike(&theirs, "192.0.2.1").connections.remove(0).protocol;
        changed.remote_auth = RemoteAuth::Psk(SharedKey(Secret::new(b"another secret".to_vec())));
        peer.side.endpoint.reconfigure(world.now, vec![changed], vec![], Settings::default());
        peer.may_end = true;
        world.pass(Duration::from_secs(10));
        peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
        settle(&mut world, &mut peer);
    });
    let [failed] = named(&all, "renewal_failed")[..] else { panic!("{all:#?}") };
    let reason =
        "the peer refused our identity or its proof, such as our certificate: AUTHENTICATION_FAILED (24)";
    assert_has(
        failed,
        json!({ "proved": "branch.test", "connection": "branch", "reason": reason, "wait_s": 10.0 }),
    );
    for other in ["peer_not_connected", "peer_gone"] {
        assert_eq!(named(&all, other), Vec::<&Value>::new(), "the link goes on");
    }
}

#[test]
fn links_with_keys_by_hand_are_told_of_too() {
    let all = objects(|| {
        let mut world = gateway();
        for address in ["192.0.2.7", "192.0.2.8", "224.0.0.1"] {
            world.ask(Command::SaMove { tunnel: "t1".into(), remote: ip(address), port: Some(4501) });
        }
    });
    let [found] = named(&all, "peer_found")[..] else { panic!("{all:#?}") };
    assert_has(found, json!({ "tunnel": "t1", "to": "udp:203.0.113.1:4500-192.0.2.7:4501" }));
    let [moved] = named(&all, "peer_moved")[..] else { panic!("{all:#?}") };
    assert_has(
        moved,
        json!({ "tunnel": "t1", "cause": "by_hand", "from": found["to"], "peer": "192.0.2.8:4501" }),
    );
    let [refused] = named(&all, "peer_not_followed")[..] else { panic!("{all:#?}") };
    assert_has(refused, json!({ "tunnel": "t1", "reason": "no peer can have that address" }));
}

/// A terminal that appears at another address ten times a second does not fill the log, and no move
/// is untold: some have a line, the others are counted in the next line.
#[test]
fn flapping_terminal_has_few_lines() {
    let mut moves = 0;
    let all = objects(|| {
        let (mut world, mut tunnels, mut peer) = connected_with("follow", "");
        for n in 0..300 {
            send_from(&mut world, &mut tunnels, 0, &format!("192.0.2.{}", 100 + n % 2));
            peer.receive(&mut world);
            let messages = peer.side.work(world.now);
            peer.send(&mut world, messages);
            world.pass(Duration::from_millis(100));
        }
        moves = match world.ask(Command::Show { what: View::Sa }).outcome {
            Outcome::Result(Reply::Sa(all)) => all[0].moves,
            other => panic!("{other:?}"),
        };
        peer.may_end = true;
        world.ask(Command::PeerDown { peer: "one.test".into(), bar_ms: None });
    });
    let lines = named(&all, "peer_moved");
    assert!(lines.len() <= 8 + 3, "{} lines", lines.len());
    let told: u64 = all.iter().filter_map(|object| object["left_out"].as_u64()).sum();
    assert!(told > 0);
    assert_eq!(lines.len() as u64 + told, moves);
}

#[test]
fn hostile_name_stays_within_its_field_and_its_line() {
    let start: &[u8] =
        b"a\n2026-11-29T00:00:00Z ERROR owned proved=root\r\"}\x1b[2J\x00\xff\xe2\x80\xa8\xe2\x80\xae";
    let name = |length| [start, &vec![b'"'; length - start.len() - 5], b".test"].concat();
    let called = |data: Vec<u8>| {
        let mut configuration = ike(TERMINAL, "192.0.2.1");
        configuration.connections[0].protocol.local_id = Identity { kind: kind::FQDN, data };
        configuration
    };
    let act = || {
        let mut world = gateway();
        Peer::with(called(name(500)), "192.0.2.1").connect(&mut world);
        fail(&mut world, called(name(1024)));
    };
    let all = objects(act);
    let [connected] = named(&all, "peer_connected")[..] else { panic!("{all:#?}") };
    let proved = connected["proved"].as_str().unwrap();
    assert!(
        proved.starts_with("a\\n2026-11-29T00:00:00Z\\x20ERROR\\x20owned\\x20proved\\x3droot\\r"),
        "{proved}"
    );
    assert!(proved.bytes().all(|byte| byte.is_ascii_graphic()), "{proved}");
    let [refused] = named(&all, "peer_not_connected")[..] else { panic!("{all:#?}") };
    assert_has(refused, json!({ "reason": "the peer broke the protocol", "claimed": null }));

    let text = recorded(Format::Text(false), act);
    assert_eq!(text.lines().count(), all.len(), "{text}");
    assert!(text.bytes().all(|byte| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic()), "{text}");
    let line = text.lines().find(|line| line.contains("peer connected")).unwrap();
    assert_eq!(line.matches(" proved=").count(), 1, "{line}");
}
