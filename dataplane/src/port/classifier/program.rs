//! The instructions that divide a device's frames, for each hook.

use crate::{
    port::{
        Mac,
        bpf::{If, Label, Map, Op, Program, Register, Width},
        link_layer::LinkLayer,
    },
    wire::vlan::Vlan,
};

// linux/bpf.h: helpers and return values of programs.
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const SKB_LOAD_BYTES: i32 = 26;
const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
const REDIRECT_MAP: i32 = 51;
const XDP_LOAD_BYTES: i32 = 189;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

/// The start of offsets for `SKB_LOAD_BYTES_RELATIVE`: the IP header.
const HEADER_START_NET: i32 = 1;

// Offsets in the contexts of the programs, `struct xdp_md` and `struct __sk_buff`.
const XDP_RX_QUEUE: i16 = 16;
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

/// The tables of a classifier.
pub(super) struct Tables {
    /// Addresses of the host.
    pub(super) local: Map<16>,
    /// Fragmented UDP datagrams to the gateway: source, destination, identification.
    pub(super) fragmented: Map<FRAGMENT_KEY>,
    /// The gateway's VLANs. Not used if there are none.
    pub(super) vlans: Map<4>,
}

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

/// The hook, and what the program is given there.
#[derive(Clone, Copy)]
pub(super) enum Flavour<'a> {
    Xdp(&'a Map<4>),
    Tcx(LinkLayer),
    SocketFilter(LinkLayer),
}

impl Flavour<'_> {
    /// Returns what the frames begin with.
    fn link(self) -> LinkLayer {
        match self {
            Self::Xdp(_) => LinkLayer::Ethernet,
            Self::Tcx(link) | Self::SocketFilter(link) => link,
        }
    }
}

// Registers that calls do not change.
const CONTEXT: Register = 6;
/// What the frame is of a fragmented packet.
const FRAGMENT: Register = 7;
/// Before the IP header is read: the EtherType behind all tags.
const ETHERTYPE: Register = 7;
const PROTOCOL: Register = 8;
/// Before the IP header is read: the key of the frame's VLAN, 0 if it is in none.
const VLAN_KEY: Register = 8;
/// The offset of the next header in the frame.
const POSITION: Register = 9;
const STACK: Register = 10;

// Values of `FRAGMENT`.
const WHOLE: i32 = 0;
const FIRST: i32 = 1;
const LATER: i32 = 2;

// The stack: IP header, then Ethernet header or IPv6's fragment header. `KEY` is an IPv6 destination,
// or an IPv4 one mapped to the same form, aligned to 8 as the verifier requires. Of a fragment, the
// source in the same form is before it, and the identification behind it.
const ETHERNET: i16 = -16;
const IP: i16 = -56;
/// While tags are read: a tag's value and the EtherType behind it, its flag, and the VLAN's key.
const TAG: i16 = IP;
const FLAG: i16 = IP + 4;
const IN_VLAN: i16 = IP + 8;
const SOURCE: i16 = IP + 8;
const KEY: i16 = IP + 24;
const ID: i16 = IP + 40;
/// Length of the key of a fragmented datagram in bytes.
pub(super) const FRAGMENT_KEY: usize = (ID + 4 - SOURCE) as usize;

/// Returns a constant as a load from memory would read it.
fn half(network_order: [u8; 2]) -> i32 {
    i32::from(u16::from_ne_bytes(network_order))
}

/// Copies `len` bytes at `offset` of the frame (or at register `POSITION`) to the stack, or jumps
/// to `short`. Without Ethernet the IP header is the start, whatever a tunnel has left before it.
fn fetch(p: &mut Program, flavour: Flavour<'_>, offset: Option<i32>, to: i16, len: i32, short: Label) {
    p.copy(1, CONTEXT);
    match offset {
        Some(offset) => p.set(2, offset),
        None => p.copy(2, POSITION),
    }
    p.copy(3, STACK);
    p.apply(Op::Add, 3, i32::from(to));
    p.set(4, len);
    match flavour {
        Flavour::Xdp(_) => p.call(XDP_LOAD_BYTES),
        _ if flavour.link() == LinkLayer::Ethernet => p.call(SKB_LOAD_BYTES),
        _ => {
            p.set(5, HEADER_START_NET);
            p.call(SKB_LOAD_BYTES_RELATIVE);
        }
    }
    p.jump_if(If::NotEqual, 0, 0, short);
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

/// Calls a helper with the table of fragmented datagrams, the key of this one, and arguments 3 and 4.
fn call_with_fragment(p: &mut Program, fragmented: &Map<FRAGMENT_KEY>, helper: i32) {
    p.set_map(1, fragmented);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(SOURCE));
    p.call(helper);
}

/// Jumps to the receiver of a UDP datagram to an address of the host, or of a fragment of one.
fn divide_udp(
    p: &mut Program,
    flavour: Flavour<'_>,
    tables: &Tables,
    udp_ports: &[u16],
    [ours, kernels]: [Label; 2],
) {
    if udp_ports.is_empty() {
        // The verifier refuses instructions that are never reached.
        return p.jump(kernels);
    }
    let [our_port, later] = std::array::from_fn(|_| p.label());
    p.jump_if(If::Equal, FRAGMENT, LATER, later);
    fetch(p, flavour, None, IP, 4, kernels);
    p.load(Width::Half, 1, STACK, IP + 2);
    for port in udp_ports {
        p.jump_if(If::Equal, 1, half(port.to_be_bytes()), our_port);
    }
    p.jump_if(If::Equal, FRAGMENT, WHOLE, kernels);
    // An earlier datagram may have had the same identification.
    call_with_fragment(p, &tables.fragmented, MAP_DELETE);
    p.jump(kernels);

    p.place(our_port);
    p.jump_if(If::Equal, FRAGMENT, WHOLE, ours);
    p.store_constant(Width::Word, STACK, IP, 1);
    p.copy(3, STACK);
    p.apply(Op::Add, 3, i32::from(IP));
    p.set(4, 0);
    call_with_fragment(p, &tables.fragmented, MAP_UPDATE);
    p.jump(ours);

    p.place(later);
    call_with_fragment(p, &tables.fragmented, MAP_LOOKUP);
    p.jump_if_null(0, kernels);
    p.jump(ours);
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

/// Returns the program for a device with the address `mac`, whose ports serve `scope`.
pub(super) fn program(
    flavour: Flavour<'_>,
    tables: &Tables,
    mac: Mac,
    udp_ports: &[u16],
    scope: Scope,
) -> Program {
    let mut p = Program::default();
    let labels @ [ours, kernels] = std::array::from_fn(|_| p.label());

    p.copy(CONTEXT, 1);
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
        divide_packets(&mut p, flavour, tables, udp_ports, labels);
    }
    end(&mut p, flavour, [ours, kernels]);
    p
}

/// Jumps to the receiver of an IP packet, whose EtherType is in register 1, or goes on if it is the
/// gateway's.
fn divide_packets(
    p: &mut Program,
    flavour: Flavour<'_>,
    tables: &Tables,
    udp_ports: &[u16],
    [ours, kernels]: [Label; 2],
) {
    let [is_v6, look_up, foreign] = std::array::from_fn(|_| p.label());
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
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_UDP, kernels);
    divide_udp(p, flavour, tables, udp_ports, [ours, kernels]);

    // A router must not forward link-local addresses (RFC 4291 §2.5.6): they are traffic of the
    // host itself.
    p.place(foreign);
    p.load(Width::Half, 1, STACK, KEY);
    p.apply(Op::And, 1, half([0xff, 0xc0]));
    p.jump_if(If::Equal, 1, half([0xfe, 0x80]), kernels);
}

/// Ends the program.
fn end(p: &mut Program, flavour: Flavour<'_>, [ours, kernels]: [Label; 2]) {
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
    }
    p.exit();
    p.place(kernels);
    p.set(
        0,
        match flavour {
            Flavour::Xdp(_) => XDP_PASS,
            Flavour::Tcx(_) => TCX_NEXT,
            Flavour::SocketFilter(_) => 0,
        },
    );
    p.exit();
}
