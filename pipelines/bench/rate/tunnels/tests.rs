//! The far ends, with a device that has other code for the ciphers.

use super::*;
use crate::sim::{
    fixtures::{bare_tunnel, ip, sa, selector, suite},
    frames::{datagram, frame},
    terminal::Terminal,
};
use wayfarer_dataplane::pool::{HEADROOM, Pool};

fn tunnel(cipher: &str) -> Tunnel {
    let cipher = suite(cipher);
    Tunnel {
        local: ip("192.0.2.7"),
        remote: Remote::At(ip("203.0.113.1"), 0),
        selectors: vec![selector("10.98.0.0/24", "10.99.0.0/24"), selector("fd00:98::/64", "fd00:99::/64")],
        ..bare_tunnel("alice".to_owned(), sa(0x2001, cipher, 2), sa(0x1001, cipher, 1))
    }
}

/// Makes the device's end of a tunnel, with other code for the ciphers.
fn device(tunnel: &Tunnel) -> Terminal {
    let end = Terminal::of([&tunnel.inbound, &tunnel.outbound], ip("203.0.113.1"), Backend::Portable);
    Terminal { esn: tunnel.esn, ..end }
}

fn inner(n: u8) -> Vec<u8> {
    datagram("10.98.0.7", "10.99.0.2", (4000, 9), &[n; 33])
}

#[test]
fn device_opens_what_is_sealed() {
    let udp = Encapsulation::Udp(4500);
    let v6 = |cipher| Tunnel {
        local: ip("2001:db8::7"),
        remote: Remote::At(ip("2001:db8::1"), 4600),
        encap: udp,
        ..tunnel(cipher)
    };
    for tunnel in [
        tunnel("aes128gcm16"),
        Tunnel { encap: udp, esn: true, ..tunnel("aes256gcm16") },
        v6("chacha20poly1305"),
        tunnel("aes128-sha256"),
    ] {
        let device = device(&tunnel);
        let ends = FarEnds::new(std::slice::from_ref(&tunnel), false, 1500).unwrap();
        assert_eq!(ends.spaces[0].src, tunnel.selectors[0].local);
        let mut sealers = Sealers::new(ends.sealers);
        let mut pool = Pool::new(8, 2048).unwrap();
        let (mut burst, mut seals) = (Burst::new(), Vec::new());
        for n in 0..3 {
            let mut packet = pool.take().unwrap();
            let length = ethernet::HEADER + sealers.get(0).packet_len(inner(n).len());
            packet.fill(HEADROOM, &vec![0xee; length]).unwrap();
            let (seal, place) = sealers.begin(0, inner(n).len(), protocol::IPV4, packet.data_mut()).unwrap();
            packet.data_mut()[place].copy_from_slice(&inner(n));
            burst.push(packet);
            seals.push(seal);
        }
        sealers.seal(&mut burst, &seals);
        for (n, packet) in burst.iter().enumerate() {
            let packet = &packet.data()[ethernet::HEADER..];
            let (outer, seq, plain, next_header) = device.open(packet);
            assert_eq!((outer.src.into(), outer.total_len()), (tunnel.local, packet.len()));
            assert_eq!((seq, plain, next_header), (n as u64 + 1, inner(n as u8), protocol::IPV4));
            if tunnel.local.is_ipv6() {
                let datagram = outer.payload(packet);
                let mut summed = datagram.to_vec();
                udp::set_checksum(&mut summed, outer.src, outer.dst);
                assert_eq!(summed, datagram);
                assert_eq!(Udp::parse(datagram).unwrap().dst_port, 4600);
            }
        }
        assert_eq!((ends.numbers[0].sent(), ends.numbers[0].received()), (3, 0));
        pool.give_all(&mut burst);
    }
}

/// Seals one packet in a run of its own. Returns the IV.
fn iv_of_a_run(tunnel: &Tunnel) -> Vec<u8> {
    let mut sealers = Sealers::new(FarEnds::new(std::slice::from_ref(tunnel), false, 1500).unwrap().sealers);
    let mut pool = Pool::new(1, 2048).unwrap();
    let mut packet = pool.take().unwrap();
    let length = ethernet::HEADER + sealers.get(0).packet_len(inner(0).len());
    packet.fill(HEADROOM, &vec![0; length]).unwrap();
    let (seal, place) = sealers.begin(0, inner(0).len(), protocol::IPV4, packet.data_mut()).unwrap();
    packet.data_mut()[place.clone()].copy_from_slice(&inner(0));
    let mut burst = Burst::new();
    burst.push(packet);
    sealers.seal(&mut burst, &[seal]);
    // It is in front of the inner packet.
    let frame = burst.iter().next().unwrap().data();
    let iv = frame[place.start - suite("aes128gcm16").iv_len()..place.start].to_vec();
    pool.give_all(&mut burst);
    iv
}

#[test]
fn two_runs_with_the_same_keys_and_numbers_use_other_ivs() {
    let tunnel = tunnel("aes128gcm16");
    assert_ne!(iv_of_a_run(&tunnel), iv_of_a_run(&tunnel));
}

#[test]
fn what_the_device_seals_is_opened_and_nothing_else() {
    let esn = Tunnel { esn: true, ..tunnel("aes128gcm16") };
    let tunnel = Tunnel { inbound: Sa { sequence: (1 << 32) - 10, ..esn.inbound }, ..esn };
    let ends = FarEnds::new(std::slice::from_ref(&tunnel), true, 1500).unwrap();
    let mut device = device(&tunnel);
    let sealed =
        |device: &Terminal, n, seq| frame([2; 6], [4; 6], &device.seal_as(&inner(n), protocol::IPV4, seq));
    let mut frames = vec![sealed(&device, 1, (1 << 32) - 1)];
    // The upper half of this number is 1, which the packet does not show.
    frames.push(sealed(&device, 2, (1 << 32) + 5));
    frames.push(frame([2; 6], [4; 6], &inner(3)));
    let mut forged = sealed(&device, 4, (1 << 32) + 6);
    *forged.last_mut().unwrap() ^= 1;
    frames.push(forged);
    device.port = Some(4500);
    frames.push(sealed(&device, 5, (1 << 32) + 7));
    frames.push(sealed(&Terminal { spi_out: 0x2002, ..device }, 6, (1 << 32) + 8));
    let mut pool = Pool::new(8, 2048).unwrap();
    let (mut burst, mut opened) = (Burst::new(), Vec::new());
    // The number of the second frame is known only after the first one was opened.
    for frames in [&frames[..1], &frames[1..]] {
        for frame in frames {
            let mut packet = pool.take().unwrap();
            packet.fill(HEADROOM, frame).unwrap();
            burst.push(packet);
        }
        let forged = ends.openers.open(&mut burst, |packet| opened.push(packet.to_vec()));
        assert_eq!(forged, u64::from(frames.len() > 1));
        pool.give_all(&mut burst);
    }
    assert_eq!(opened, [inner(1), inner(2), inner(5)]);
    // Where the next run must begin: from 0 on, it would take the upper half for 0.
    assert_eq!(ends.numbers[0].received(), (1 << 32) + 7);
}

#[test]
fn tunnels_of_no_use_are_refused_and_numbers_end() {
    let refused = |tunnel: Tunnel, ipv6| FarEnds::new(&[tunnel], ipv6, 1500).err().map(|why| why.to_string());
    let anywhere = Tunnel { remote: Remote::Any, ..tunnel("aes128gcm16") };
    assert_eq!(refused(anywhere, false).unwrap(), "tunnel alice: needs the device's address as remote");
    let v4 = Tunnel { selectors: vec![selector("10.98.0.0/24", "10.99.0.0/24")], ..tunnel("aes128gcm16") };
    let why = refused(v4, true).unwrap();
    assert_eq!(why, "tunnel alice: has no selector of this address family for UDP");
    assert!(refused(Tunnel { mode: Mode::Transport, ..tunnel("aes128gcm16") }, false).is_some());
    let used = Sa { sequence: u64::from(u32::MAX), ..tunnel("aes128gcm16").outbound };
    let ends = FarEnds::new(&[Tunnel { outbound: used, ..tunnel("aes128gcm16") }], false, 1500).unwrap();
    let mut sealers = Sealers::new(ends.sealers);
    let mut frame = vec![0; ethernet::HEADER + sealers.get(0).packet_len(100)];
    assert!(sealers.begin(0, 100, protocol::IPV4, &mut frame).is_none());
    assert_eq!(sealers.exhausted(), Some(0));
}

#[test]
fn packets_of_the_longest_length_fit_the_mtu_and_longer_ones_do_not() {
    let narrow = Tunnel { mtu: Some(1400), ..tunnel("aes128-sha256") };
    let ends = FarEnds::new(&[tunnel("aes128gcm16"), narrow], false, 1500).unwrap();
    let lengths = |inner| ends.sealers.iter().map(|sealer| sealer.packet_len(inner)).collect::<Vec<_>>();
    assert!(lengths(ends.mtu)[0] <= 1500 && lengths(ends.mtu)[1] <= 1400, "{:?}", lengths(ends.mtu));
    assert!(lengths(ends.mtu + 1)[1] > 1400);
    assert_eq!(ends.ciphers, ["aes128gcm16", "aes128-sha256"]);
}
