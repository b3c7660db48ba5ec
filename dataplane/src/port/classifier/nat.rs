//! The part of the classifier's program that finds the packets of NATs.

use super::frame::{
    FRAGMENT, Flavour, IP, KEY, LATER, MAP_LOOKUP, PING_KEY, POSITION, PROTOCOL, QUOTE, Receivers, STACK,
    Tables, WHOLE, fetch, follow, half, leave, take,
};
use crate::port::bpf::{If, Label, Op, Program, Width};
use std::{net::Ipv4Addr, ops::RangeInclusive};

/// What belongs to a NAT.
#[derive(Clone, Debug)]
pub struct NatRule {
    /// The address outside, which is one of the host too.
    pub address: Ipv4Addr,
    /// Ports of TCP and UDP there. Of ICMP it has the identifiers that it uses at the moment, because
    /// the host chooses its own ones from all.
    pub ports: RangeInclusive<u16>,
}

/// Returns the key of an address and identifier of ICMP in their table.
pub(super) fn ping_key(address: Ipv4Addr, id: u16) -> [u8; PING_KEY] {
    let ([a, b, c, d], [high, low]) = (address.octets(), id.to_be_bytes());
    [a, b, c, d, high, low, 0, 0]
}

/// Types of ICMP replies: to echo and timestamp (RFC 792).
const ICMP_REPLIES: [i32; 2] = [0, 14];
/// Types of ICMP errors: unreachable, source quench, time exceeded, parameter problem (RFC 792).
const ICMP_ERRORS: [i32; 4] = [3, 4, 11, 12];

/// Jumps to the receiver of a packet to an address of the host, or of a fragment of one, that is the
/// gateway's only if it is for a NAT.
pub(super) fn divide(
    p: &mut Program,
    flavour: Flavour<'_>,
    tables: &Tables,
    nats: &[NatRule],
    to: Receivers,
) {
    let kernels = to.kernels;
    if nats.is_empty() {
        return p.jump(kernels);
    }
    let [address, ports, icmp, later, nats_own, reply, error, others] = std::array::from_fn(|_| p.label());
    // An IPv6 address may end as that of a NAT does.
    p.load(Width::Word, 1, STACK, KEY);
    p.jump_if(If::NotEqual, 1, 0, kernels);
    p.load(Width::Word, 1, STACK, KEY + 4);
    p.jump_if(If::NotEqual, 1, 0, kernels);
    p.load(Width::Word, 1, STACK, KEY + 8);
    p.jump_if(If::NotEqual, 1, i32::from_ne_bytes([0, 0, 0xff, 0xff]), kernels);
    p.load(Width::Word, 1, STACK, KEY + 12);
    for nat in nats {
        p.jump_if(If::Equal, 1, i32::from_ne_bytes(nat.address.octets()), address);
    }
    p.jump(kernels);

    p.place(address);
    p.jump_if(If::Equal, PROTOCOL, libc::IPPROTO_ICMP, icmp);
    p.jump_if(If::Equal, PROTOCOL, libc::IPPROTO_TCP, ports);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_UDP, kernels);

    p.place(ports);
    p.jump_if(If::Equal, FRAGMENT, LATER, later);
    fetch(p, flavour, None, IP, 4, kernels);
    jump_if_of_nat(p, nats, KEY + 12, IP + 2, nats_own);
    p.place(others);
    leave(p, flavour, tables, kernels);

    p.place(nats_own);
    take(p, flavour, tables, to.ours);

    p.place(icmp);
    p.jump_if(If::Equal, FRAGMENT, LATER, later);
    fetch(p, flavour, None, IP, 8, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    for kind in ICMP_REPLIES {
        p.jump_if(If::Equal, 1, kind, reply);
    }
    for kind in ICMP_ERRORS {
        p.jump_if(If::Equal, 1, kind, error);
    }
    p.jump(others);

    p.place(reply);
    jump_if_ping_of_nat(p, tables, KEY + 12, nats_own);
    p.jump(others);

    p.place(error);
    p.jump_if(If::NotEqual, FRAGMENT, WHOLE, others);
    divide_quote(p, flavour, tables, nats, to);

    p.place(later);
    follow(p, flavour, tables, to);
}

/// Jumps to the receiver of the ICMP error at register `POSITION`, by the packet that it quotes.
fn divide_quote(p: &mut Program, flavour: Flavour<'_>, tables: &Tables, nats: &[NatRule], to: Receivers) {
    let Receivers { ours, kernels, .. } = to;
    let [ports, long_enough] = std::array::from_fn(|_| p.label());
    p.apply(Op::Add, POSITION, 8);
    fetch(p, flavour, None, QUOTE, 20, kernels);
    p.load(Width::Byte, 1, STACK, QUOTE);
    p.copy(2, 1);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 4, kernels);
    p.apply(Op::And, 2, 15);
    p.apply(Op::ShiftLeft, 2, 2);
    p.jump_if(If::AtLeast, 2, 20, long_enough);
    p.jump(kernels);
    p.place(long_enough);
    p.add(POSITION, 2);
    p.load(Width::Half, 1, STACK, QUOTE + 6);
    p.apply(Op::And, 1, half([0x1f, 0xff]));
    p.jump_if(If::NotEqual, 1, 0, kernels);
    fetch(p, flavour, None, IP, 8, kernels);
    p.load(Width::Byte, 1, STACK, QUOTE + 9);
    p.jump_if(If::Equal, 1, libc::IPPROTO_TCP, ports);
    p.jump_if(If::Equal, 1, libc::IPPROTO_UDP, ports);
    p.jump_if(If::NotEqual, 1, libc::IPPROTO_ICMP, kernels);
    jump_if_ping_of_nat(p, tables, QUOTE + 12, ours);
    p.jump(kernels);
    p.place(ports);
    jump_if_of_nat(p, nats, QUOTE + 12, IP, ours);
    p.jump(kernels);
}

/// Jumps to `to` if a NAT has the IPv4 address at this place of the stack and the identifier in the
/// header of ICMP.
fn jump_if_ping_of_nat(p: &mut Program, tables: &Tables, address: i16, to: Label) {
    let none = p.label();
    p.load(Width::Word, 1, STACK, address);
    p.store(Width::Word, STACK, QUOTE, 1);
    p.load(Width::Half, 1, STACK, IP + 4);
    p.store(Width::Half, STACK, QUOTE + 4, 1);
    p.store_constant(Width::Half, STACK, QUOTE + 6, 0);
    p.set_map(1, &tables.pings);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(QUOTE));
    p.call(MAP_LOOKUP);
    p.jump_if_null(0, none);
    p.jump(to);
    p.place(none);
}

/// Jumps to `to` if the IPv4 address and the port at these places of the stack are those of a NAT.
fn jump_if_of_nat(p: &mut Program, nats: &[NatRule], address: i16, port: i16, to: Label) {
    p.load(Width::Word, 3, STACK, address);
    p.load(Width::Byte, 1, STACK, port);
    p.apply(Op::ShiftLeft, 1, 8);
    p.load(Width::Byte, 2, STACK, port + 1);
    p.add(1, 2);
    for NatRule { address, ports } in nats {
        let [above_start, next] = std::array::from_fn(|_| p.label());
        p.jump_if(If::NotEqual, 3, i32::from_ne_bytes(address.octets()), next);
        p.jump_if(If::AtLeast, 1, i32::from(*ports.start()), above_start);
        p.jump(next);
        p.place(above_start);
        p.jump_if(If::AtLeast, 1, i32::from(*ports.end()) + 1, next);
        p.jump(to);
        p.place(next);
    }
}
