//! Forwarding with every algorithm, mode and address family, with two SAs in each burst.

use wayfarer::config::model::{Encapsulation, Remote};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::{
    crypto::Suite,
    drop::DropReason,
    sa::Mode,
    wire::{ip::IpHeader, udp},
};

/// Makes inner packets of terminal `n`, IPv4 and IPv6, with different payloads.
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
fn forwards_every_suite_and_family_in_both_directions() {
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
fn accepts_priority_tags_and_drops_frames_in_vlans() {
    let (priority, outer, vlan) = ([0x81, 0, 0xa0, 0], [0x88, 0xa8, 0x40, 0], [0x81, 0, 0xa0, 5]);
    for (tags, is_accepted) in [
        (&[][..], true),
        (&[priority], true),
        (&[outer], true),
        (&[outer, priority], true),
        (&[priority; 9], true),
        (&[vlan], false),
        (&[priority, vlan], false),
        (&[vlan, priority], false),
    ] {
        let mut terminal = Terminal::new(1, Suite::ALL[0], "192.0.2.1");
        let mut world = World::new(vec![tunnel(1, Suite::ALL[0])]);
        let [sent, _] = inner(1);
        let [answer, _] = answers(1);
        for (port, packet) in [(OUTSIDE, terminal.seal(&sent)), (INSIDE, answer.clone())] {
            let mut tagged = to_gateway(port, &packet);
            tagged.splice(12..12, tags.concat());
            assert!(world.wires[port].send(&tagged));
            world.settle();
        }
        let got = world.take(INSIDE);
        let opened: Vec<_> = world.take(OUTSIDE).iter().map(|packet| terminal.open(packet).2).collect();
        if is_accepted {
            assert_eq!((got, opened), (vec![forwarded(&sent)], vec![forwarded(&answer)]), "{tags:x?}");
            assert_eq!(world.all_drops(), [], "{tags:x?}");
        } else {
            assert_eq!((got.len(), opened.len()), (0, 0), "{tags:x?}");
            assert_eq!(world.all_drops(), [(DropReason::UnknownEthertype, 2)], "{tags:x?}");
        }
    }
}

#[test]
fn transport_mode_carries_the_hosts_payloads() {
    for (peers, local) in
        [(["192.0.2.1", "192.0.2.2"], "203.0.113.1"), (["2001:db8:2::1", "2001:db8:2::2"], "2001:db8:1::1")]
    {
        for udp in [false, true] {
            let suites = [suite("aes256gcm16"), suite("aes128-sha1")];
            let mut tunnels = vec![];
            let mut terminals = vec![];
            for (n, (suite, peer)) in (1..).zip(suites.into_iter().zip(peers)) {
                let mut config = tunnel(n, suite);
                config.mode = Mode::Transport;
                config.local = ip(local);
                config.remote = Remote::At(ip(peer), 4500);
                config.encap = if udp { Encapsulation::Udp(4500) } else { Encapsulation::None };
                config.selectors = vec![selector(local, peer)];
                tunnels.push(config);
                let mut terminal = Terminal::new(n, suite, peer);
                terminal.port = udp.then_some(4500);
                terminals.push(terminal);
            }
            let mut world = World::host(tunnels);
            let header = if local.contains(':') { 40 } else { 20 };
            let plain = |i: usize| datagram(peers[i], local, (9, 10), &vec![i as u8; 40 + i]);
            for (i, terminal) in terminals.iter().enumerate() {
                world.put(OUTSIDE, &terminal.seal_as(&plain(i)[header..], 17, 1));
            }
            world.settle();
            assert_eq!(world.take(INSIDE), [plain(0), plain(1)], "udp {udp}: {:?}", world.all_drops());

            let answer = |i: usize| datagram(local, peers[i], (10, 9), &vec![0x80 | i as u8; 30 + i]);
            world.put(INSIDE, &answer(1));
            world.put(INSIDE, &answer(0));
            world.settle();
            let out = world.take(OUTSIDE);
            assert_eq!(out.len(), 2, "{:?}", world.all_drops());
            for packet in &out {
                let to = IpHeader::parse(packet).unwrap().dst;
                let i = peers.iter().position(|peer| to == ip(peer)).unwrap();
                let (outer, seq, payload, next) = terminals[i].open(packet);
                assert_eq!((seq, next, &payload[..]), (1, 17, &answer(i)[header..]));
                assert_eq!((outer.src.into(), outer.hop_limit), (ip(local), 64));
            }
            assert_eq!(world.all_drops(), []);
        }
    }
}

/// ESP in UDP needs no checksum over IPv4, but some senders write one (RFC 3948 §2.1).
#[test]
fn esp_in_udp_may_have_a_checksum() {
    let mut world = World::new(vec![tunnel(1, suite("aes128gcm16"))]);
    let mut terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    terminal.port = Some(4500);
    let [up, _] = inner(1);
    for has_checksum in [false, true] {
        let mut packet = terminal.seal(&up);
        assert_eq!(packet[26..28], [0, 0]);
        if has_checksum {
            udp::set_checksum(&mut packet[20..], terminal.address, terminal.gateway);
        }
        world.send(OUTSIDE, &packet);
        assert_eq!(world.take(INSIDE), [forwarded(&up)], "{has_checksum} {:?}", world.all_drops());
    }
}

#[test]
fn transport_mode_drops_unprotected_packets() {
    let mut transport = tunnel(1, suite("aes256gcm16"));
    transport.mode = Mode::Transport;
    transport.remote = Remote::At(ip("192.0.2.1"), 4500);
    transport.selectors = vec![selector("203.0.113.1", "192.0.2.1")];
    let mut world = World::host(vec![transport, tunnel(2, suite("aes128gcm16"))]);
    world.send(OUTSIDE, &datagram("192.0.2.1", "203.0.113.1", (1, 2), b"spoofed, in clear"));
    assert_eq!(world.all_drops(), [(DropReason::Unprotected, 1)]);
    assert_eq!((world.take(INSIDE).len(), world.take(OUTSIDE).len()), (0, 0));
    // A packet to the host that no selector covers passes.
    world.send(OUTSIDE, &datagram("192.0.2.9", "203.0.113.1", (1, 22), b"ssh"));
    assert_eq!(world.take(INSIDE).len(), 1);
}
