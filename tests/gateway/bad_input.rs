//! Bad packets: each kind has its own drop reason and gets no answer, and the good packets around
//! it in the burst pass.

use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::Mode,
    wire::ip,
};

const SUITE: &str = "aes128-sha256";

/// Sends the frame `bad` between good packets of two tunnels; returns the drops by reason, and how
/// many packets came out besides the good ones.
fn between_good_ones(bad: &[u8]) -> (Vec<(DropReason, u64)>, usize) {
    let (drops, extra, _) = between_good_ones_with_punts(bad);
    (drops, extra)
}

/// Does the same as [`between_good_ones`], and also returns how many packets were handed to the
/// slow path, or are kept because they are fragments.
fn between_good_ones_with_punts(bad: &[u8]) -> (Vec<(DropReason, u64)>, usize, u64) {
    let mut world = World::new(vec![tunnel(1, suite(SUITE)), tunnel(2, suite("aes256gcm16")), transport()]);
    world.meet_neighbours();
    let punted = world.counters().punted.value();
    let mut one = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let mut two = Terminal::new(2, suite("aes256gcm16"), "192.0.2.2");
    let good = |n: u32| datagram(&format!("10.98.0.{n}"), "10.99.0.7", (1, 2), b"good");
    world.put(OUTSIDE, &one.seal(&good(1)));
    world.put(OUTSIDE, &two.seal(&good(2)));
    assert!(world.wires[OUTSIDE].send(bad));
    world.put(OUTSIDE, &two.seal(&good(2)));
    world.put(OUTSIDE, &one.seal(&good(1)));
    world.settle();
    let expected: Vec<_> = [1, 2, 2, 1].map(|n| forwarded(&good(n))).into();
    let mut inside = world.take(INSIDE);
    let extra = inside.len() - 4;
    inside.retain(|p| expected.contains(p));
    assert_eq!(inside, expected, "the good packets around a bad one pass");
    world.assembly.workers.iter_mut().for_each(|(w, _)| {
        (0..5000).for_each(|_| {
            w.turn();
        })
    });
    let kept = 512 - world.counters().free_frames.value();
    let is_fragment = bad.len() > 34 && bad[20..22] != [0, 0] && bad[20..22] != [0x40, 0];
    assert!(kept == 0 || is_fragment, "a frame did not come back");
    let punted = world.counters().punted.value() - punted;
    (world.all_drops(), extra + world.out[OUTSIDE].len(), punted + kept)
}

fn transport() -> wayfarer::config::model::Tunnel {
    let mut t = tunnel(3, suite(SUITE));
    t.mode = Mode::Transport;
    t.remote = wayfarer::config::model::Remote::At(ip("192.0.2.3"), 0);
    t.selectors = vec![selector("203.0.113.1", "192.0.2.3")];
    t
}

fn terminal() -> Terminal {
    let mut t = Terminal::new(1, suite(SUITE), "192.0.2.1");
    t.seq = 100;
    t
}

fn inner() -> Vec<u8> {
    datagram("10.98.0.1", "10.99.0.7", (1, 2), b"inside")
}

fn from_outside(packet: &[u8]) -> Vec<u8> {
    to_gateway(OUTSIDE, packet)
}

fn arp_request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    use wayfarer_dataplane::wire::arp::{Arp, Operation};
    let operation = Operation::Request;
    let sender_mac = [2, 0, 0, 0, 0, 0x77];
    let arp = Arp { operation, sender_mac, sender: sender.into(), target_mac: [0; 6], target: target.into() };
    arp.frame([0xff; 6])
}

/// Applies `change` to an outer IPv4 packet and corrects its checksum.
fn changed(mut packet: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut packet);
    packet[10..12].fill(0);
    let sum = wayfarer_dataplane::wire::checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn sealed() -> Vec<u8> {
    terminal().seal_as(&inner(), 4, 100)
}

/// Seals an ESP packet with exactly `plain` as plaintext, which must be whole blocks of the cipher.
fn with_plaintext(terminal: &Terminal, plain: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + 16];
    bytes.extend_from_slice(plain);
    bytes.extend_from_slice(&[0; 16]);
    terminal.protect(bytes, 100)
}

#[test]
fn drops_frames_without_ip_for_the_gateway() {
    let good = from_outside(&sealed());
    let mut foreign = good.clone();
    foreign[5] ^= 1;
    let mut ethertype = good.clone();
    ethertype[12..14].copy_from_slice(&[0x88, 0xcc]);
    let mut version = good.clone();
    version[12..14].copy_from_slice(&[0x86, 0xdd]);
    let mut multicast = from_outside(&changed(sealed(), |p| p[16..20].copy_from_slice(&[224, 0, 0, 5])));
    multicast[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 5]);
    for (bad, reason) in [
        (vec![], RuntFrame),
        (good[..13].to_vec(), RuntFrame),
        (foreign, ForeignMac),
        (ethertype, UnknownEthertype),
        (version, IpVersion),
        (multicast, Multicast),
        (good[..14].to_vec(), IpTruncated),
        (good[..30].to_vec(), IpTruncated),
        (good[..60].to_vec(), IpTotalLength),
    ] {
        assert_eq!(between_good_ones(&bad), (vec![(reason, 1)], 0));
    }
}

#[test]
fn drops_invalid_outer_ipv4_headers() {
    let options = changed(sealed(), |p| {
        p[0] = 0x46;
        p.splice(20..20, [1, 1, 1, 1]);
        let total = p.len() as u16;
        p[2..4].copy_from_slice(&total.to_be_bytes());
    });
    // With options the checksum covers 24 bytes.
    let mut options = options;
    let total = options.len();
    ip::set_total_len(&mut options, 24, total);
    let mut checksum = sealed();
    checksum[10] ^= 1;
    for (packet, reason) in [
        (changed(sealed(), |p| p[0] = 0x44), IpHeaderLength),
        (changed(sealed(), |p| p[2..4].copy_from_slice(&[0, 19])), IpTotalLength),
        (changed(sealed(), |p| p[2..4].copy_from_slice(&[0xff, 0xff])), IpTotalLength),
        (checksum, IpChecksum),
        (options, OuterOptions),
    ] {
        assert_eq!(between_good_ones(&from_outside(&packet)), (vec![(reason, 1)], 0));
    }
}

#[test]
fn drops_outer_ipv6_with_strange_extension_or_invalid_headers() {
    let mut v6 = vec![0; 40];
    ip::emit(&mut v6, ip("2001:db8:2::1"), ip("2001:db8:1::1"), 60, 8 + 40);
    // An option that nobody must skip without knowing it.
    v6.extend_from_slice(&[50, 0, 0xc2, 4, 0, 0, 0, 0]);
    v6.extend_from_slice(&[0x55; 40]);
    let mut lie = v6.clone();
    lie[5] = 0xff;
    let mut beyond = v6.clone();
    beyond[41] = 200;
    // Two fragment headers.
    let mut twice = v6.clone();
    twice[6] = 44;
    twice[40..48].copy_from_slice(&[44, 0, 0, 0, 0, 0, 0, 6]);
    twice[48..56].copy_from_slice(&[50, 0, 0, 1, 0, 0, 0, 7]);
    for (packet, reason) in
        [(v6, OuterOptions), (lie, IpTotalLength), (beyond, IpHeaderLength), (twice, IpHeaderLength)]
    {
        assert_eq!(between_good_ones(&from_outside(&packet)), (vec![(reason, 1)], 0));
    }
}

#[test]
fn drops_invalid_udp_lengths_and_truncated_esp() {
    let mut behind_nat = terminal();
    behind_nat.port = Some(1000);
    let udp = behind_nat.seal_as(&inner(), 4, 100);
    let short_esp = |n: usize| terminal().wrap(&sealed()[20..20 + n]);
    for (packet, reason) in [
        (changed(udp.clone(), |p| p[24..26].copy_from_slice(&[0, 7])), UdpLength),
        (changed(udp.clone(), |p| p[24..26].copy_from_slice(&[0xff, 0])), UdpLength),
        (behind_nat.wrap(&[0xff]), Keepalive),
        (behind_nat.wrap(&[1, 2, 3]), EspTruncated),
        (short_esp(7), EspTruncated),
        (short_esp(8), EspTruncated),
        (short_esp(41), EspTruncated),
        // Long enough, but not whole blocks.
        (short_esp(60), NotAuthentic),
    ] {
        assert_eq!(between_good_ones(&from_outside(&packet)), (vec![(reason, 1)], 0));
    }
}

#[test]
fn udp_length_decides_if_it_is_shorter_than_the_ip_payload() {
    // A datagram to one of the gateway's ports whose UDP header says `length`, less than the IP
    // packet carries.
    let lying = |port: u16, payload: &[u8], length: u16| {
        let packet = datagram("192.0.2.9", "203.0.113.1", (999, port), payload);
        let packet = changed(packet, |p| p[24..26].copy_from_slice(&length.to_be_bytes()));
        between_good_ones_with_punts(&from_outside(&packet))
    };
    let mut ike = [0; 64];
    ike[19] = 0x08;
    let marked = [&[0; 4][..], &ike].concat();
    for length in [8, 9, 11, 12, 27, 28, 40, 71] {
        // The slow path judges it, and does not answer.
        assert_eq!(lying(500, &ike, length), (vec![], 0, 1), "{length} bytes to port 500");
        let (drops, punted) = match length {
            8 => (vec![(EspTruncated, 1)], 0),
            9 => (vec![(EspTruncated, 1)], 0),
            11 => (vec![(EspTruncated, 1)], 0),
            _ => (vec![], 1),
        };
        assert_eq!(lying(4500, &marked, length), (drops, 0, punted), "{length} bytes to port 4500");
    }
    // Bytes after the datagram do not belong to the ESP packet.
    let mut behind_nat = terminal();
    behind_nat.port = Some(1000);
    let esp = behind_nat.seal_as(&inner(), 4, 100);
    let longer = changed(esp, |p| {
        p.extend_from_slice(&[0xee; 33]);
        let total = p.len() as u16;
        p[2..4].copy_from_slice(&total.to_be_bytes());
    });
    assert_eq!(between_good_ones(&from_outside(&longer)), (vec![], 1));
}

#[test]
fn drops_unknown_spis_and_wrong_destinations() {
    let to_inside = changed(sealed(), |p| p[16..20].copy_from_slice(&[10, 99, 0, 1]));
    let spi = |spi: u32| {
        let mut packet = sealed();
        packet[20..24].copy_from_slice(&spi.to_be_bytes());
        packet
    };
    for (packet, reason) in [
        (spi(0), SpiReserved),
        (spi(255), SpiReserved),
        (spi(256), UnknownSpi),
        (spi(0xffff_ffff), UnknownSpi),
        (to_inside, WrongDestination),
    ] {
        assert_eq!(between_good_ones(&from_outside(&packet)), (vec![(reason, 1)], 0));
    }
}

#[test]
fn drops_malformed_plaintexts() {
    let t = terminal();
    let mut pad = vec![0u8; 32];
    pad[30..].copy_from_slice(&[31, 4]);
    let mut total = inner();
    total[3] += 50;
    ip::set_total_len(&mut total, 20, inner().len() + 50);
    let mut checksum = inner();
    checksum[10] ^= 1;
    let elsewhere = datagram("10.98.0.2", "10.99.0.7", (1, 2), b"another terminal's address");
    let beyond = datagram("10.98.0.1", "10.99.1.7", (1, 2), b"not this tunnel's network");
    for (packet, reason) in [
        (with_plaintext(&t, &pad), PadLength),
        (t.seal_as(&inner(), 59, 100), Dummy),
        (t.seal_as(&[], 59, 100), Dummy),
        (t.seal_as(&inner(), 17, 100), NextHeader),
        (t.seal_as(&inner(), 41, 100), InnerMalformed),
        (t.seal_as(&inner()[..19], 4, 100), InnerMalformed),
        (t.seal_as(&total, 4, 100), InnerMalformed),
        (t.seal_as(&checksum, 4, 100), InnerMalformed),
        (t.seal_as(&[], 4, 100), InnerMalformed),
        (t.seal_as(&elsewhere, 4, 100), InnerSelector),
        (t.seal_as(&beyond, 4, 100), InnerSelector),
    ] {
        assert_eq!(between_good_ones(&from_outside(&packet)), (vec![(reason, 1)], 0));
    }
}

#[test]
fn drops_congestion_marks_that_the_inner_packet_cannot_carry() {
    let marked = changed(sealed(), |p| p[1] = 3);
    assert_eq!(between_good_ones(&from_outside(&marked)), (vec![(EcnForbidden, 1)], 0));
}

#[test]
fn transport_mode_checks_plaintexts() {
    let t = Terminal::new(3, suite(SUITE), "192.0.2.3");
    let lie = t.seal_as(&[0, 1, 0, 2, 0, 9, 0, 0, 7], 17, 1);
    assert_eq!(between_good_ones(&from_outside(&lie)), (vec![(NotForUs, 1)], 0));
    let dummy = t.seal_as(&[1, 2, 3], 59, 1);
    assert_eq!(between_good_ones(&from_outside(&dummy)), (vec![(Dummy, 1)], 0));
}

#[test]
fn drops_clear_packets_that_no_policy_lets_pass() {
    for (packet, reason) in [
        (inner(), Unprotected),
        (datagram("198.51.100.1", "198.51.100.2", (1, 2), b"passing by"), NoPolicy),
        (datagram("192.0.2.9", "203.0.113.1", (1, 22), b"to the host"), NotForUs),
    ] {
        assert_eq!(between_good_ones(&from_outside(&packet)), (vec![(reason, 1)], 0));
    }
}

#[test]
fn malformed_arp_and_neighbour_discovery_gets_no_answer_and_is_counted() {
    use wayfarer_dataplane::wire::nd::{Neighbour, solicited_node};
    let arp = arp_request([203, 0, 113, 254], [203, 0, 113, 1]);
    let (station, target) = (STATION_MAC[OUTSIDE], "2001:db8:1::1".parse().unwrap());
    let (group, group_mac) = solicited_node(target);
    let question = Neighbour { solicitation: true, target, mac: Some(station), solicited: false };
    let nd = question.frame(station, "2001:db8:1::fe".parse().unwrap(), group_mac, group);
    let with = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        frame
    };
    for bad in [
        arp[..41].to_vec(),
        // An operation that is neither a request nor a reply, and a group as the sender.
        with(&arp, 21, 9),
        with(&arp, 22, 1),
        // A wrong checksum.
        with(&nd, 57, nd[57] ^ 1),
    ] {
        let mut world = World::new(vec![tunnel(1, suite(SUITE))]);
        world.meet_neighbours();
        assert!(world.wires[OUTSIDE].send(&bad));
        world.settle();
        assert_eq!((world.slow_drops(ControlFormat), world.all_drops()), (1, vec![]), "{bad:02x?}");
        assert_eq!(world.out[OUTSIDE].len(), 0);
    }
}

#[test]
fn flood_of_control_messages_disturbs_no_traffic() {
    let mut world = World::with(config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]), 4096);
    world.meet_neighbours();
    let mut one = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let mut flooder = terminal();
    flooder.port = Some(999);
    let ike = flooder.wrap(&[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let before = world.counters().punted.value();
    for i in 0..2000 {
        world.put(OUTSIDE, &ike);
        if i == 1000 {
            // During the flood, a host asks for the gateway's MAC address, and a packet needs an
            // unresolved neighbour.
            let probe = arp_request([10, 99, 0, 200], [10, 99, 0, 1]);
            assert!(world.wires[INSIDE].send(&probe));
            world.put(OUTSIDE, &one.seal(&datagram("10.98.0.1", "10.99.0.201", (1, 2), b"to a new host")));
        }
        if i % 100 == 0 {
            world.put(OUTSIDE, &one.seal(&inner()));
        }
    }
    world.settle();
    let inside = std::mem::take(&mut world.out[INSIDE]);
    let answered = inside.iter().filter(|frame| frame[12..14] == [8, 6]).count();
    assert_eq!(
        (inside.len() - answered, answered),
        (21, 1),
        "the packet to a new host passes, and the ARP request is answered"
    );
    let full = world.drops(PuntRingFull);
    assert!(full > 0);
    // Punted or refused were the flood, the ARP request, the packet that waited, and the answer
    // that it waited for.
    assert_eq!(full + world.counters().punted.value() - before, 2003);
    assert_eq!(world.slow_drops(NoKeyExchange), 2000 - full);
    assert_eq!(world.out[OUTSIDE].len(), 0);
}

#[test]
fn counts_missed_packets_without_free_frames_and_goes_on() {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    config.gateway.frames = 8;
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let mut one = Terminal::new(1, suite(SUITE), "192.0.2.1");
    (0..100).for_each(|_| world.put(OUTSIDE, &one.seal(&inner())));
    world.settle();
    let passed = world.take(INSIDE).len() as u64;
    world.assembly.workers.iter_mut().for_each(|(w, _)| {
        (0..5000).for_each(|_| {
            w.turn();
        })
    });
    let missed = world.counters().ports[OUTSIDE].stats().rx_missed;
    assert!(passed > 0 && missed > 0, "passed {passed}, missed {missed}");
    assert_eq!(passed + missed, 100);
    world.send(OUTSIDE, &one.seal(&inner()));
    assert_eq!(world.take(INSIDE).len(), 1);
}

#[test]
fn full_transmit_ring_drops_and_counts() {
    let mut world = World::with(config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]), 16);
    world.meet_neighbours();
    let mut one = Terminal::new(1, suite(SUITE), "192.0.2.1");
    // Four bursts of 16 while nobody reads the inside wire, which holds 16.
    for _ in 0..4 {
        (0..16).for_each(|_| world.put(OUTSIDE, &one.seal(&inner())));
        world.assembly.workers.iter_mut().for_each(|(w, _)| while w.turn() {});
    }
    assert_eq!(world.all_drops(), [(TxRingFull, 48)]);
    world.settle();
    assert_eq!(world.take(INSIDE).len(), 16);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Checks that any mutation or truncation of a good frame causes no panic and no answer, and is
    /// counted exactly once.
    #[test]
    fn every_frame_is_dropped_or_forwarded_and_counted_once(
        cut in 0usize..120,
        changes in proptest::collection::vec((0usize..120, proptest::prelude::any::<u8>()), 0..6),
        v6: bool,
    ) {
        let mut bad = if v6 {
            let mut t = Terminal::new(1, suite(SUITE), "2001:db8:2::1");
            t.port = Some(7);
            from_outside(&t.seal_as(&inner(), 4, 100))
        } else {
            from_outside(&sealed())
        };
        for (at, byte) in changes {
            let at = at % bad.len();
            bad[at] ^= byte;
        }
        bad.truncate(bad.len() - cut.min(bad.len()));
        let (drops, extra, punted) = between_good_ones_with_punts(&bad);
        let dropped: u64 = drops.iter().map(|(_, n)| n).sum();
        proptest::prop_assert_eq!(dropped + extra as u64 + punted, 1, "{:?} {}", drops, extra);
    }
}
