//! The division of packets in fragments, of which only the first shows its ports.

use crate::{
    classifier::{
        LOCAL4, LOCAL6, Listener, OTHER4, Open,
        Receiver::{self, Gateway, Kernel},
        af_packet, af_xdp,
    },
    frames::{ESP, FRAGMENT, TCP, UDP, ethernet, ip, ports},
    world::World,
};
use wayfarer_dataplane::port::Mac;

const REST: &[u8] = b"a later part";
const PRIORITY: [u8; 4] = [0x81, 0, 0xa0, 0];
/// Fragments to both: who gets the first one is not known yet.
const BOTH: &[Receiver] = &[Gateway, Kernel];
const OURS: &[Receiver] = &[Gateway];
const KERNELS: &[Receiver] = &[Kernel];

/// A place in a packet: the first fragment, one between, the last one.
#[derive(Clone, Copy)]
enum Place {
    First,
    Between,
    Last,
}
use Place::{Between, First, Last};

/// Returns a fragment of the packet with the identification `id`.
fn fragment([to, from]: [Mac; 2], address: &str, protocol: u8, id: u8, place: Place, part: &[u8]) -> Vec<u8> {
    let address: std::net::IpAddr = address.parse().unwrap();
    if address.is_ipv6() {
        let field = match place {
            First => 1,
            Between => 9,
            Last => 16,
        };
        let part = [&[protocol, 0, 0, field, 0, 0, 0, id][..], part].concat();
        let (ethertype, packet) = ip(address, FRAGMENT, &part);
        return ethernet(to, from, ethertype, &packet);
    }
    let (ethertype, mut packet) = ip(address, protocol, part);
    packet[5] = id;
    packet[6..8].copy_from_slice(match place {
        First => &[0x20, 0],
        Between => &[0x20, 1],
        Last => &[0, 2],
    });
    ethernet(to, from, ethertype, &packet)
}

/// Checks the receivers of fragments, in the order in which they come.
fn whole_table(open: Open) {
    let world = World::new(1, 1);
    let mut listener = Listener::open(&world, open);
    let macs = [listener.mac, listener.peer.mac];
    let (nat_t, dns, esp) = (ports(4500, b"x"), ports(53, b"x"), [0, 0, 0x10, 1, 0, 0, 0, 1, 9, 9, 9, 9]);
    for address in [LOCAL4, LOCAL6] {
        let table = [
            ("in order, ours", UDP, 1, First, &nat_t[..], OURS),
            ("in order, ours", UDP, 1, Between, REST, OURS),
            ("in order, ours", UDP, 1, Last, REST, OURS),
            ("in order, the kernel's", UDP, 2, First, &dns, KERNELS),
            ("in order, the kernel's", UDP, 2, Between, REST, KERNELS),
            ("in order, the kernel's", UDP, 2, Last, REST, KERNELS),
            ("overtaking, ours", UDP, 3, Last, REST, BOTH),
            ("overtaking, ours", UDP, 3, First, &nat_t, OURS),
            ("overtaking, ours", UDP, 3, Between, REST, OURS),
            ("overtaking, the kernel's", UDP, 4, Between, REST, BOTH),
            ("overtaking, the kernel's", UDP, 4, Last, REST, BOTH),
            ("overtaking, the kernel's", UDP, 4, First, &dns, KERNELS),
            ("overtaking, the kernel's", UDP, 4, Between, REST, KERNELS),
            ("identification again, ours", UDP, 2, First, &nat_t, OURS),
            ("identification again, ours", UDP, 2, Last, REST, OURS),
            ("identification again, the kernel's", UDP, 1, First, &dns, KERNELS),
            ("identification again, the kernel's", UDP, 1, Last, REST, KERNELS),
            ("ESP", ESP, 5, Last, REST, OURS),
            ("ESP", ESP, 5, First, &esp, OURS),
        ];
        for (name, protocol, id, place, part, receivers) in table {
            let frame = fragment(macs, address, protocol, id, place, part);
            assert_eq!(listener.receivers_of(frame, receivers.len()), receivers, "{name}, {address}");
        }
    }
    for (protocol, address, receivers) in
        [(UDP, OTHER4, BOTH), (TCP, OTHER4, KERNELS), (TCP, LOCAL6, KERNELS)]
    {
        let frame = fragment(macs, address, protocol, 9, Last, REST);
        assert_eq!(listener.receivers_of(frame, receivers.len()), receivers, "{protocol} to {address}");
    }
    let mut tagged = fragment(macs, LOCAL4, UDP, 10, Last, REST);
    tagged.splice(12..12, PRIORITY);
    assert_eq!(listener.receivers_of(tagged, 2), BOTH, "with a priority");
    let only = |udp: &[u8]| {
        let mut frame = fragment(macs, LOCAL6, UDP, 11, First, udp);
        frame[14 + 40 + 3] = 0;
        frame
    };
    assert_eq!(listener.receiver_of(only(&nat_t)), Gateway, "the only fragment");
    assert_eq!(listener.receiver_of(only(&dns)), Kernel, "the only fragment");
    // After a flood of others, packets before it and behind it still reach whom they are for.
    listener.receiver_of(fragment(macs, LOCAL4, UDP, 12, First, &dns));
    for id in 0..FLOOD {
        let mut frame = fragment(macs, OTHER4, UDP, 0, First, &dns);
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        // The device loses none if somebody waits from time to time.
        match id % 64 {
            0 => assert_eq!(listener.receiver_of(frame), Kernel),
            _ => listener.peer.send(&frame),
        }
    }
    let older = fragment(macs, LOCAL4, UDP, 12, Last, REST);
    assert!(listener.receivers_of(older, 1).contains(&Kernel), "before a flood");
    for (place, part) in [(First, &nat_t[..]), (Between, REST), (Last, REST)] {
        let newer = fragment(macs, LOCAL4, UDP, 13, place, part);
        assert_eq!(listener.receivers_of(newer, 1), OURS, "after a flood");
    }
}

/// More packets than are remembered.
const FLOOD: u16 = 12_000;

#[test]
fn xdp_in_the_driver() {
    whole_table(|device, rules, pool| af_xdp(device, rules, pool, true));
}

#[test]
fn xdp_in_the_kernel() {
    whole_table(|device, rules, pool| af_xdp(device, rules, pool, false));
}

#[test]
fn tcx_beside_af_packet() {
    whole_table(af_packet);
}
