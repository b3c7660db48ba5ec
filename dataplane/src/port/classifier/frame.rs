//! What the parts of the classifier's program share: registers, the stack, and loads from the frame.

use crate::port::{
    bpf::{If, Label, Map, Op, Program, Register, Width},
    link_layer::LinkLayer,
};

// linux/bpf.h: helpers of programs.
pub(super) const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
pub(super) const SKB_LOAD_BYTES: i32 = 26;
pub(super) const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
pub(super) const XDP_LOAD_BYTES: i32 = 189;

/// The start of offsets for `SKB_LOAD_BYTES_RELATIVE`: the IP header.
pub(super) const HEADER_START_NET: i32 = 1;

/// The tables of a classifier.
pub(super) struct Tables {
    /// Addresses of the host.
    pub(super) local: Map<16>,
    /// Whose the fragmented packets are that the first fragment has been seen of: source,
    /// destination, identification, protocol.
    pub(super) fragmented: Map<FRAGMENT_KEY>,
    /// The gateway's VLANs. Not used if there are none.
    pub(super) vlans: Map<4>,
    /// What NATs have of ICMP's identifiers: address and identifier. Not used if there is no NAT.
    pub(super) pings: Map<PING_KEY>,
}

/// The hook, and what the program is given there.
#[derive(Clone, Copy)]
pub(super) enum Flavour<'a> {
    Xdp(&'a Map<4>),
    Tcx(LinkLayer),
    SocketFilter(LinkLayer),
    /// A socket filter beside XDP, for what comes by this queue and is [`Receivers::either`]'s.
    Overtaking(u32),
}

/// The ends of a program, by who gets the frame.
#[derive(Clone, Copy)]
pub(super) struct Receivers {
    pub(super) ours: Label,
    pub(super) kernels: Label,
    /// Both get it, because only a frame that has not come yet shows whose it is.
    pub(super) either: Label,
}

impl Flavour<'_> {
    /// Returns what the frames begin with.
    pub(super) fn link(self) -> LinkLayer {
        match self {
            Self::Xdp(_) | Self::Overtaking(_) => LinkLayer::Ethernet,
            Self::Tcx(link) | Self::SocketFilter(link) => link,
        }
    }
}

// Registers that calls do not change.
pub(super) const CONTEXT: Register = 6;
/// What the frame is of a fragmented packet.
pub(super) const FRAGMENT: Register = 7;
/// Before the IP header is read: the EtherType behind all tags.
pub(super) const ETHERTYPE: Register = 7;
pub(super) const PROTOCOL: Register = 8;
/// Before the IP header is read: the key of the frame's VLAN, 0 if it is in none.
pub(super) const VLAN_KEY: Register = 8;
/// The offset of the next header in the frame.
pub(super) const POSITION: Register = 9;
pub(super) const STACK: Register = 10;

// Values of `FRAGMENT`.
pub(super) const WHOLE: i32 = 0;
pub(super) const FIRST: i32 = 1;
pub(super) const LATER: i32 = 2;

// The stack: the IP header that an ICMP error quotes; IP header, then Ethernet header or IPv6's
// fragment header. `KEY` is an IPv6 destination, or an IPv4 one mapped to the same form, aligned to 8
// as the verifier requires. Of a fragment, the source in the same form is before it, and the
// identification and the protocol behind it.
pub(super) const ETHERNET: i16 = -16;
pub(super) const IP: i16 = -56;
pub(super) const QUOTE: i16 = IP - 24;
/// While tags are read: a tag's value and the EtherType behind it, its flag, and the VLAN's key.
pub(super) const TAG: i16 = IP;
pub(super) const FLAG: i16 = IP + 4;
pub(super) const IN_VLAN: i16 = IP + 8;
pub(super) const SOURCE: i16 = IP + 8;
pub(super) const KEY: i16 = IP + 24;
pub(super) const ID: i16 = IP + 40;
/// Length of the key of a fragmented packet in bytes.
pub(super) const FRAGMENT_KEY: usize = (ID + 8 - SOURCE) as usize;

/// Length of the key of an address and identifier of ICMP in bytes: four, two, and two of zero.
pub(super) const PING_KEY: usize = 8;

/// Returns a constant as a load from memory would read it.
pub(super) fn half(network_order: [u8; 2]) -> i32 {
    i32::from(u16::from_ne_bytes(network_order))
}

/// Copies `len` bytes at `offset` of the frame (or at register `POSITION`) to the stack, or jumps
/// to `short`. Without Ethernet the IP header is the start, whatever a tunnel has left before it.
pub(super) fn fetch(
    p: &mut Program,
    flavour: Flavour<'_>,
    offset: Option<i32>,
    to: i16,
    len: i32,
    short: Label,
) {
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

// Values in the table of fragmented packets.
const GATEWAYS: i32 = 1;
const KERNELS: i32 = 2;

/// Calls a helper with the table of fragmented packets, the key of this one, and arguments 3 and 4.
fn call_with_fragment(p: &mut Program, fragmented: &Map<FRAGMENT_KEY>, helper: i32) {
    p.store(Width::Word, STACK, ID + 4, PROTOCOL);
    p.set_map(1, fragmented);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(SOURCE));
    p.call(helper);
}

/// Jumps to `to`, for the gateway. The later fragments of a packet follow its first.
pub(super) fn take(p: &mut Program, flavour: Flavour<'_>, tables: &Tables, to: Label) {
    decide(p, flavour, tables, GATEWAYS, to);
}

/// Jumps to `to`, which is not for the gateway unless another part of the program decides otherwise.
/// The later fragments of a packet follow its first.
pub(super) fn leave(p: &mut Program, flavour: Flavour<'_>, tables: &Tables, to: Label) {
    decide(p, flavour, tables, KERNELS, to);
}

fn decide(p: &mut Program, flavour: Flavour<'_>, tables: &Tables, owner: i32, to: Label) {
    if let Flavour::Overtaking(_) = flavour {
        // XDP has remembered it, and maybe a newer packet since.
        return p.jump(to);
    }
    p.jump_if(If::Equal, FRAGMENT, WHOLE, to);
    p.store_constant(Width::Word, STACK, IP, owner);
    p.copy(3, STACK);
    p.apply(Op::Add, 3, i32::from(IP));
    p.set(4, 0);
    call_with_fragment(p, &tables.fragmented, MAP_UPDATE);
    p.jump(to);
}

/// Sends a later fragment after the first one of its packet, or to both if that has not come yet.
pub(super) fn follow(p: &mut Program, flavour: Flavour<'_>, tables: &Tables, to: Receivers) {
    call_with_fragment(p, &tables.fragmented, MAP_LOOKUP);
    p.jump_if_null(0, to.either);
    p.load(Width::Word, 1, 0, 0);
    p.jump_if(If::Equal, 1, KERNELS, to.kernels);
    p.jump(match flavour {
        // The first one has come since XDP let this one pass.
        Flavour::Overtaking(_) => to.either,
        _ => to.ours,
    });
}
