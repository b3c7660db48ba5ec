//! The instructions that divide a device's frames, for each hook.

use crate::port::{
    Mac,
    bpf::{If, Label, Map, Op, Program, Register, Width},
    link_layer::LinkLayer,
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

/// The part of a tag that names the VLAN (IEEE 802.1Q).
const VLAN_ID: [u8; 2] = [0x0f, 0xff];
/// The largest number of VLAN 0 tags that are skipped. Frames with more go to the gateway, which
/// sorts them out.
const TAGS: usize = 2;

/// The tables of a classifier.
pub(super) struct Tables {
    /// Addresses of the host.
    pub(super) local: Map<16>,
    /// Fragmented UDP datagrams to the gateway: source, destination, identification.
    pub(super) fragmented: Map<FRAGMENT_KEY>,
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
const PROTOCOL: Register = 8;
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
    p.jump_if(If::Equal, 1, half([0x81, 0x00]), tag);
    p.jump_if(If::Equal, 1, half([0x88, 0xa8]), tag);
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
    p.load(Width::Word, 1, STACK, ETHERNET);
    p.jump_if(If::NotEqual, 1, i32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]), kernels);
    p.load(Width::Half, 1, STACK, ETHERNET + 4);
    p.jump_if(If::NotEqual, 1, half([mac[4], mac[5]]), kernels);
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

/// Returns the program of a device with the address `mac`, which takes UDP to `udp_ports`.
pub(super) fn program(flavour: Flavour<'_>, tables: &Tables, mac: Mac, udp_ports: &[u16]) -> Program {
    let mut p = Program::default();
    let [ours, kernels, is_v6, look_up, foreign] = std::array::from_fn(|_| p.label());

    p.copy(CONTEXT, 1);
    if !matches!(flavour, Flavour::Xdp(_)) {
        // The kernel has already taken the first tag off.
        let no_vlan = p.label();
        p.load(Width::Word, 1, CONTEXT, SKB_VLAN_PRESENT);
        p.jump_if(If::Equal, 1, 0, no_vlan);
        p.load(Width::Word, 1, CONTEXT, SKB_VLAN_TCI);
        p.apply(Op::And, 1, i32::from(u16::from_be_bytes(VLAN_ID)));
        p.jump_if(If::NotEqual, 1, 0, kernels);
        p.place(no_vlan);
    }
    match flavour.link() {
        LinkLayer::Ethernet => ethernet(&mut p, flavour, mac, [ours, kernels]),
        LinkLayer::Ip => {
            p.load(Width::Word, 1, CONTEXT, SKB_PROTOCOL);
            p.set(POSITION, 0);
        }
    }
    p.jump_if(If::Equal, 1, half([0x86, 0xdd]), is_v6);
    p.jump_if(If::NotEqual, 1, half([0x08, 0x00]), kernels);

    // IPv4 (RFC 791 §3.1).
    fetch(&mut p, flavour, None, IP, 20, kernels);
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
    mapped(&mut p, KEY, 1);
    p.load(Width::Half, 1, STACK, IP + 6);
    p.apply(Op::And, 1, half([0x3f, 0xff]));
    set_fragment(&mut p, [0x1f, 0xff], look_up);
    p.load(Width::Half, 1, STACK, IP + 4);
    p.store(Width::Word, STACK, ID, 1);
    p.load(Width::Word, 1, STACK, IP + 12);
    mapped(&mut p, SOURCE, 1);
    p.jump(look_up);

    // IPv6 (RFC 8200 §3).
    p.place(is_v6);
    fetch(&mut p, flavour, None, IP, 40, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 6, kernels);
    p.load(Width::Byte, 1, STACK, KEY);
    p.jump_if(If::Equal, 1, 0xff, kernels);
    p.set(FRAGMENT, WHOLE);
    p.load(Width::Byte, PROTOCOL, STACK, IP + 6);
    p.apply(Op::Add, POSITION, 40);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_FRAGMENT, look_up);
    fetch(&mut p, flavour, None, ETHERNET, 8, look_up);
    p.apply(Op::Add, POSITION, 8);
    p.load(Width::Byte, PROTOCOL, STACK, ETHERNET);
    p.load(Width::Half, 1, STACK, ETHERNET + 2);
    p.apply(Op::And, 1, half([0xff, 0xf9]));
    set_fragment(&mut p, [0xff, 0xf8], look_up);
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
    divide_udp(&mut p, flavour, tables, udp_ports, [ours, kernels]);

    // A router must not forward link-local addresses (RFC 4291 §2.5.6): they are traffic of the
    // host itself.
    p.place(foreign);
    p.load(Width::Half, 1, STACK, KEY);
    p.apply(Op::And, 1, half([0xff, 0xc0]));
    p.jump_if(If::Equal, 1, half([0xfe, 0x80]), kernels);

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
    p
}
