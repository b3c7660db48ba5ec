//! ICMP errors about translated packets (RFC 5508 §4), of others and of the gateway itself.

use super::*;

/// Makes an ICMP error with as much of a packet as fits.
fn error(src: &str, dst: &str, kind: u8, packet: &[u8], length: usize) -> Vec<u8> {
    icmp(src, dst, kind, &[&[0; 4], &packet[..length.min(packet.len())]].concat())
}

/// Returns the packet that an ICMP error quotes.
fn quote(error: &[u8]) -> &[u8] {
    &error[28..]
}

/// The packets of terminal 1 that errors are about, with their ports or identifiers inside.
fn sent() -> [Vec<u8>; 3] {
    [udp(1, 5000), segment("10.98.0.1", SERVER, (5000, 443), SYN), ping("10.98.0.1", SERVER, 5000)]
}

#[test]
fn routers_errors_reach_the_sender_of_what_they_quote() {
    for length in [28, 1500] {
        for sent in sent() {
            let mut bench = Bench::new();
            let out = bench.up(1, &sent);
            let error_to = |to: &str, about: &[u8]| error("192.0.2.200", to, 11, about, length);
            let got = bench.down(1, &error_to(OUTER, &out[0]));
            let expected = forwarded(&error_to("10.98.0.1", &forwarded(&sent)));
            assert_eq!(got, [expected], "{length} {:?}", bench.world.all_drops());
            // About a packet that was never sent from there.
            let mut other = out[0].clone();
            other[9] ^= protocol::TCP ^ protocol::UDP;
            if sent[9] != protocol::ICMP {
                assert_eq!(bench.down(1, &error_to(OUTER, &other)), [[0; 0]; 0]);
                assert_eq!(bench.drops(NatUnknown), 1);
            }
        }
    }
}

#[test]
fn terminals_errors_hide_their_address() {
    let mut bench = Bench::new();
    let port = bench.port_of(1, &udp(1, 5000)).unwrap();
    let received = bench.down(1, &answer(port)).remove(0);
    // From the terminal itself, and from a router behind it.
    for router in ["10.98.0.1", "10.97.0.9"] {
        let out = bench.up(1, &error(router, SERVER, 3, &received, 1500));
        assert_eq!(out.len(), 1, "{:?}", bench.world.all_drops());
        let (src, _, dst) = ends(&out[0]);
        assert_eq!((&src[..], &dst[..]), (OUTER, SERVER));
        // The server sees the packet as it sent it, with fewer hops left.
        assert_eq!(quote(&out[0])[12..], answer(port)[12..]);
        assert!(IpHeader::parse(quote(&out[0])).is_ok());
    }
    let never = datagram(SERVER, "10.98.0.1", (53, 5001), b"never came");
    assert_eq!(
        (bench.up(1, &error("10.98.0.1", SERVER, 3, &never, 1500)), bench.drops(NatUnknown)),
        (vec![], 1)
    );
}

#[test]
fn errors_between_terminals_show_the_addresses_outside() {
    let mut bench = Bench::new();
    let two = bench.port_of(2, &udp(2, 6000)).unwrap();
    let sent = datagram("10.98.0.1", OUTER, (5000, two), b"hello");
    bench.tunnelled(1, &sent);
    let received = bench.received(2).remove(0);
    bench.tunnelled(2, &error("10.98.0.2", OUTER, 3, &received, 1500));
    let got = bench.received(1);
    assert_eq!(got.len(), 1, "{:?}", bench.world.all_drops());
    assert_eq!((source(&got[0]), quote(&got[0])[12..].to_vec()), (ip(OUTER), sent[12..].to_vec()));
}

/// The server learns what fits through the terminal's tunnel.
#[test]
fn gateways_own_errors_quote_what_their_receiver_sent() {
    let mut bench = Bench::new();
    let port = bench.port_of(1, &udp(1, 5000)).unwrap();
    let too_long = datagram(SERVER, OUTER, (53, port), &[1; 1472]);
    bench.world.send(OUTSIDE, &too_long);
    let out = bench.world.take(OUTSIDE);
    assert_eq!((out.len(), bench.drops(TooBig)), (1, 1), "{:?}", bench.world.all_drops());
    let (src, _, dst) = ends(&out[0]);
    assert_eq!((&src[..], &dst[..], &out[0][20..22]), (OUTER, SERVER, &[3, 4][..]));
    let length = quote(&out[0]).len();
    assert_eq!(quote(&out[0]), &too_long[..length]);

    // A terminal hears of its own packet, whatever has become of that.
    let mut last = udp(1, 5000);
    last[8] = 1;
    wayfarer_dataplane::wire::ip::set_total_len(&mut last, 20, 33);
    bench.tunnelled(1, &last);
    assert_eq!(quote(&bench.received(1)[0]), last);
    bench.world.answer_neighbours = false;
    let nobody = datagram("10.98.0.1", "203.0.113.77", (5000, 53), b"query");
    bench.tunnelled(1, &nobody);
    bench.world.pass(Duration::from_secs(5));
    let got = bench.received(1);
    assert_eq!((got.len(), &got[0][20..22]), (1, &[3, 1][..]), "{:?}", bench.world.all_drops());
    assert_eq!(quote(&got[0])[12..], nobody[12..]);
}

#[test]
fn errors_pass_by_a_policy_for_the_protocol_of_what_they_quote() {
    let mut world = in_clear_by(Some(protocol::UDP));
    let query = datagram("10.99.0.7", SERVER, (5000, 53), b"query");
    world.send(INSIDE, &query);
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    world.send(OUTSIDE, &error("192.0.2.200", OUTER, 11, &out[0], 28));
    let expected = forwarded(&error("192.0.2.200", "10.99.0.7", 11, &forwarded(&query), 28));
    assert_eq!(world.take(INSIDE), [expected], "{:?}", world.all_drops());

    let (_, port, _) = ends(&out[0]);
    world.send(OUTSIDE, &answer(port));
    let received = world.take(INSIDE).remove(0);
    // From the host itself, and from a router behind it.
    for sender in ["10.99.0.7", "10.97.0.9"] {
        world.send(INSIDE, &error(sender, SERVER, 3, &received, 1500));
        let out = world.take(OUTSIDE);
        assert_eq!(out.len(), 1, "{sender} {:?}", world.all_drops());
        let (src, _, dst) = ends(&out[0]);
        assert_eq!((&src[..], &dst[..]), (OUTER, SERVER));
        assert_eq!(quote(&out[0])[12..], answer(port)[12..]);
    }
    assert_eq!(world.all_drops(), []);
}
