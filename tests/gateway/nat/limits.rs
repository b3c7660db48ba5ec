//! Limits and times of mappings (RFC 4787 §4.3, RFC 5382 §5, RFC 5508 §3.2, RFC 6888 §3).

use super::*;
use wayfarer::log::{Format, recorded};
use wayfarer_dataplane::wire::tcp::{FIN, PSH};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets `time` pass at once. Between two steps of a mapping's life nothing happens.
fn pass(bench: &mut Bench, time: Duration) {
    bench.world.now += time;
    bench.world.settle();
    bench.world.settle();
}

/// Returns whether terminal 1 still gets what comes to its port.
fn is_open(bench: &mut Bench, port: u16) -> bool {
    !bench.down(1, &answer(port)).is_empty()
}

#[test]
fn idle_mappings_of_udp_end_and_only_the_inside_keeps_them() {
    let mut bench = Bench::new();
    let port = bench.port_of(1, &udp(1, 5000)).unwrap();
    for _ in 0..3 {
        pass(&mut bench, 5 * MINUTE - Duration::from_secs(1));
        assert!(is_open(&mut bench, port));
        assert_eq!(bench.port_of(1, &udp(1, 5000)), Some(port));
    }
    pass(&mut bench, 3 * MINUTE);
    assert!(is_open(&mut bench, port), "which keeps nothing in use");
    pass(&mut bench, 2 * MINUTE + Duration::from_secs(2));
    assert!(!is_open(&mut bench, port));
    assert_eq!((bench.drops(NatUnknown), bench.show().mappings, bench.show().users.len()), (1, 0, 0));
}

#[test]
fn pings_end_after_a_minute() {
    let mut bench = Bench::new();
    let id = bench.port_of(1, &ping("10.98.0.1", SERVER, 7)).unwrap();
    pass(&mut bench, MINUTE - Duration::from_secs(1));
    assert_eq!(bench.down(1, &pong(SERVER, OUTER, id)).len(), 1);
    pass(&mut bench, Duration::from_secs(3));
    assert_eq!((bench.down(1, &pong(SERVER, OUTER, id)).len(), bench.show().free_icmp), (0, 999));
}

#[test]
fn connections_live_for_two_hours_and_half_open_or_closed_ones_for_minutes() {
    let out = |flags| segment("10.98.0.1", SERVER, (5000, 443), flags);
    let back = |port, flags| segment(SERVER, OUTER, (443, port), flags);
    for (name, closes, is_answered) in
        [("half-open", false, false), ("open", false, true), ("closed", true, true)]
    {
        let mut bench = Bench::new();
        let port = bench.port_of(1, &out(SYN)).unwrap();
        if is_answered {
            bench.down(1, &back(port, SYN | ACK));
            bench.up(1, &out(ACK));
        }
        if closes {
            bench.up(1, &out(FIN | ACK));
            bench.down(1, &back(port, FIN | ACK));
            bench.up(1, &out(ACK));
        }
        let lives = |bench: &mut Bench| !bench.down(1, &back(port, ACK)).is_empty();
        pass(&mut bench, 4 * MINUTE - Duration::from_secs(1));
        assert!(lives(&mut bench), "{name}");
        pass(&mut bench, Duration::from_secs(3));
        let is_open = is_answered && !closes;
        assert_eq!(lives(&mut bench), is_open, "{name}");
        pass(&mut bench, 119 * MINUTE);
        assert_eq!(lives(&mut bench), is_open, "{name}");
        pass(&mut bench, 2 * MINUTE);
        assert!(!lives(&mut bench), "{name}");
    }
}

/// RFC 5382 REQ-5, for a host that has two connections from one port.
#[test]
fn end_of_one_connection_shortens_no_other_that_goes_on() {
    let mut bench = Bench::new();
    let other = "198.51.100.81";
    let out = |server, flags| segment("10.98.0.1", server, (5000, 443), flags);
    let back = |server, port, flags| segment(server, OUTER, (443, port), flags);
    let port = bench.port_of(1, &out(SERVER, SYN)).unwrap();
    for server in [SERVER, other] {
        bench.up(1, &out(server, SYN));
        bench.down(1, &back(server, port, SYN | ACK));
        bench.up(1, &out(server, ACK));
    }
    bench.up(1, &out(SERVER, FIN | ACK));
    bench.down(1, &back(SERVER, port, FIN | ACK));
    bench.up(1, &out(SERVER, ACK));
    pass(&mut bench, Duration::from_secs(10));
    bench.up(1, &out(other, ACK | PSH));
    pass(&mut bench, 120 * MINUTE);
    assert_eq!(bench.down(1, &back(other, port, ACK)).len(), 1, "{:?}", bench.world.all_drops());
}

#[test]
fn one_address_takes_no_more_than_its_share() {
    let mut bench = Bench::new();
    let open = bench.port_of(2, &udp(2, 6000)).unwrap();
    let log = recorded(Format::Json, || {
        let mut made = 0;
        for port in 1..=500 {
            made += bench.up(1, &udp(1, port)).len();
        }
        assert_eq!(made, 16);
    });
    assert_eq!(bench.drops(NatLimit), 484);
    assert_eq!(log.matches("\"event\":\"nat_limit\"").count(), 8, "{log}");
    assert!(log.contains("\"inside\":\"10.98.0.1\""), "{log}");
    let view = bench.show();
    let users: Vec<_> =
        view.users.iter().map(|user| (&user.address[..], user.mappings, user.refused)).collect();
    assert_eq!((users, view.refused), (vec![("10.98.0.1", 16, 484), ("10.98.0.2", 1, 0)], 0));
    // Others, and what the address has already, go on.
    assert_eq!(bench.port_of(2, &udp(2, 6000)), Some(open));
    assert!(bench.port_of(2, &udp(2, 6001)).is_some() && bench.port_of(1, &udp(1, 1)).is_some());
    // Once mappings have ended there is room again.
    pass(&mut bench, 6 * MINUTE);
    assert!(bench.port_of(1, &udp(1, 501)).is_some());
}

#[test]
fn used_up_range_refuses_new_mappings_and_evicts_none() {
    let mut bench = Bench::with(|config| config.nats[0].ports = FIRST..=FIRST + 3);
    let ports: Vec<_> =
        [5000, 5001, 5002, 5003].iter().map(|port| bench.port_of(1, &udp(1, *port)).unwrap()).collect();
    let log = recorded(Format::Json, || {
        (0..20).for_each(|port| assert_eq!(bench.port_of(2, &udp(2, port)), None));
    });
    assert_eq!((bench.drops(NatPorts), bench.show().refused, bench.show().free_udp), (20, 20, 0));
    assert_eq!(log.matches("\"event\":\"nat_full\"").count(), 8, "{log}");
    assert!(bench.port_of(2, &segment("10.98.0.2", SERVER, (5000, 443), SYN)).is_some(), "other protocols");
    for (inside, port) in [5000, 5001, 5002, 5003].into_iter().zip(ports) {
        assert_eq!(bench.port_of(1, &udp(1, inside)), Some(port));
    }
    // A port rests before the next host gets it (RFC 6888 REQ-8).
    pass(&mut bench, 5 * MINUTE + Duration::from_secs(2));
    assert_eq!((bench.show().mappings, bench.port_of(2, &udp(2, 1))), (0, None));
    pass(&mut bench, 2 * MINUTE - Duration::from_secs(1));
    assert_eq!(bench.port_of(2, &udp(2, 1)), None);
    pass(&mut bench, Duration::from_secs(2));
    assert!(bench.port_of(2, &udp(2, 1)).is_some());
}

/// Has terminal `n` open a connection from this port, which both sides end. Returns its port outside.
fn short_connection(bench: &mut Bench, n: usize, from: u16) -> Option<u16> {
    let out = |flags| segment(&format!("10.98.0.{n}"), SERVER, (from, 443), flags);
    let port = bench.port_of(n, &out(SYN))?;
    bench.up(n, &out(FIN | ACK));
    bench.down(n, &segment(SERVER, OUTER, (443, port), FIN | ACK));
    Some(port)
}

/// Returns whether terminal `n` gets a segment to its port.
fn leads_to(bench: &mut Bench, n: usize, port: u16) -> bool {
    !bench.down(n, &segment(SERVER, OUTER, (443, port), ACK)).is_empty()
}

/// As many as twice the range has, in less time than an idle one lives.
#[test]
fn short_connections_of_one_address_have_no_end() {
    let mut bench = Bench::with(|config| config.nats[0].mappings = 500);
    let other = short_connection(&mut bench, 2, 6000).unwrap();
    for from in 0..2000 {
        if from % 500 == 0 {
            pass(&mut bench, Duration::from_secs(6));
        }
        assert!(short_connection(&mut bench, 1, 10_000 + from).is_some(), "{from}");
    }
    // Their ports went from one to the next without a rest.
    let view = bench.show();
    assert_eq!((view.mappings, view.users[0].mappings, view.free_tcp), (501, 500, 499));
    assert!(leads_to(&mut bench, 2, other));
    // None is spared before its last acknowledgement can have passed.
    assert_eq!((short_connection(&mut bench, 1, 9000), bench.drops(NatLimit)), (None, 1));
}

#[test]
fn only_udp_that_was_not_answered_in_two_minutes_makes_room() {
    let mut bench = Bench::new();
    let ports: Vec<_> = (0..16).map(|n| bench.port_of(1, &udp(1, 5000 + n)).unwrap()).collect();
    assert!(is_open(&mut bench, ports[0]));
    pass(&mut bench, 2 * MINUTE);
    assert_eq!(bench.port_of(1, &udp(1, 6000)), None);
    pass(&mut bench, Duration::from_secs(1));
    let mut new: Vec<_> = (0..15).map(|n| bench.port_of(1, &udp(1, 6000 + n)).unwrap()).collect();
    new.sort_unstable();
    let mut replaced = ports[1..].to_vec();
    replaced.sort_unstable();
    assert_eq!(new, replaced);
    assert_eq!((bench.port_of(1, &udp(1, 7000)), bench.drops(NatLimit)), (None, 2));
    assert_eq!(bench.port_of(1, &udp(1, 5000)), Some(ports[0]));
}

#[test]
fn used_up_range_leaves_each_host_its_own_and_the_oldest_is_replaced() {
    let mut bench = Bench::with(|config| config.nats[0].ports = FIRST..=FIRST + 3);
    let open = segment("10.98.0.2", SERVER, (5000, 443), SYN);
    let kept = bench.port_of(2, &open).unwrap();
    let over: Vec<_> = (0..3)
        .map(|n| {
            pass(&mut bench, Duration::from_secs(1));
            short_connection(&mut bench, 1, 5000 + n).unwrap()
        })
        .collect();
    pass(&mut bench, Duration::from_secs(10));
    assert_eq!((short_connection(&mut bench, 2, 6000), bench.drops(NatPorts)), (None, 1));
    assert!(over.iter().all(|port| leads_to(&mut bench, 1, *port)));
    let again: Vec<_> = (0..3).map(|n| short_connection(&mut bench, 1, 6000 + n).unwrap()).collect();
    assert_eq!(again, over, "the oldest first");
    assert_eq!((short_connection(&mut bench, 1, 7000), bench.drops(NatPorts)), (None, 2));
    assert!(leads_to(&mut bench, 2, kept));
}

#[test]
fn connection_that_is_over_makes_room_for_another_protocol() {
    let mut bench = Bench::new();
    (0..16).for_each(|n| assert!(short_connection(&mut bench, 1, 5000 + n).is_some()));
    pass(&mut bench, Duration::from_secs(6));
    assert!(bench.port_of(1, &udp(1, 5000)).is_some());
    assert!(bench.up(1, &ping("10.98.0.1", SERVER, 7)).len() == 1);
    // The ports of TCP rest: another host may get them next.
    let view = bench.show();
    assert_eq!((view.mappings, view.free_tcp, view.free_udp, view.free_icmp), (16, 984, 999, 999));
}

#[test]
fn ports_that_other_protocols_made_rest_count_against_their_own() {
    let mut bench = Bench::new();
    (0..16).for_each(|n| assert!(short_connection(&mut bench, 1, 5000 + n).is_some()));
    pass(&mut bench, Duration::from_secs(6));
    (0..16).for_each(|n| assert!(bench.port_of(1, &ping("10.98.0.1", SERVER, n)).is_some()));
    pass(&mut bench, MINUTE + Duration::from_secs(5));
    assert_eq!(bench.show().mappings, 0);
    assert_eq!((short_connection(&mut bench, 1, 6000), bench.drops(NatLimit)), (None, 1));
    assert!(bench.port_of(1, &udp(1, 6000)).is_some(), "of another protocol");
    assert!(short_connection(&mut bench, 2, 6000).is_some(), "of another host");
    pass(&mut bench, MINUTE);
    assert!(short_connection(&mut bench, 1, 6000).is_some());
}

#[test]
fn mapping_of_another_protocol_stays_if_its_end_would_not_help() {
    let mut bench = Bench::with(|config| config.nats[0].ports = FIRST..=FIRST + 15);
    (0..16).for_each(|n| assert!(bench.port_of(2, &udp(2, 5000 + n)).is_some()));
    (0..16).for_each(|n| assert!(short_connection(&mut bench, 1, 5000 + n).is_some()));
    pass(&mut bench, Duration::from_secs(6));
    assert_eq!((bench.port_of(1, &udp(1, 5000)), bench.drops(NatLimit)), (None, 1));
    assert_eq!(bench.show().mappings, 32);
}

/// Has the worker take 400 new flows, and then others to port 54, while the slow path is busy. Returns
/// whether one of these leaves.
fn leaves_in_a_flood(
    world: &mut World,
    port: usize,
    flood: impl Iterator<Item = Vec<u8>>,
    others: &[Vec<u8>],
) -> bool {
    flood.for_each(|packet| world.put(port, &packet));
    others.iter().for_each(|packet| world.put(port, packet));
    (0..10).for_each(|_| _ = world.assembly.workers[0].0.turn());
    world.settle();
    assert!(world.drops(PuntRingFull) > 100);
    world.take(OUTSIDE).iter().any(|packet| packet[22..24] == 54u16.to_be_bytes())
}

/// Packets without a mapping wait in rings, of which each link has a share, however many hosts are
/// behind it, and each host on this side.
#[test]
fn flood_of_new_flows_leaves_room_for_others() {
    let Bench { mut world, terminals: [mut site, mut other] } = Bench::with(|config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.1.0/24")];
    });
    let others = [other.seal(&datagram("10.98.0.2", SERVER, (6000, 54), b"query"))];
    let flood = (1..=400).map(|flow| {
        site.seal(&datagram(&format!("10.98.1.{}", 1 + flow % 250), SERVER, (flow, 53), b"query"))
    });
    assert!(leaves_in_a_flood(&mut world, OUTSIDE, flood, &others), "{:?}", world.all_drops());

    let mut world = in_clear();
    // Two hosts share a bucket by chance.
    let others = [8, 9, 10].map(|n| datagram(&format!("10.99.0.{n}"), SERVER, (6000, 54), b"query"));
    let flood = (1..=400).map(|flow| datagram("10.99.0.7", SERVER, (flow, 53), b"query"));
    assert!(leaves_in_a_flood(&mut world, INSIDE, flood, &others), "{:?}", world.all_drops());
}
