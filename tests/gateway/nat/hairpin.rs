//! Inner hosts that reach each other by their ports outside (RFC 4787 §6).

use super::*;

/// RFC 4787 §6: the other host sees the address and port outside.
#[test]
fn terminals_reach_each_other_by_their_ports_outside() {
    let mut bench = Bench::new();
    let two = bench.port_of(2, &udp(2, 6000)).unwrap();
    // The first packet needs a mapping of its sender first.
    for text in [&b"one"[..], b"two"] {
        bench.tunnelled(1, &datagram("10.98.0.1", OUTER, (5000, two), text));
        let got = bench.received(2);
        assert_eq!(got.len(), 1, "{:?}", bench.world.all_drops());
        let (src, one, dst) = ends(&got[0]);
        assert_eq!((&src[..], &dst[..], &got[0][28..]), (OUTER, "10.98.0.2", text));
        bench.tunnelled(2, &datagram("10.98.0.2", OUTER, (6000, one), b"back"));
        let got = bench.received(1);
        let back = datagram(OUTER, "10.98.0.1", (two, 5000), b"back");
        assert_eq!(got, [forwarded(&back)], "{:?}", bench.world.all_drops());
    }
    let payload = vec![3; 3000];
    for piece in fragments(&datagram("10.98.0.1", OUTER, (5000, two), &payload), 1400, 9) {
        bench.tunnelled(1, &piece);
    }
    let got = joined(bench.received(2));
    assert_eq!((got.len(), &got[0][28..]), (1, &payload[..]), "{:?}", bench.world.all_drops());
    assert_eq!(bench.world.all_drops(), []);
}

/// RFC 4787 §6, between a host in clear and a terminal.
#[test]
fn hosts_in_clear_and_terminals_reach_each_other_by_their_ports_outside() {
    let mut bench = with_hosts_in_clear();
    let terminal = bench.port_of(1, &udp(1, 6000)).unwrap();
    let mut host = None;
    // The first packet needs a mapping of its sender first.
    for text in [&b"one"[..], b"two"] {
        bench.world.send(INSIDE, &datagram("10.99.0.7", OUTER, (5000, terminal), text));
        let got = bench.received(1);
        assert_eq!(got.len(), 1, "{:?}", bench.world.all_drops());
        let (src, port, dst) = ends(&got[0]);
        assert_eq!((&src[..], &dst[..], &got[0][28..]), (OUTER, "10.98.0.1", text));
        assert_eq!(*host.get_or_insert(port), port);
        bench.tunnelled(1, &datagram("10.98.0.1", OUTER, (6000, port), text));
        let back = datagram(OUTER, "10.99.0.7", (terminal, 5000), text);
        assert_eq!(bench.world.take(INSIDE), [forwarded(&back)], "{:?}", bench.world.all_drops());
    }
    let payload = vec![3; 3000];
    for piece in fragments(&datagram("10.99.0.7", OUTER, (5000, terminal), &payload), 1400, 9) {
        bench.world.put(INSIDE, &piece);
    }
    bench.world.settle();
    let got = joined(bench.received(1));
    assert_eq!((got.len(), &got[0][28..]), (1, &payload[..]), "{:?}", bench.world.all_drops());
    assert_eq!(bench.world.all_drops(), []);
}

/// The first fragment came by the port of the host inside.
#[test]
fn nobody_outside_adds_to_fragments_of_a_host_in_clear() {
    let mut bench = with_hosts_in_clear();
    let terminal = bench.port_of(1, &udp(1, 6000)).unwrap();
    bench.world.send(INSIDE, &datagram("10.99.0.7", OUTER, (5000, terminal), b"makes the mapping"));
    assert_eq!(bench.received(1).len(), 1, "{:?}", bench.world.all_drops());
    let pieces = fragments(&datagram("10.99.0.7", OUTER, (5000, terminal), &[3; 2000]), 1400, 9);
    bench.world.send(INSIDE, &pieces[0]);
    bench.world.send(OUTSIDE, &pieces[1]);
    assert_eq!((bench.received(1).len(), bench.world.all_drops()), (0, vec![(SourcePort, 2)]));
}

/// They come from one address, so that the receiver would join fragments of two senders.
#[test]
fn packets_that_may_be_fragmented_get_identifications_of_their_own_too() {
    let mut bench = Bench::new();
    let two = bench.port_of(2, &udp(2, 6000)).unwrap();
    let mut ids = vec![];
    for n in [1, 2] {
        let sent = datagram(&format!("10.98.0.{n}"), OUTER, (5000, two), &[n as u8; 1600]);
        for piece in fragments(&sent, 1400, 7) {
            bench.tunnelled(n, &piece);
        }
        let got = bench.received(2);
        assert_eq!(got.len(), 2, "{:?}", bench.world.all_drops());
        assert_eq!(got[0][4..6], got[1][4..6]);
        ids.push(got[0][4..6].to_vec());
        assert_eq!(ends(&joined(got)[0]).0, OUTER);
    }
    assert_ne!(ids[0], ids[1]);
    // One that must not be fragmented needs none (RFC 6864 §4.1).
    let whole = datagram("10.98.0.1", OUTER, (5000, two), b"whole");
    bench.tunnelled(1, &whole);
    assert_eq!(bench.received(2)[0][4..6], whole[4..6]);
}

/// Answers come back through the sender's tunnel, which may take less than the receiver's.
#[test]
fn segments_between_terminals_fit_the_smaller_of_both_tunnels() {
    for small in [1, 2] {
        let mut bench = Bench::with(|config| config.tunnels[small - 1].mtu = Some(1000));
        let two = bench.port_of(2, &segment("10.98.0.2", SERVER, (6000, 443), SYN)).unwrap();
        // Shows where the terminal is, and so how long the outer headers are.
        bench.up(1, &udp(1, 5000));
        // The first one needs a mapping of its sender first.
        for _ in 0..2 {
            let mss = [2, 4, 0x05, 0xb4];
            bench.tunnelled(1, &segment_with("10.98.0.1", OUTER, (5000, two), SYN, &mss));
            let got = bench.received(2);
            assert_eq!(got.len(), 1, "{:?}", bench.world.all_drops());
            assert_eq!(ends(&got[0]).0, OUTER);
            // 1000 bytes less IP, ESP and its padding, and less the headers inside.
            assert_eq!(got[0][40..44], [2, 4, 0x03, 0x8a], "tunnel {small} is small");
        }
    }
}
