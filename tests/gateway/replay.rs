//! Anti-replay, extended sequence numbers, exhaustion and lifetimes (RFC 4303 §3.3.3, §3.4.3; RFC
//! 4301 §4.4.2.1).

use wayfarer::control::protocol::{Command, Outcome, Reply, View};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::{drop::DropReason, sa::Limits};

const SUITE: &str = "aes128gcm16";

fn pair(esn: bool, window: u32) -> (World, Terminal) {
    let mut config = tunnel(1, suite(SUITE));
    (config.esn, config.window) = (esn, window);
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    terminal.esn = esn;
    // A second tunnel, so that no test has a table of one entry.
    (World::new(vec![config, tunnel(2, suite("aes256-sha256"))]), terminal)
}

fn inner() -> Vec<u8> {
    datagram("10.98.0.1", "10.99.0.7", (1, 2), b"payload")
}

fn sealed(terminal: &Terminal, seq: u64) -> Vec<u8> {
    terminal.seal_as(&inner(), 4, seq)
}

#[test]
fn refuses_every_replayed_packet_of_a_window() {
    for window in [64, 1024, 4096] {
        let (mut world, terminal) = pair(false, window);
        world.meet_neighbours();
        let packets: Vec<_> = (1..=u64::from(window)).map(|seq| sealed(&terminal, seq)).collect();
        for round in 0..2 {
            for burst in packets.chunks(200) {
                burst.iter().for_each(|p| world.put(OUTSIDE, p));
                world.settle();
            }
            let passed = world.take(INSIDE).len();
            assert_eq!(passed, if round == 0 { window as usize } else { 0 });
        }
        assert_eq!(world.all_drops(), [(DropReason::ReplayDuplicate, u64::from(window))]);
    }
}

#[test]
fn one_of_eight_copies_in_a_burst_passes() {
    let (mut world, terminal) = pair(false, 1024);
    (0..8).for_each(|_| world.put(OUTSIDE, &sealed(&terminal, 5)));
    world.settle();
    assert_eq!(world.take(INSIDE).len(), 1);
    assert_eq!(world.all_drops(), [(DropReason::ReplayDuplicate, 7)]);
}

#[test]
fn window_that_moves_within_a_burst_makes_a_checked_packet_stale() {
    let (mut world, terminal) = pair(false, 64);
    world.send(OUTSIDE, &sealed(&terminal, 10));
    // All three pass the first check, against a window that ends at 10; then 1000 moves it.
    for seq in [11, 1000, 12] {
        world.put(OUTSIDE, &sealed(&terminal, seq));
    }
    world.settle();
    assert_eq!(world.take(INSIDE).len(), 3);
    assert_eq!(world.all_drops(), [(DropReason::ReplayStale, 1)]);
}

#[test]
fn forged_packet_does_not_change_the_window() {
    let (mut world, terminal) = pair(false, 64);
    let mut forged = sealed(&terminal, 5000);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for packet in [sealed(&terminal, 1), forged, sealed(&terminal, 2)] {
        world.put(OUTSIDE, &packet);
    }
    world.settle();
    assert_eq!(world.take(INSIDE).len(), 2);
    // The forgery neither moved the window nor marked number 5000 as seen.
    world.send(OUTSIDE, &sealed(&terminal, 3));
    world.send(OUTSIDE, &sealed(&terminal, 5000));
    assert_eq!(world.take(INSIDE).len(), 2);
    assert_eq!(world.all_drops(), [(DropReason::NotAuthentic, 1)]);
}

#[test]
fn number_zero_is_never_accepted() {
    let (mut world, terminal) = pair(false, 64);
    world.send(OUTSIDE, &sealed(&terminal, 0));
    assert_eq!(world.all_drops(), [(DropReason::SequenceZero, 1)]);
}

#[test]
fn extended_numbers_cross_the_wrap_with_jumps() {
    let (mut world, terminal) = pair(true, 1024);
    let wrap = 1u64 << 32;
    let jump = 1u64 << 30;
    let numbers =
        [1, jump, 2 * jump, 3 * jump, wrap - 3, wrap + 2, wrap - 1, wrap, wrap + jump, wrap + 2 * jump];
    for seq in numbers {
        world.send(OUTSIDE, &sealed(&terminal, seq));
        assert_eq!(world.take(INSIDE).len(), 1, "{seq:#x}: {:?}", world.all_drops());
    }
    // Seen before, and within the window.
    world.send(OUTSIDE, &sealed(&terminal, wrap + 2 * jump));
    assert_eq!(world.drops(DropReason::ReplayDuplicate), 1);
    // 2^30 back, the low half stands for a number after the next wrap, for which the packet does
    // not authenticate.
    world.send(OUTSIDE, &sealed(&terminal, wrap + jump + 1));
    assert_eq!(world.drops(DropReason::NotAuthentic), 1);
    // Neither packet moved the window.
    world.send(OUTSIDE, &sealed(&terminal, wrap + 2 * jump + 1));
    assert_eq!(world.take(INSIDE).len(), 1);
}

#[test]
fn sender_without_esn_stops_at_the_last_number_and_reports_once() {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    for tunnel in &mut config.tunnels {
        tunnel.remote = wayfarer::config::model::Remote::At(ip("192.0.2.1"), 0);
    }
    config.tunnels[0].outbound.sequence = u64::from(u32::MAX) - 2;
    let mut world = World::with(config, 512);
    let terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let answer = datagram("10.99.0.7", "10.98.0.1", (2, 1), b"x");
    (0..5).for_each(|_| world.put(INSIDE, &answer));
    world.settle();
    let out = world.take(OUTSIDE);
    let numbers: Vec<u64> = out.iter().map(|p| terminal.open(p).1).collect();
    assert_eq!(numbers, [u64::from(u32::MAX) - 1, u64::from(u32::MAX)]);
    assert_eq!(world.all_drops(), [(DropReason::SequenceExhausted, 3)]);
    assert_eq!(reports(&mut world), [(0, 1), (0, 0)]);
}

/// Returns the reports of soft and hard limits that reached the slow path, by tunnel.
fn reports(world: &mut World) -> Vec<(u64, u64)> {
    match world.ask(Command::Show { what: View::Sa }).outcome {
        Outcome::Result(Reply::Sa(all)) => all.iter().map(|sa| (sa.soft_reports, sa.hard_reports)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn restarted_gateway_accepts_no_packet_of_its_last_run() {
    let mut config = tunnel(1, suite(SUITE));
    config.inbound.sequence = 1000;
    let mut world = World::new(vec![config, tunnel(2, suite(SUITE))]);
    let terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    for seq in [1, 999, 1000, 1001] {
        world.send(OUTSIDE, &sealed(&terminal, seq));
    }
    assert_eq!(world.take(INSIDE).len(), 1);
    assert_eq!(world.drops(DropReason::ReplayDuplicate) + world.drops(DropReason::ReplayStale), 3);
}

#[test]
fn hard_lifetime_stops_both_directions() {
    let mut config = tunnel(1, suite(SUITE));
    config.limits = Limits { soft_packets: 2, hard_packets: 3, ..Limits::NONE };
    let mut world = World::new(vec![config, tunnel(2, suite(SUITE))]);
    let terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    (1..=5).for_each(|seq| world.put(OUTSIDE, &sealed(&terminal, seq)));
    world.settle();
    (0..5).for_each(|_| world.put(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"x")));
    world.settle();
    assert_eq!((world.take(INSIDE).len(), world.take(OUTSIDE).len()), (3, 3));
    assert_eq!(world.all_drops(), [(DropReason::SaExpired, 4)]);
    // Each limit of both SAs is reported once; the other tunnel reports nothing.
    assert_eq!(reports(&mut world), [(2, 2), (0, 0)]);
}

#[test]
fn expired_tunnel_lets_no_clear_traffic_pass() {
    use wayfarer::config::model::{Policy, PolicyAction};
    let mut tunnels = vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))];
    tunnels[0].hard_time = Some(std::time::Duration::from_secs(60));
    let mut config = config(tunnels);
    for (local, remote) in [("10.99.0.0/24", "0.0.0.0/0"), ("0.0.0.0/0", "10.99.0.0/24")] {
        config.policies.push(Policy { selector: selector(local, remote), action: PolicyAction::Bypass });
    }
    let mut world = World::with(config, 512);
    let terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    world.send(OUTSIDE, &sealed(&terminal, 1));
    assert_eq!(world.take(INSIDE).len(), 1);
    world.pass(std::time::Duration::from_secs(61));
    world.send(OUTSIDE, &sealed(&terminal, 2));
    world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"must not leave in clear"));
    world.send(OUTSIDE, &datagram("10.98.0.1", "10.99.0.7", (1, 2), b"must not come in in clear"));
    assert_eq!((world.take(INSIDE).len(), world.take(OUTSIDE).len()), (0, 0));
    assert_eq!(world.drops(DropReason::Unprotected), 1);
    world.send(OUTSIDE, &datagram("198.51.100.1", "10.99.0.7", (1, 2), b"from elsewhere, by the bypass"));
    assert_eq!(world.take(INSIDE).len(), 1);
    assert_eq!(
        world.all_drops(),
        [(DropReason::UnknownSpi, 1), (DropReason::SaExpired, 1), (DropReason::Unprotected, 1)]
    );
}
