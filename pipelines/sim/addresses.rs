//! Addresses of the numbered terminals of benchmarks and the demonstration.

use super::{
    disturbance::{Attachment, Disturbance},
    networks::Networks,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};
use wayfarer_dataplane::table::Prefix;

/// The maximum number of terminals.
pub const MOST: u32 = 1 << 20;

/// Outer addresses of each terminal, which its moves cycle through.
pub const PER_TERMINAL: u32 = 4;
/// 100.64.0.0.
const OUTER: u32 = 0x6440_0000;
/// 10.128.0.0.
const INNER: u32 = 0x0a80_0000;

/// Returns the outer address of terminal `index` after a number of moves.
pub fn outer(index: u32, moves: u32) -> IpAddr {
    Ipv4Addr::from_bits(OUTER + moves % PER_TERMINAL * MOST + index % MOST).into()
}

/// Returns the terminal with this outer address.
pub fn at_outer(address: IpAddr) -> Option<u32> {
    Some(offset(address, OUTER, PER_TERMINAL * MOST)? % MOST)
}

/// Makes networks without NATs, and attaches the terminals of `indices` at their first outer
/// addresses. In the networks, they count from 0.
pub fn networks(indices: Range<u32>) -> Networks {
    let mut networks = Networks::default();
    indices.for_each(|index| networks.attach(Attachment { address: outer(index, 0), nat: None }));
    networks
}

/// Returns the move of a terminal of such networks to its next outer address.
///
/// # Panics
/// If the terminal is elsewhere.
pub fn next_move(networks: &Networks, terminal: usize) -> Disturbance {
    let now = offset(networks.attachment(terminal).address, OUTER, PER_TERMINAL * MOST);
    let now = now.expect("all addresses are outer addresses");
    let address = outer(now % MOST, now / MOST + 1);
    Disturbance::Move { terminal, to: Attachment { address, nat: None } }
}

/// Returns the prefix of all outer addresses.
pub fn all_outer() -> Prefix {
    let first = outer(0, 0);
    Prefix::new(first, 10).unwrap_or(Prefix::host(first))
}

/// Returns the inner address of terminal `index`.
pub fn inner(index: u32) -> IpAddr {
    Ipv4Addr::from_bits(INNER + index).into()
}

/// Returns the terminal with this inner address.
pub fn at_inner(address: IpAddr) -> Option<u32> {
    offset(address, INNER, MOST)
}

fn offset(address: IpAddr, first: u32, count: u32) -> Option<u32> {
    let IpAddr::V4(address) = address else { return None };
    address.to_bits().checked_sub(first).filter(|at| *at < count)
}
