//! Packets to the gateway in IP fragments: ESP and IKE in, IKE out, and what belongs to the host.

use proptest::prelude::*;
use std::time::Duration;
use tempfile::TempDir;
use wayfarer::clock::SimulatedClock;
use wayfarer::control::protocol::{Command, Outcome, Reply, View, WorkerView};
use wayfarer::pki::{Authority, KeyKind, Subject};
use wayfarer::sim::{
    fixtures::*,
    frames::*,
    ike::{configured::ike, peer::Peer},
    random::Random,
    terminal::Terminal,
    world::World,
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    wire::ip::{self, IpHeader},
};

const SUITE: &str = "aes128gcm16";

fn terminal(v6: bool, port: Option<u16>) -> Terminal {
    let mut terminal = Terminal::new(1, suite(SUITE), if v6 { "2001:db8:2::1" } else { "192.0.2.1" });
    terminal.port = port;
    terminal
}

fn up(length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..length).map(|at| (at / 8) as u8).collect();
    datagram("10.98.0.1", "10.99.0.7", (1, 2), &payload)
}

/// Makes a gateway whose first tunnel ends at this address.
fn gateway_at(local: &str, frame_size: usize) -> World {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    config.tunnels[0].local = ip(local);
    config.gateway.frame_size = Some(frame_size);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

fn gateway(frame_size: usize) -> World {
    gateway_at("203.0.113.1", frame_size)
}

/// Makes a gateway with a tunnel and a connection for terminals.
pub(crate) fn gateway_for_terminals() -> World {
    let mut config = config(vec![tunnel(1, suite(SUITE))]);
    config.ike = wayfarer::sim::ike::configured::for_terminals(
        "10.97.0.0/24",
        "inner_local = [\"10.99.0.0/24\"]\npool = \"terminals\"",
    );
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Returns how many IKE messages have reached the protocol.
pub(crate) fn messages(world: &mut World) -> u64 {
    match world.ask(Command::Show { what: View::Ike }).outcome {
        Outcome::Result(Reply::Ike(ike)) => {
            ike.iter().find(|counter| counter.name == "messages").map_or(0, |counter| counter.count)
        }
        other => panic!("{other:?}"),
    }
}

/// Returns the number of the worker's free frames, which it reports from time to time.
fn free_frames(world: &mut World) -> u64 {
    let (worker, _) = &mut world.assembly.workers[0];
    (0..5000).for_each(|_| _ = worker.turn());
    world.counters().free_frames.value()
}

#[test]
fn esp_in_fragments_is_opened_in_every_form_and_order() {
    for (v6, port) in [(false, None), (false, Some(1000)), (true, None), (true, Some(1000))] {
        let local = if v6 { "2001:db8:1::1" } else { "203.0.113.1" };
        let (mut world, mut terminal) = (gateway_at(local, 2048), terminal(v6, port));
        let free = free_frames(&mut world);
        for (id, mtu) in [(1, 1280), (2, 576), (3, 200)] {
            let inner = up(1300);
            let mut fragments = fragments(&terminal.seal(&inner), mtu, id);
            assert!(fragments.len() > 1);
            fragments.rotate_left(id as usize % 2);
            fragments.iter().for_each(|fragment| world.put(OUTSIDE, fragment));
            world.settle();
            assert_eq!(
                world.take(INSIDE),
                [forwarded(&inner)],
                "{v6} {port:?} {mtu}: {:?}",
                world.all_drops()
            );
        }
        assert_eq!((world.all_drops(), free_frames(&mut world)), (vec![], free));
        // The answer goes back whole.
        world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
        let out = world.take(OUTSIDE);
        assert_eq!(terminal.open(&out[0]).2, forwarded(&datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down")));
    }
}

/// Returns what is shown of the only worker, whose counters must add up.
fn shown(world: &mut World) -> WorkerView {
    // It reports how many fragments wait from time to time.
    free_frames(world);
    let worker = match world.ask(Command::Show { what: View::Workers }).outcome {
        Outcome::Result(Reply::Workers(mut all)) => all.remove(0),
        other => panic!("{other:?}"),
    };
    let came = worker.received + worker.injected + worker.made;
    assert_eq!(came, worker.sent + worker.dropped + worker.consumed + worker.waiting, "{worker:?}");
    worker
}

#[test]
fn fragments_that_wait_are_shown_and_the_counters_add_up() {
    let (mut world, mut terminal) = (gateway(2048), terminal(false, None));
    let inner = up(1300);
    let [first, later @ ..] = &fragments(&terminal.seal(&inner), 576, 1)[..] else { panic!("fragments") };
    later.iter().for_each(|fragment| world.put(OUTSIDE, fragment));
    world.settle();
    assert_eq!((later.len(), shown(&mut world).waiting), (2, 2));
    world.send(OUTSIDE, first);
    assert_eq!((shown(&mut world).waiting, world.take(INSIDE)), (0, vec![forwarded(&inner)]));
}

#[test]
fn worker_drops_fragments_that_wait_for_more_than_15_seconds() {
    let (mut world, mut terminal) = (gateway(2048), terminal(false, None));
    let clock = SimulatedClock::start();
    world.assembly.workers[0].0.use_clock(clock.clone());
    let free = free_frames(&mut world);
    let inner = up(1300);
    let [first, later @ ..] = &fragments(&terminal.seal(&inner), 576, 1)[..] else { panic!("fragments") };
    later.iter().for_each(|fragment| world.put(OUTSIDE, fragment));
    world.settle();
    clock.advance(Duration::from_secs(15));
    assert_eq!((shown(&mut world).waiting, world.counters().free_frames.value()), (2, free - 2));
    clock.advance(Duration::from_nanos(1));
    assert_eq!((shown(&mut world).waiting, world.counters().free_frames.value()), (0, free));
    assert_eq!(world.all_drops(), [(FragmentTimeout, 2)]);
    // The first one waits for others like any first fragment. It has 15 seconds of its own.
    world.send(OUTSIDE, first);
    assert_eq!((shown(&mut world).waiting, world.take(INSIDE)), (1, vec![]));
    clock.advance(Duration::from_secs(15));
    later.iter().for_each(|fragment| world.put(OUTSIDE, fragment));
    world.settle();
    assert_eq!((shown(&mut world).waiting, world.take(INSIDE)), (0, vec![forwarded(&inner)]));
    assert_eq!(world.all_drops(), [(FragmentTimeout, 2)]);
}

#[test]
fn only_fragment_of_a_packet_is_taken_at_once() {
    for port in [None, Some(1000)] {
        let (mut world, mut terminal) = (gateway_at("2001:db8:1::1", 2048), terminal(true, port));
        let inner = up(100);
        let [whole] = &fragments(&terminal.seal(&inner), 1280, 7)[..] else { panic!("one fragment") };
        // One that waits for others with the same identification has nothing to do with it (RFC 6946).
        let waiting = &fragments(&terminal.seal(&up(1300)), 1280, 7)[1];
        world.put(OUTSIDE, waiting);
        world.send(OUTSIDE, whole);
        assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{:?}", world.all_drops());
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn congestion_on_a_fragment_reaches_the_inner_packet() {
    let (mut world, mut terminal) = (gateway(2048), terminal(false, None));
    let mut inner = up(1300);
    ip::set_traffic_class(&mut inner, 2);
    let mut sealed = fragments(&terminal.seal(&inner), 1000, 1);
    ip::set_traffic_class(&mut sealed[0], 2);
    ip::set_traffic_class(&mut sealed[1], 3);
    sealed.iter().for_each(|fragment| world.put(OUTSIDE, fragment));
    world.settle();
    let out = world.take(INSIDE);
    assert_eq!(IpHeader::parse(&out[0]).unwrap().traffic_class, 3, "{:?}", world.all_drops());
}

/// Makes certificates of 4 KB for a gateway and a terminal.
fn long_certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    Authority::create(folder.path(), "Test CA", 30, KeyKind::Ecdsa256).unwrap();
    let authority = Authority::open(folder.path()).unwrap();
    for own in ["gw.test", "cl.test"] {
        let more = (0..150).map(|n| format!("{own}.a-long-name-number-{n}.test"));
        let names: Vec<String> = std::iter::once(own.to_owned()).chain(more).collect();
        let subject = Subject { names: &names, days: 30, key: KeyKind::Ecdsa256 };
        authority.gateway(own, &subject).unwrap();
    }
    folder
}

/// Returns the connection of a gateway or terminal by these certificates.
fn connection(folder: &TempDir, [own, peer]: [&str; 2], keys: &str) -> String {
    format!(
        r#"
[[connection]]
name = "office"
local_id = "{own}"
remote_id = "{peer}"
auth = "certificate"
certificate = "{folder}/{own}.crt"
private_key = "{folder}/{own}.key"
authorities = "{folder}/ca.crt"
esp = ["aes256gcm16"]
{keys}
"#,
        folder = folder.path().display(),
    )
}

/// Makes a gateway, and a terminal behind a path with this MTU that connects to it, at these addresses.
/// Each has its value of the key `fragment`.
fn connected(
    folder: &TempDir,
    [gateway, terminal]: [&str; 2],
    [of_gateway, of_terminal]: [&str; 2],
    mtu: usize,
) -> (World, Peer) {
    let nets =
        |local: &str, remote: &str| format!("inner_local = [\"{local}\"]\ninner_remote = [\"{remote}\"]");
    let keys = format!("local = \"{gateway}\"\nfragment = {of_gateway}\n");
    let keys = keys + &nets("10.99.0.0/24", "10.98.1.0/24");
    let mut config = config(vec![tunnel(1, suite(SUITE))]);
    config.ike = ike(&connection(folder, ["gw.test", "cl.test"], &keys), gateway);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let keys = format!("remote = \"{gateway}\"\nlocal = \"{terminal}\"\nfragment = {of_terminal}\n");
    let keys = keys + &nets("10.98.1.0/24", "10.99.0.0/24");
    let text = connection(folder, ["cl.test", "gw.test"], &keys);
    let mut peer = Peer::new(&text, terminal).behind(mtu);
    peer.connect(&mut world);
    (world, peer)
}

#[test]
fn ike_fragments_fit_the_port_whatever_the_configuration_says() {
    let (world, peer) = connected(&long_certificates(), ["203.0.113.1", "192.0.2.9"], ["4000", "1280"], 1280);
    assert_eq!((world.all_drops(), peer.fragments), (vec![], 0));
}

/// The routers of the path cut what may be cut, and say nothing about the rest.
#[test]
fn peer_connects_by_a_path_that_takes_less_than_the_fragments_of_ike() {
    let (world, _) = connected(&long_certificates(), ["203.0.113.1", "192.0.2.9"], ["1280", "1280"], 600);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn peer_without_ike_fragments_connects_by_long_certificates_over_a_small_path() {
    let folder = long_certificates();
    for addresses in [["203.0.113.1", "192.0.2.9"], ["2001:db8:1::1", "2001:db8:2::9"]] {
        let (mut world, peer) = connected(&folder, addresses, ["\"none\""; 2], 1280);
        assert_eq!((world.all_drops(), peer.fragments >= 3), (vec![], true));
        // Its ESP comes in fragments too.
        let mut tunnel = peer.tunnel();
        let inner = datagram("10.98.1.1", "10.99.0.7", (1, 2), &[7; 1300]);
        fragments(&tunnel.seal(&inner), 1280, 1).iter().for_each(|fragment| world.put(OUTSIDE, fragment));
        world.settle();
        assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{:?}", world.all_drops());
    }
}

#[test]
fn ike_message_of_every_length_reaches_the_protocol() {
    let mut world = gateway_for_terminals();
    let before = messages(&mut world);
    for (id, length) in (1..).zip([100, 1500, 1800, 4000, 20_000, 65_000]) {
        let message = datagram("192.0.2.9", "203.0.113.1", (500, 500), &vec![0x29; length]);
        fragments(&message, 1500, id).iter().for_each(|fragment| world.put(OUTSIDE, fragment));
        world.settle();
        assert_eq!(messages(&mut world), before + u64::from(id), "{length}: {:?}", world.all_drops());
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn packets_of_two_protocols_may_have_the_same_identification() {
    let (mut world, mut terminal) = (gateway_for_terminals(), terminal(false, None));
    let before = messages(&mut world);
    let (inner, message) = (up(1300), datagram("192.0.2.1", "203.0.113.1", (500, 500), &[0x29; 2000]));
    let (esp, ike) = (fragments(&terminal.seal(&inner), 1280, 7), fragments(&message, 1500, 7));
    for (one, other) in esp.iter().zip(&ike) {
        world.put(OUTSIDE, one);
        world.put(OUTSIDE, other);
    }
    world.settle();
    assert_eq!((esp.len(), ike.len()), (2, 2));
    assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{:?}", world.all_drops());
    assert_eq!((messages(&mut world), world.all_drops()), (before + 1, vec![]));
}

#[test]
fn many_fragments_of_a_peers_message_may_come_at_once() {
    let mut world = gateway_for_terminals();
    let text = "[[connection]]\nname = \"office\"\nlocal = \"192.0.2.9\"\nlocal_id = \"one.test\"\n\
                remote = \"203.0.113.1\"\nremote_id = \"gw.test\"\nauth = \"psk\"\npsk_file = \"$PSK\"\n\
                request_address = true\ninner_remote = [\"10.99.0.0/24\"]\n";
    let mut peer = Peer::new(text, "192.0.2.9");
    peer.connect(&mut world);
    let spi = peer.side.endpoint.peers().next().unwrap().spis().unwrap()[1];
    // RFC 7383 §2.5: an encrypted fragment, number 1 to 128 of 128.
    let fragment = |number: u16| {
        let mut message = [&[7; 8][..], &spi.to_be_bytes(), &[53, 0x20, 37, 0x08, 0, 0, 0, 9]].concat();
        message.extend(100u32.to_be_bytes());
        message.extend([0, 0, 0, 72]);
        message.extend([number.to_be_bytes(), 128u16.to_be_bytes()].concat());
        message.resize(100, 0);
        datagram("192.0.2.9", "203.0.113.1", (500, 500), &message)
    };
    let before = messages(&mut world);
    (1..=128).for_each(|number| world.put(OUTSIDE, &fragment(number)));
    world.settle();
    assert_eq!((messages(&mut world) - before, world.all_drops()), (128, vec![]));
}

#[test]
fn fragments_of_the_hosts_datagrams_reach_its_stack_unchanged_and_ours_do_not() {
    let mut world = World::host(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    world.meet_neighbours();
    let message = |port| datagram("192.0.2.9", "203.0.113.1", (500, port), &[0x29; 4000]);
    let to_host = fragments(&message(53), 1500, 1);
    // Later fragments first, and fragments of IKE among them.
    for (host, ours) in to_host.iter().rev().zip(fragments(&message(4500), 1500, 1)) {
        world.put(OUTSIDE, host);
        let mut ours = ours;
        ours[4..6].copy_from_slice(&[0, 2]);
        let total = ours.len();
        ip::set_total_len(&mut ours, 20, total);
        world.put(OUTSIDE, &ours);
    }
    world.settle();
    assert_eq!(world.take(INSIDE), to_host, "{:?}", world.all_drops());
    // Other protocols' fragments are not kept.
    let mut icmp = ip_packet(ip("192.0.2.9"), ip("203.0.113.1"), 1, &[7; 64]);
    icmp[6..8].copy_from_slice(&[0, 9]);
    let total = icmp.len();
    ip::set_total_len(&mut icmp, 20, total);
    world.send(OUTSIDE, &icmp);
    assert_eq!(world.take(INSIDE), [icmp]);
}

#[test]
fn hostile_fragments_are_counted_and_leave_room_for_others() {
    let mut world = gateway(2048);
    let mut terminal = terminal(false, None);
    let first = |source: &str, id: u16| {
        let packet = ip_packet(ip(source), ip("203.0.113.1"), 50, &[7; 2000]);
        fragments(&packet, 1500, id).remove(0)
    };
    let sent = 2000;
    for id in 0..sent {
        world.put(OUTSIDE, &first("198.51.100.66", id));
        if id % 100 == 0 {
            let inner = up(1300);
            let [one, two] = &fragments(&terminal.seal(&inner), 1280, id)[..] else {
                panic!("two fragments")
            };
            world.put(OUTSIDE, one);
            world.put(OUTSIDE, &first("198.51.100.67", id));
            world.put(OUTSIDE, two);
            world.settle();
            assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{:?}", world.all_drops());
        }
        world.settle();
    }
    let crowded = world.drops(FragmentCrowded);
    assert_eq!(world.all_drops(), [(FragmentCrowded, crowded)]);
    // What is not dropped is held: a bounded number.
    let held = u64::from(sent) + 20 - crowded;
    assert!(held <= 128, "{held}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Checks that whatever fragments come, each frame is dropped, taken or held once, and good packets
    /// pass.
    #[test]
    fn any_fragments_disturb_nobody(
        shapes in prop::collection::vec(
            (0u8..4, 0u16..3, 0u16..40, 0usize..60, any::<bool>(), any::<bool>(), any::<u8>()),
            1..60,
        ),
        seed: u64,
    ) {
        let mut world = gateway(2048);
        let mut random = Random(seed);
        let mut good = Terminal::new(2, suite(SUITE), "192.0.2.2");
        let mut hostile = vec![];
        for (kind, id, at, units, more, v6, byte) in shapes {
            let protocol = [50, 17, 17, 44][usize::from(kind)];
            let mut payload = vec![byte; units * 8 + usize::from(byte % 3)];
            if kind == 1 && payload.len() >= 8 {
                payload[..8].copy_from_slice(&[0, 9, 0x11, 0x94, 0, byte, 0, 0]);
            }
            let field = at << 3 | u16::from(more);
            let packet = if v6 {
                let head = [&[protocol, 0][..], &field.to_be_bytes(), &u32::from(id).to_be_bytes()].concat();
                ip_packet(ip("2001:db8:2::9"), ip("2001:db8:1::1"), 44, &[head, payload].concat())
            } else {
                let mut packet = ip_packet(ip("192.0.2.9"), ip("203.0.113.1"), protocol, &payload);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[6..8].copy_from_slice(&(at | if more { 0x2000 } else { 0 }).to_be_bytes());
                let total = packet.len();
                ip::set_total_len(&mut packet, 20, total);
                packet
            };
            hostile.push(packet);
        }
        let inner = datagram("10.98.0.2", "10.99.0.7", (1, 2), &[9; 1300]);
        let mut sealed = fragments(&good.seal(&inner), 700, 1);
        let sealed_len = sealed.len();
        while let Some(fragment) = (!sealed.is_empty()).then(|| sealed.remove(random.index(sealed.len()))) {
            let some = random.index(hostile.len() + 1);
            hostile.drain(..some).for_each(|packet| world.put(OUTSIDE, &packet));
            world.put(OUTSIDE, &fragment);
            world.settle();
        }
        prop_assert!(sealed_len >= 2);
        prop_assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{:?}", world.all_drops());
        let free = free_frames(&mut world);
        let drops: u64 = world.all_drops().iter().map(|(_, n)| n).sum();
        let received = world.counters().received.value();
        prop_assert!(drops < received);
        prop_assert!(free >= 512 - 128);
        let unexpected: Vec<DropReason> =
            world.all_drops().into_iter().map(|(r, _)| r).filter(|r| *r == WorkerFault).collect();
        prop_assert_eq!(unexpected, []);
    }
}
