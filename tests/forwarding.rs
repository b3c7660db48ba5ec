//! The gateway forwards: every algorithm, mode and address family, two SAs and two ports in each burst.

mod world;

use wayfarer_dataplane::{crypto::Suite, drop::DropReason, sa::Mode, wire::ip::IpHeader};
use world::*;

/// Inner packets of terminal `n`, IPv4 and IPv6, with different payloads.
fn inner(n: u32) -> [Vec<u8>; 2] {
    [
        datagram(
            &format!("10.98.0.{n}"),
            "10.99.0.7",
            (1000 + n as u16, 53),
            format!("v4 of {n}").as_bytes(),
        ),
        datagram(&format!("fd00:98::{n:x}"), "fd00:99::7", (2000 + n as u16, 53), &vec![n as u8; 700]),
    ]
}

fn answers(n: u32) -> [Vec<u8>; 2] {
    [
        datagram("10.99.0.7", &format!("10.98.0.{n}"), (53, 1000 + n as u16), &vec![n as u8; 900]),
        datagram(
            "fd00:99::7",
            &format!("fd00:98::{n:x}"),
            (53, 2000 + n as u16),
            format!("to {n}").as_bytes(),
        ),
    ]
}

#[test]
fn every_suite_and_family_both_ways_with_two_terminals_in_each_burst() {
    for &suite in Suite::ALL {
        for esn in [false, true] {
            for (outer, udp) in
                [("192.0.2", false), ("192.0.2", true), ("2001:db8:2:", false), ("2001:db8:2:", true)]
            {
                let separator = if outer.contains(':') { ":" } else { "." };
                let mut tunnels = vec![tunnel(1, suite), tunnel(2, suite)];
                let mut terminals: Vec<_> =
                    [1, 2].map(|n| Terminal::new(n, suite, &format!("{outer}{separator}{n}"))).into();
                for (tunnel, terminal) in tunnels.iter_mut().zip(&mut terminals) {
                    tunnel.local = terminal.gateway;
                    tunnel.esn = esn;
                    terminal.esn = esn;
                    terminal.port = udp.then_some(40_000);
                }
                let mut world = World::new(tunnels);
                let sent: Vec<_> = [inner(1), inner(2)].concat();
                for (i, packet) in sent.iter().enumerate() {
                    let outer = terminals[i / 2].seal(packet);
                    world.put(OUTSIDE, &outer);
                }
                world.settle();
                let mut expected: Vec<_> = sent.iter().map(|p| forwarded(p)).collect();
                let mut got = world.take(INSIDE);
                expected.sort();
                got.sort();
                assert_eq!(got, expected, "{suite} esn {esn} {outer} udp {udp}: {:?}", world.all_drops());

                let replies: Vec<_> = [answers(1), answers(2)].concat();
                for i in [0, 2, 1, 3] {
                    world.put(INSIDE, &replies[i]);
                }
                world.settle();
                let out = world.take(OUTSIDE);
                assert_eq!(out.len(), 4, "{:?}", world.all_drops());
                for (index, terminal) in terminals.iter().enumerate() {
                    let mine: Vec<_> =
                        out.iter().filter(|p| IpHeader::parse(p).unwrap().dst == terminal.address).collect();
                    let opened: Vec<_> = mine.iter().map(|p| terminal.open(p)).collect();
                    assert_eq!(opened.iter().map(|o| o.1).collect::<Vec<_>>(), [1, 2]);
                    for reply in &replies[2 * index..2 * index + 2] {
                        let want = forwarded(reply);
                        assert!(opened.iter().any(|o| o.2 == want), "{suite} esn {esn} udp {udp}");
                    }
                }
                assert_eq!(world.all_drops(), []);
            }
        }
    }
}

#[test]
fn transport_mode_carries_the_payload_itself() {
    for udp in [false, true] {
        let suite = suite("aes256gcm16");
        let mut config_tunnel = tunnel(1, suite);
        config_tunnel.mode = Mode::Transport;
        config_tunnel.remote = wayfarer::config::model::Remote::At(ip("192.0.2.1"), 4500);
        config_tunnel.encap = if udp {
            wayfarer::config::model::Encapsulation::Udp(4500)
        } else {
            wayfarer::config::model::Encapsulation::None
        };
        config_tunnel.selectors = vec![selector("203.0.113.1", "192.0.2.1")];
        let mut world = World::new(vec![config_tunnel]);
        let mut terminal = Terminal::new(1, suite, "192.0.2.1");
        terminal.port = udp.then_some(4500);

        // To the host: there is no port to its stack here, and the drop says so.
        let plain = datagram("192.0.2.1", "203.0.113.1", (9, 10), b"to the host");
        terminal.seq += 1;
        let sealed = terminal.seal_as(&plain[20..], 17, terminal.seq);
        world.send(OUTSIDE, &sealed);
        assert_eq!(world.all_drops(), [(DropReason::NotForUs, 1)]);
        assert_eq!(world.counters().opened.value(), 1);

        // From the host, as if it came in by the inside port.
        let answer = datagram("203.0.113.1", "192.0.2.1", (10, 9), b"from the host");
        world.send(INSIDE, &answer);
        let out = world.take(OUTSIDE);
        assert_eq!(out.len(), 1, "{:?}", world.all_drops());
        let (outer, seq, payload, next) = terminal.open(&out[0]);
        assert_eq!((seq, next, &payload[..]), (1, 17, &answer[20..]));
        assert_eq!((outer.src, outer.dst, outer.hop_limit), (ip("203.0.113.1"), ip("192.0.2.1"), 64));
    }
}
