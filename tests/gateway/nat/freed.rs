//! Mappings of inner addresses that change hands.

use super::*;
use wayfarer::config::model::Tunnel;
use wayfarer_dataplane::sa::Rank;

/// Makes the tunnel of terminal `n` with this inner prefix.
fn tunnel_for(n: u32, inner: &str) -> Tunnel {
    Tunnel { selectors: vec![selector("0.0.0.0/0", inner)], ..tunnel(n, suite(SUITE)) }
}

/// Removes a tunnel.
fn remove(bench: &mut Bench, name: &str) {
    assert!(bench.world.assembly.slow_path.remove_tunnel(name));
    bench.world.settle();
}

/// Has terminal `n` come with this inner prefix, as number 1 of the bench.
fn come(bench: &mut Bench, n: u32, inner: &str) {
    bench.world.assembly.slow_path.install_tunnel(&tunnel_for(n, inner)).unwrap();
    bench.terminals[0] = Terminal::new(n, suite(SUITE), &format!("192.0.2.{n}"));
}

#[test]
fn next_holder_of_an_address_gets_nothing_of_the_earlier_ones() {
    let mut bench = Bench::new();
    let other = bench.port_of(2, &udp(2, 6000)).unwrap();
    let ports: Vec<_> = (0..3).map(|n| bench.port_of(1, &udp(1, 20_500 + n)).unwrap()).collect();
    bench.up(1, &segment("10.98.0.1", SERVER, (20_500, 443), SYN));
    // Both in one turn: the new terminal is there when the slow path looks after the mappings.
    assert!(bench.world.assembly.slow_path.remove_tunnel("t1"));
    come(&mut bench, 3, "10.98.0.1");
    bench.world.settle();
    let view = bench.show();
    assert_eq!((view.mappings, view.users.len(), view.free_udp, view.free_tcp), (1, 1, 996, 999));
    let new = bench.port_of(1, &udp(1, 5000)).unwrap();
    for port in ports {
        assert!(bench.down(1, &answer(port)).is_empty() && port != new);
    }
    assert_eq!(bench.drops(NatUnknown), 3);
    // The earlier ports rest, so the new terminal does not get one of them either.
    assert!(bench.port_of(1, &udp(1, 20_500)).is_some_and(|port| port != 20_500));
    assert_eq!((bench.down(1, &answer(new)).len(), bench.down(2, &answer(other)).len()), (1, 1));
}

#[test]
fn mappings_stay_while_another_tunnel_has_their_address() {
    let mut bench = Bench::new();
    let port = bench.port_of(1, &udp(1, 5000)).unwrap();
    // As in a rekey: the next tunnel is there before the earlier one of the same peer goes.
    let next = Tunnel { name: "t1".into(), ..tunnel_for(3, "10.98.0.1") };
    bench.world.assembly.slow_path.install_tunnel(&next).unwrap();
    bench.terminals[0] = Terminal::new(3, suite(SUITE), "192.0.2.3");
    remove(&mut bench, "t1");
    bench.tunnelled(1, &udp(1, 5000));
    bench.world.take(OUTSIDE);
    assert_eq!(bench.down(1, &answer(port)).len(), 1, "{:?}", bench.world.all_drops());
    // A wider one that goes leaves those of addresses with their own tunnel.
    come(&mut bench, 4, "10.98.0.0/24");
    let wide = bench.port_of(1, &datagram("10.98.0.77", SERVER, (7000, 53), b"query")).unwrap();
    assert_eq!(bench.show().mappings, 2);
    remove(&mut bench, "t4");
    let view = bench.show();
    assert_eq!((view.mappings, &view.users[0].address[..]), (1, "10.98.0.1"));
    assert_ne!(wide, port);
    // Nothing is left to do for the mapping that has ended.
    bench.world.now += Duration::from_secs(302);
    (0..2).for_each(|_| bench.world.settle());
    assert_eq!(bench.show().mappings, 0);
}

/// Both may claim it if the operator lets them.
#[test]
fn mappings_of_an_address_that_two_peers_have_end_when_one_is_left() {
    let mut bench = Bench::new();
    let port = bench.port_of(1, &udp(1, 5000)).unwrap();
    come(&mut bench, 3, "10.98.0.1");
    assert_eq!(bench.port_of(1, &udp(1, 5000)), Some(port), "nobody takes a mapping away");
    remove(&mut bench, "t1");
    assert_eq!(bench.show().mappings, 0);
    assert!(bench.down(1, &answer(port)).is_empty());
    assert!(bench.port_of(1, &udp(1, 5000)).is_some_and(|new| new != port));
}

#[test]
fn ports_that_rest_since_a_peer_left_count_against_it_alone() {
    // More than end in one turn.
    let mut bench = Bench::with(|config| config.nats[0].mappings = 300);
    for port in 0..300 {
        assert!(bench.port_of(1, &udp(1, 5000 + port)).is_some());
    }
    assert!(bench.world.assembly.slow_path.remove_tunnel("t1"));
    come(&mut bench, 3, "10.98.0.1");
    bench.world.settle();
    assert!((0..300).all(|port| bench.port_of(1, &udp(1, 5000 + port)).is_some()), "the next peer");
    assert_eq!((bench.port_of(1, &udp(1, 5300)), bench.drops(NatLimit)), (None, 1));
    remove(&mut bench, "t3");
    come(&mut bench, 1, "10.98.0.1");
    assert_eq!(bench.port_of(1, &udp(1, 5000)), None, "the first one comes back");
    let view = bench.show();
    let user = &view.users[0];
    assert_eq!((bench.drops(NatLimit), view.mappings, user.mappings, user.refused), (2, 0, 0, 2));
    assert!(bench.port_of(2, &udp(2, 6000)).is_some(), "another's");
    bench.world.now += Duration::from_secs(121);
    (0..4).for_each(|_| bench.world.settle());
    assert_eq!(bench.show().users.len(), 1);
    assert!((0..300).all(|port| bench.port_of(1, &udp(1, 5000 + port)).is_some()));
}

#[test]
fn packet_that_waits_while_its_tunnel_ends_makes_no_mapping() {
    let mut bench = Bench::new();
    let sealed = bench.terminals[0].seal(&udp(1, 5000));
    bench.world.put(OUTSIDE, &sealed);
    (0..10).for_each(|_| _ = bench.world.assembly.workers[0].0.turn());
    remove(&mut bench, "t1");
    assert_eq!((bench.show().mappings, bench.drops(SourcePort)), (0, 1));
}

#[test]
fn peer_that_gets_an_address_of_a_wider_tunnel_gets_none_of_its_mappings() {
    let mut bench = Bench::new();
    come(&mut bench, 4, "10.98.1.0/24");
    let of = |host: &str| datagram(host, SERVER, (7000, 53), b"query");
    let [given, kept] = ["10.98.1.7", "10.98.1.8"].map(|host| bench.port_of(1, &of(host)).unwrap());
    let wide = std::mem::replace(&mut bench.terminals[0], Terminal::new(5, suite(SUITE), "192.0.2.5"));
    come(&mut bench, 5, "10.98.1.7");
    bench.world.settle();
    assert_eq!(bench.show().mappings, 1);
    assert!(bench.down(1, &answer(given)).is_empty());
    assert_ne!(bench.port_of(1, &of("10.98.1.7")), Some(given));
    bench.terminals[0] = wide;
    assert_eq!(bench.port_of(1, &of("10.98.1.8")), Some(kept));
}

#[test]
fn mappings_of_hosts_in_clear_stay_whatever_tunnels_come_and_go() {
    let mut world = in_clear();
    world.send(INSIDE, &datagram("10.99.0.7", SERVER, (5000, 53), b"query"));
    let (_, port, _) = ends(&world.take(OUTSIDE)[0]);
    let selectors = vec![selector("10.98.0.0/16", "10.0.0.0/8")];
    world.assembly.slow_path.install_tunnel(&Tunnel { selectors, ..tunnel(1, suite(SUITE)) }).unwrap();
    world.settle();
    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    world.settle();
    world.send(OUTSIDE, &answer(port));
    assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
}

#[test]
fn mapping_ends_if_a_shorter_prefix_that_ranks_higher_gets_its_answers() {
    let mut bench = Bench::new();
    let of = datagram("10.98.1.7", SERVER, (7000, 53), b"query");
    // As if a peer had narrowed a prefix of all addresses to this one.
    let mut narrowed = tunnel_for(5, "10.98.1.7");
    narrowed.selectors[0].rank = Rank { local: 0, remote: 0, is_narrowed: true };
    bench.world.assembly.slow_path.install_tunnel(&narrowed).unwrap();
    bench.terminals[0] = Terminal::new(5, suite(SUITE), "192.0.2.5");
    let given = bench.port_of(1, &of).unwrap();
    come(&mut bench, 4, "10.98.1.0/24");
    bench.world.settle();
    assert_eq!(bench.show().mappings, 0);
    assert!(bench.down(1, &answer(given)).is_empty());
    // And back, once the wide one has gone.
    let wide = bench.port_of(1, &of).unwrap();
    remove(&mut bench, "t4");
    assert_eq!(bench.show().mappings, 0);
    bench.terminals[0] = Terminal::new(5, suite(SUITE), "192.0.2.5");
    assert!(bench.down(1, &answer(wide)).is_empty());
}

#[test]
fn tunnel_for_another_inner_network_ends_no_mapping() {
    let mut bench = Bench::new();
    come(&mut bench, 4, "10.98.1.0/24");
    let of = datagram("10.98.1.7", SERVER, (7000, 53), b"query");
    let port = bench.port_of(1, &of).unwrap();
    let selectors = vec![selector("10.99.0.0/24", "10.98.1.7")];
    let other = Tunnel { selectors, ..tunnel(5, suite(SUITE)) };
    bench.world.assembly.slow_path.install_tunnel(&other).unwrap();
    bench.world.settle();
    remove(&mut bench, "t5");
    assert_eq!((bench.show().mappings, bench.down(1, &answer(port)).len()), (1, 1));
}

#[test]
fn mappings_of_a_host_in_clear_stay_while_ports_of_an_earlier_peer_rest() {
    let mut world = in_clear();
    world.assembly.slow_path.install_tunnel(&tunnel_for(1, "10.99.0.7")).unwrap();
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let sealed = terminal.seal(&datagram("10.99.0.7", SERVER, (5000, 53), b"query"));
    world.send(OUTSIDE, &sealed);
    assert_eq!(world.take(OUTSIDE).len(), 1, "{:?}", world.all_drops());
    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    world.settle();
    world.send(INSIDE, &datagram("10.99.0.7", SERVER, (6000, 53), b"query"));
    let (_, port, _) = ends(&world.take(OUTSIDE)[0]);
    world.assembly.slow_path.install_tunnel(&tunnel_for(2, "10.99.0.7")).unwrap();
    world.settle();
    assert!(world.assembly.slow_path.remove_tunnel("t2"));
    world.settle();
    world.send(OUTSIDE, &answer(port));
    assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
}
