//! Checks that several tables of the file share.

use super::{
    error::{ConfigError, Rule},
    file::{self, Key, List, Scalar},
    model::Port,
    source::Source,
    value,
};
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
    ops::{Range, RangeInclusive},
};
use wayfarer_dataplane::{sa::PortRange, table::Prefix, wire::ip};
use wayfarer_mobility::path_mtu::PathProbing;

/// Most pairs of prefixes in one tunnel or policy.
const MOST_PAIRS: usize = 4096;

/// Values that must be unique, each with its place in the file.
pub(super) struct Unique<T>(HashMap<T, Range<usize>>);

impl<T: Eq + Hash> Unique<T> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(super) fn add(&mut self, source: &Source<'_>, item: T, place: Range<usize>) -> Result<(), Rule> {
        match self.0.entry(item) {
            Entry::Occupied(before) => Err(Rule::Duplicate(source.line(before.get()))),
            Entry::Vacant(slot) => {
                slot.insert(place);
                Ok(())
            }
        }
    }
}

/// Returns the port whose subnet contains `station`: the longest subnet of all ports, or one of the
/// named port. A link-local address exists on every segment, so its port must be named.
pub(super) fn port_towards(station: IpAddr, named: Option<usize>, ports: &[Port]) -> Option<usize> {
    if matches!(station, IpAddr::V6(v6) if v6.is_unicast_link_local()) && named.is_some() {
        return named;
    }
    let candidates = ports.iter().enumerate().filter(|(index, _)| named.is_none_or(|n| n == *index));
    let subnets =
        candidates.flat_map(|(index, port)| port.addresses.iter().map(move |(_, net)| (net, index)));
    let holding = subnets.filter(|(net, _)| net.contains(station));
    holding.max_by_key(|(net, _)| net.length()).map(|(_, index)| index)
}

/// Returns every number of a list once. All must be within `range`.
pub(super) fn numbers<T>(list: &[i64], range: RangeInclusive<T>) -> Result<Vec<T>, Rule>
where
    T: TryFrom<i64> + PartialOrd + Copy + Into<u64>,
{
    let mut seen = HashSet::new();
    let list = list.iter().filter(|&n| seen.insert(*n));
    list.map(|&n| value::integer(n, range.clone())).collect()
}

/// Returns the cores that workers run on, of `0..count`.
pub(super) fn cores(list: &[i64], count: usize) -> Result<Vec<usize>, Rule> {
    match list {
        [] => Err(Rule::Empty),
        list => {
            let cores = numbers(list, 0..=count.saturating_sub(1) as u32)?;
            Ok(cores.into_iter().map(|core| core as usize).collect())
        }
    }
}

/// Returns an MTU. It must be within the limits of the address family (RFC 791 §3.1, RFC 8200 §5).
pub(super) fn mtu(size: &Scalar, v6: bool) -> Result<usize, Rule> {
    value::size_within(size, if v6 { ip::V6_MIN_MTU } else { 576 }..=65472)
}

/// Returns when the MTU of a path is looked for: in UDP by default, which is used on paths of every kind.
pub(super) fn path_probing(raw: Option<file::PathProbing>) -> PathProbing {
    match raw {
        Some(file::PathProbing::Off) => PathProbing::Off,
        Some(file::PathProbing::Udp) | None => PathProbing::Udp,
        Some(file::PathProbing::Always) => PathProbing::Always,
    }
}

/// Returns all prefixes of a list.
pub(super) fn prefixes(list: &List) -> Result<Vec<Prefix>, Rule> {
    match &list.0[..] {
        [] => Err(Rule::Empty),
        list => list.iter().map(|text| value::prefix(text)).collect(),
    }
}

/// Returns every pair of prefixes of one family.
pub(super) fn pairs(
    keys: &'static str,
    local: &[Prefix],
    remote: &[Prefix],
) -> Result<Vec<(Prefix, Prefix)>, Rule> {
    let one_family = |(a, b): &(Prefix, Prefix)| a.is_ipv4() == b.is_ipv4();
    let all = local.iter().flat_map(|&local| remote.iter().map(move |&remote| (local, remote)));
    let pairs: Vec<_> = all.filter(one_family).take(MOST_PAIRS + 1).collect();
    match pairs.len() {
        0 => Err(Rule::NoPair(keys)),
        n if n > MOST_PAIRS => Err(Rule::TooMany(MOST_PAIRS)),
        _ => Ok(pairs),
    }
}

/// Returns the ports, which the protocol must support.
pub(super) fn ports_of(
    source: &Source<'_>,
    key: &str,
    raw: &Key<Scalar>,
    protocol: Option<u8>,
) -> Result<PortRange, ConfigError> {
    let has_ports =
        protocol.is_none_or(|p| matches!(p, ip::protocol::TCP | ip::protocol::UDP | ip::protocol::SCTP));
    let ports = |ports: &Scalar| if has_ports { value::ports(ports) } else { Err(Rule::PortlessProtocol) };
    Ok(source.optional(key, raw, ports)?.unwrap_or(PortRange::ANY))
}
