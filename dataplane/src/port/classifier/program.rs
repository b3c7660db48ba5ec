//! The instructions that divide a device's frames, for each hook.

use super::{
    frame::{
        CONTEXT, ETHERNET, ETHERTYPE, FIRST, FLAG, FRAGMENT, Flavour, ID, IN_VLAN, IP, KEY, LATER,
        MAP_LOOKUP, POSITION, PROTOCOL, Receivers, SOURCE, STACK, TAG, Tables, VLAN_KEY, WHOLE, fetch,
        follow, half, leave, take,
    },
    nat::{self, NatRule},
};
use crate::{
    port::{
        Mac,
        bpf::{If, Label, Map, Op, Program, Register, Width},
        link_layer::LinkLayer,
    },
    wire::{dhcp, vlan::Vlan},
};

// linux/bpf.h: a helper, and return values of programs.
const REDIRECT_MAP: i32 = 51;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

// Offsets in the contexts of the programs, `struct xdp_md` and `struct __sk_buff`.
const XDP_RX_QUEUE: i16 = 16;
const SKB_QUEUE: i16 = 12;
const SKB_PROTOCOL: i16 = 16;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;
const SKB_VLAN_PROTOCOL: i16 = 28;

/// The part of a tag that names the VLAN (IEEE 802.1Q).
const VLAN_ID: [u8; 2] = [0x0f, 0xff];
/// The largest number of tags that are read. Frames with more go to the gateway, which sorts them
/// out.
const TAGS: usize = 2;
/// The same if ports are in VLANs, whose tags come in pairs.
const TAGS_WITH_VLANS: usize = 4;
/// The EtherTypes of tags (IEEE 802.1Q and 802.1ad).
const VLAN: [u8; 2] = [0x81, 0x00];
const OUTER_VLAN: [u8; 2] = [0x88, 0xa8];
/// The bit in a VLAN's key beside the number of an 802.1ad tag, and the position of the outer of two
/// tags.
const OUTER_FLAG: i32 = 0x1000;
const OUTER_SHIFT: i32 = 16;

/// The frames that the gateway's ports serve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those in no VLAN.
    Untagged,
    /// Those in the gateway's VLANs.
    Vlans,
    /// Both.
    Both,
}

/// Returns the key of a VLAN in its table.
pub(super) fn vlan_key(vlan: Vlan) -> [u8; 4] {
    let outer = vlan.outer().map_or(0, |id| (u32::from(id) | OUTER_FLAG as u32) << OUTER_SHIFT);
    (outer | u32::from(vlan.inner())).to_ne_bytes()
}

/// Writes the IPv4 address in register `from` to the stack, mapped to IPv6.
fn mapped(p: &mut Program, to: i16, from: Register) {
    p.store_constant(Width::Double, STACK, to, 0);
    p.store_constant(Width::Word, STACK, to + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    p.store(Width::Word, STACK, to + 12, from);
}

/// Jumps to `tag` if the EtherType in register 1 is that of a tag (IEEE 802.1Q or 802.1ad).
fn jump_if_tag(p: &mut Program, tag: Label) {
    p.jump_if(If::Equal, 1, half(VLAN), tag);
    p.jump_if(If::Equal, 1, half(OUTER_VLAN), tag);
}

/// Jumps to `kernels` unless the frame is addressed to `mac`.
fn check_mac(p: &mut Program, mac: Mac, kernels: Label) {
    p.load(Width::Word, 1, STACK, ETHERNET);
    p.jump_if(If::NotEqual, 1, i32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]), kernels);
    p.load(Width::Half, 1, STACK, ETHERNET + 4);
    p.jump_if(If::NotEqual, 1, half([mac[4], mac[5]]), kernels);
}

/// Jumps to `kernels` if the tag that the kernel has taken off names a VLAN.
fn refuse_taken_tag(p: &mut Program, kernels: Label) {
    let no_vlan = p.label();
    p.load(Width::Word, 1, CONTEXT, SKB_VLAN_PRESENT);
    p.jump_if(If::Equal, 1, 0, no_vlan);
    p.load(Width::Word, 1, CONTEXT, SKB_VLAN_TCI);
    p.apply(Op::And, 1, i32::from(u16::from_be_bytes(VLAN_ID)));
    p.jump_if(If::NotEqual, 1, 0, kernels);
    p.place(no_vlan);
}

/// Begins the key of the frame's VLAN with the tag that the kernel has taken off.
fn read_taken_tag(p: &mut Program) {
    let done = p.label();
    p.load(Width::Word, 1, CONTEXT, SKB_VLAN_PRESENT);
    p.jump_if(If::Equal, 1, 0, done);
    p.load(Width::Word, VLAN_KEY, CONTEXT, SKB_VLAN_TCI);
    p.apply(Op::And, VLAN_KEY, i32::from(u16::from_be_bytes(VLAN_ID)));
    p.jump_if(If::Equal, VLAN_KEY, 0, done);
    p.load(Width::Word, 1, CONTEXT, SKB_VLAN_PROTOCOL);
    p.jump_if(If::NotEqual, 1, half(OUTER_VLAN), done);
    p.apply(Op::Add, VLAN_KEY, OUTER_FLAG);
    p.place(done);
}

/// Reads the tags in the frame into the key of its VLAN, and jumps to `kernels` if they name more than
/// two. Register 1 is the EtherType before and afterwards.
fn read_tags(p: &mut Program, flavour: Flavour<'_>, kernels: Label) {
    for _ in 0..TAGS_WITH_VLANS {
        let [outer, inner, tag, skip, no_tag] = std::array::from_fn(|_| p.label());
        p.jump_if(If::Equal, 1, half(VLAN), inner);
        p.jump_if(If::Equal, 1, half(OUTER_VLAN), outer);
        p.jump(no_tag);
        p.place(outer);
        p.store_constant(Width::Word, STACK, FLAG, OUTER_FLAG);
        p.jump(tag);
        p.place(inner);
        p.store_constant(Width::Word, STACK, FLAG, 0);
        p.place(tag);
        fetch(p, flavour, None, TAG, 4, kernels);
        p.load(Width::Half, 1, STACK, TAG);
        p.half_from_network(1);
        p.apply(Op::And, 1, i32::from(u16::from_be_bytes(VLAN_ID)));
        p.jump_if(If::Equal, 1, 0, skip);
        p.jump_if(If::AtLeast, VLAN_KEY, 1 << OUTER_SHIFT, kernels);
        p.apply(Op::ShiftLeft, VLAN_KEY, OUTER_SHIFT);
        p.add(VLAN_KEY, 1);
        p.load(Width::Word, 1, STACK, FLAG);
        p.add(VLAN_KEY, 1);
        p.place(skip);
        p.apply(Op::Add, POSITION, 4);
        p.load(Width::Half, 1, STACK, TAG + 2);
        p.place(no_tag);
    }
}

/// Jumps to the receiver of a frame that is in a VLAN. In the gateway's VLANs, the kernel gets only
/// what is for other stations.
fn divide_vlans(p: &mut Program, vlans: &Map<4>, mac: Mac, [ours, kernels, untagged]: [Label; 3]) {
    p.jump_if(If::Equal, VLAN_KEY, 0, untagged);
    p.store(Width::Word, STACK, IN_VLAN, VLAN_KEY);
    p.set_map(1, vlans);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(IN_VLAN));
    p.call(MAP_LOOKUP);
    p.jump_if_null(0, kernels);
    p.load(Width::Byte, 1, STACK, ETHERNET);
    p.apply(Op::And, 1, 1);
    p.jump_if(If::NotEqual, 1, 0, ours);
    check_mac(p, mac, kernels);
    p.jump(ours);
}

/// Sets `FRAGMENT` by the field in register 1, whose bits of the offset are `offset`, and jumps to
/// `done` unless the packet is a fragment. Any other bit means that there are later fragments.
fn set_fragment(p: &mut Program, offset: [u8; 2], done: Label) {
    let (later, end) = (p.label(), p.label());
    p.set(FRAGMENT, WHOLE);
    p.jump_if(If::Equal, 1, 0, done);
    p.set(FRAGMENT, FIRST);
    p.apply(Op::And, 1, half(offset));
    p.jump_if(If::NotEqual, 1, 0, later);
    p.jump(end);
    p.place(later);
    p.set(FRAGMENT, LATER);
    p.place(end);
}

/// Jumps to the receiver of a UDP datagram to an address of the host, or of a fragment of one.
fn divide_udp(
    p: &mut Program,
    flavour: Flavour<'_>,
    tables: &Tables,
    udp_ports: &[u16],
    others: Label,
    to: Receivers,
) {
    if udp_ports.is_empty() {
        // The verifier refuses instructions that are never reached.
        return p.jump(others);
    }
    let [our_port, later] = std::array::from_fn(|_| p.label());
    p.jump_if(If::Equal, FRAGMENT, LATER, later);
    fetch(p, flavour, None, IP, 4, to.kernels);
    p.load(Width::Half, 1, STACK, IP + 2);
    for port in udp_ports {
        p.jump_if(If::Equal, 1, half(port.to_be_bytes()), our_port);
    }
    leave(p, flavour, tables, others);

    p.place(our_port);
    take(p, flavour, tables, to.ours);

    p.place(later);
    follow(p, flavour, tables, to);
}

/// Jumps to `kernels` if a packet that goes elsewhere is a DHCP server's answer to the host on this
/// device, which has no address yet (RFC 2131 §4.1): it shows the device's MAC address.
fn leave_dhcp(p: &mut Program, flavour: Flavour<'_>, mac: Mac, kernels: Label) {
    let end = p.label();
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_UDP, end);
    p.jump_if(If::NotEqual, FRAGMENT, WHOLE, end);
    fetch(p, flavour, None, IP, 4, end);
    p.load(Width::Word, 1, STACK, IP);
    p.jump_if(If::NotEqual, 1, i32::from_ne_bytes(dhcp::PORTS), end);
    p.apply(Op::Add, POSITION, dhcp::CLIENT_MAC as i32);
    fetch(p, flavour, None, ETHERNET, 6, end);
    check_mac(p, mac, end);
    p.jump(kernels);
    p.place(end);
}

/// Puts the EtherType into register 1 and the offset of what follows it into `POSITION`, or jumps to
/// the receiver of a frame that is not for the device's own MAC address, or in a VLAN.
fn ethernet(p: &mut Program, flavour: Flavour<'_>, mac: Mac, [ours, kernels]: [Label; 2]) {
    fetch(p, flavour, Some(0), ETHERNET, 14, kernels);
    check_mac(p, mac, kernels);
    p.load(Width::Half, 1, STACK, ETHERNET + 12);
    p.set(POSITION, 14);
    for _ in 0..TAGS {
        let (tag, no_tag) = (p.label(), p.label());
        jump_if_tag(p, tag);
        p.jump(no_tag);
        p.place(tag);
        fetch(p, flavour, None, ETHERNET, 4, kernels);
        p.load(Width::Half, 1, STACK, ETHERNET);
        p.apply(Op::And, 1, half(VLAN_ID));
        p.jump_if(If::NotEqual, 1, 0, kernels);
        p.apply(Op::Add, POSITION, 4);
        p.load(Width::Half, 1, STACK, ETHERNET + 2);
        p.place(no_tag);
    }
    jump_if_tag(p, ours);
}

/// Reads the headers before the IP header, as [`ethernet`] does, and divides the frames that are in a
/// VLAN. With `has_untagged`, goes on with those that are in none; otherwise they are the kernel's.
fn ethernet_with_vlans(
    p: &mut Program,
    flavour: Flavour<'_>,
    vlans: &Map<4>,
    mac: Mac,
    has_untagged: bool,
    [ours, kernels]: [Label; 2],
) {
    p.set(VLAN_KEY, 0);
    if !matches!(flavour, Flavour::Xdp(_)) {
        read_taken_tag(p);
    }
    fetch(p, flavour, Some(0), ETHERNET, 14, kernels);
    p.load(Width::Half, 1, STACK, ETHERNET + 12);
    p.set(POSITION, 14);
    read_tags(p, flavour, kernels);
    if !has_untagged {
        return divide_vlans(p, vlans, mac, [ours, kernels, kernels]);
    }
    let untagged = p.label();
    p.copy(ETHERTYPE, 1);
    divide_vlans(p, vlans, mac, [ours, kernels, untagged]);
    p.place(untagged);
    check_mac(p, mac, kernels);
    p.copy(1, ETHERTYPE);
    jump_if_tag(p, ours);
}

/// Returns the program for a device with the address `mac`, whose ports serve `scope`. Of packets to the
/// host, those to the UDP ports and those for the NATs are the gateway's.
pub(super) fn program(
    flavour: Flavour<'_>,
    tables: &Tables,
    mac: Mac,
    (udp_ports, nats): (&[u16], &[NatRule]),
    scope: Scope,
) -> Program {
    let mut p = Program::default();
    let labels @ [ours, kernels] = std::array::from_fn(|_| p.label());
    let either = match flavour {
        // XDP cannot copy a frame, so a socket beside it does.
        Flavour::Xdp(_) | Flavour::Tcx(_) => kernels,
        Flavour::SocketFilter(_) => ours,
        Flavour::Overtaking(_) => p.label(),
    };
    let to = Receivers { ours, kernels, either };

    p.copy(CONTEXT, 1);
    if let Flavour::Overtaking(queue) = flavour {
        leave_other_queues(&mut p, queue, kernels);
    }
    if scope == Scope::Untagged && !matches!(flavour, Flavour::Xdp(_)) {
        refuse_taken_tag(&mut p, kernels);
    }
    match (flavour.link(), scope) {
        (LinkLayer::Ethernet, Scope::Untagged) => ethernet(&mut p, flavour, mac, labels),
        (LinkLayer::Ethernet, _) => {
            ethernet_with_vlans(&mut p, flavour, &tables.vlans, mac, scope == Scope::Both, labels);
        }
        (LinkLayer::Ip, _) => {
            p.load(Width::Word, 1, CONTEXT, SKB_PROTOCOL);
            p.set(POSITION, 0);
        }
    }
    // The verifier refuses instructions that are never reached.
    if scope != Scope::Vlans {
        divide_packets(&mut p, flavour, tables, mac, (udp_ports, nats), to);
    }
    end(&mut p, flavour, to);
    p
}

/// Jumps to the receiver of an IP packet, whose EtherType is in register 1, or goes on if it is the
/// gateway's.
fn divide_packets(
    p: &mut Program,
    flavour: Flavour<'_>,
    tables: &Tables,
    mac: Mac,
    (udp_ports, nats): (&[u16], &[NatRule]),
    to: Receivers,
) {
    let Receivers { ours, kernels, .. } = to;
    let [is_v6, look_up, foreign, others] = std::array::from_fn(|_| p.label());
    p.jump_if(If::Equal, 1, half([0x86, 0xdd]), is_v6);
    p.jump_if(If::NotEqual, 1, half([0x08, 0x00]), kernels);

    // IPv4 (RFC 791 §3.1).
    fetch(p, flavour, None, IP, 20, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    p.copy(2, 1);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 4, kernels);
    p.apply(Op::And, 2, 15);
    p.apply(Op::ShiftLeft, 2, 2);
    let long_enough = p.label();
    p.jump_if(If::AtLeast, 2, 20, long_enough);
    p.jump(kernels);
    p.place(long_enough);
    p.add(POSITION, 2);
    p.load(Width::Byte, 1, STACK, IP + 16);
    p.jump_if(If::AtLeast, 1, 224, kernels);
    p.load(Width::Byte, PROTOCOL, STACK, IP + 9);
    p.load(Width::Word, 1, STACK, IP + 16);
    mapped(p, KEY, 1);
    p.load(Width::Half, 1, STACK, IP + 6);
    p.apply(Op::And, 1, half([0x3f, 0xff]));
    set_fragment(p, [0x1f, 0xff], look_up);
    p.load(Width::Half, 1, STACK, IP + 4);
    p.store(Width::Word, STACK, ID, 1);
    p.load(Width::Word, 1, STACK, IP + 12);
    mapped(p, SOURCE, 1);
    p.jump(look_up);

    // IPv6 (RFC 8200 §3).
    p.place(is_v6);
    fetch(p, flavour, None, IP, 40, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 6, kernels);
    p.load(Width::Byte, 1, STACK, KEY);
    p.jump_if(If::Equal, 1, 0xff, kernels);
    p.set(FRAGMENT, WHOLE);
    p.load(Width::Byte, PROTOCOL, STACK, IP + 6);
    p.apply(Op::Add, POSITION, 40);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_FRAGMENT, look_up);
    fetch(p, flavour, None, ETHERNET, 8, look_up);
    p.apply(Op::Add, POSITION, 8);
    p.load(Width::Byte, PROTOCOL, STACK, ETHERNET);
    p.load(Width::Half, 1, STACK, ETHERNET + 2);
    p.apply(Op::And, 1, half([0xff, 0xf9]));
    set_fragment(p, [0xff, 0xf8], look_up);
    p.load(Width::Word, 1, STACK, ETHERNET + 4);
    p.store(Width::Word, STACK, ID, 1);

    p.place(look_up);
    p.set_map(1, &tables.local);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(KEY));
    p.call(MAP_LOOKUP);
    p.jump_if_null(0, foreign);
    p.jump_if(If::Equal, PROTOCOL, libc::IPPROTO_ESP, ours);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_UDP, others);
    divide_udp(p, flavour, tables, udp_ports, others, to);

    p.place(others);
    nat::divide(p, flavour, tables, nats, to);

    p.place(foreign);
    if flavour.link() == LinkLayer::Ethernet {
        leave_dhcp(p, flavour, mac, kernels);
    }
    // A router must not forward link-local addresses (RFC 4291 §2.5.6): they are traffic of the
    // host itself.
    p.load(Width::Half, 1, STACK, KEY);
    p.apply(Op::And, 1, half([0xff, 0xc0]));
    p.jump_if(If::Equal, 1, half([0xfe, 0x80]), kernels);
}

/// Ends the program.
fn end(p: &mut Program, flavour: Flavour<'_>, Receivers { ours, kernels, either }: Receivers) {
    if matches!(flavour, Flavour::Overtaking(_)) {
        p.jump(ours);
        p.place(either);
        p.set(0, i32::MAX);
        p.exit();
    }
    p.place(ours);
    match flavour {
        Flavour::Xdp(sockets) => {
            p.load(Width::Word, 2, CONTEXT, XDP_RX_QUEUE);
            p.set_map(1, sockets);
            p.set(3, XDP_DROP);
            p.call(REDIRECT_MAP);
        }
        Flavour::Tcx(_) => p.set(0, TCX_DROP),
        Flavour::SocketFilter(_) => p.set(0, i32::MAX),
        // XDP has it.
        Flavour::Overtaking(_) => p.set(0, 0),
    }
    p.exit();
    p.place(kernels);
    p.set(
        0,
        match flavour {
            Flavour::Xdp(_) => XDP_PASS,
            Flavour::Tcx(_) => TCX_NEXT,
            Flavour::SocketFilter(_) | Flavour::Overtaking(_) => 0,
        },
    );
    p.exit();
}

/// Jumps to `kernels` unless the frame came in by this queue. The kernel's numbers of queues begin with
/// 1; 0 means that it does not know.
fn leave_other_queues(p: &mut Program, queue: u32, kernels: Label) {
    p.load(Width::Word, 1, CONTEXT, SKB_QUEUE);
    match queue {
        0 => p.jump_if(If::AtLeast, 1, 2, kernels),
        _ => p.jump_if(If::NotEqual, 1, queue as i32 + 1, kernels),
    }
}
