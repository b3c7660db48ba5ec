//! Where the numbered terminals of benchmarks and the demonstration are.

use std::net::{IpAddr, Ipv4Addr};
use wayfarer_dataplane::table::Prefix;

/// Most terminals.
pub const MOST: u32 = 1 << 20;

/// Places of each terminal.
const PLACES: u32 = 4;
/// 100.64.0.0.
const OUTER: u32 = 0x6440_0000;
/// 10.128.0.0.
const INNER: u32 = 0x0a80_0000;

/// Returns where terminal `index` is after so many moves: it has four places that are its own.
pub fn outer(index: u32, moves: u32) -> IpAddr {
    Ipv4Addr::from_bits(OUTER + moves % PLACES * MOST + index % MOST).into()
}

/// Returns the terminal to which a place belongs.
pub fn at_outer(address: IpAddr) -> Option<u32> {
    Some(offset(address, OUTER, PLACES * MOST)? % MOST)
}

/// Returns the prefix of all places.
pub fn all_outer() -> Prefix {
    let first = outer(0, 0);
    Prefix::new(first, 10).unwrap_or(Prefix::host(first))
}

/// Returns the address of terminal `index` in its tunnel.
pub fn inner(index: u32) -> IpAddr {
    Ipv4Addr::from_bits(INNER + index).into()
}

/// Returns the terminal with this address in its tunnel.
pub fn at_inner(address: IpAddr) -> Option<u32> {
    offset(address, INNER, MOST)
}

fn offset(address: IpAddr, first: u32, count: u32) -> Option<u32> {
    let IpAddr::V4(address) = address else { return None };
    address.to_bits().checked_sub(first).filter(|at| *at < count)
}
