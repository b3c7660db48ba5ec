//! Traffic between the host itself and the far sides of tunnels: what never passes in clear, and what
//! a bypass policy leaves alone.
//!
//! Policy decides by the longest prefix that the operator wrote for the far side, and at the same one
//! by tunnels before policies ([`policy`](crate::gateway::policy)). So pairs of addresses are looked
//! up in steps: tunnels that go before the first bypass policy, then the policies of that prefix, then
//! the next tunnels, and so on. The kernel looks up one hash table for each [`Shape`] of a step, so
//! that adding or removing a pair costs the same however many there are, and pairs may overlap.

use super::nftables::{Expression, Part};
use crate::{
    config::model::{Config, PolicyAction, Port},
    slow_path::ike::prefixes::{pool_ranks, prefixes},
};
use std::{collections::BTreeSet, net::IpAddr};
use wayfarer_dataplane::{
    sa::{PortRange, Selector},
    table::Prefix,
    wire::ip::protocol,
};
use wayfarer_mobility::ike::wire::TrafficSelector;

/// The protocols whose headers begin with a source and a destination port.
const WITH_PORTS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];
// Types of `nft`, for people who list a set.
const IPV4_ADDRESS: u32 = 7;
const IPV6_ADDRESS: u32 = 8;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;

/// Traffic between addresses of this side and of the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    remote: Prefix,
    local: Prefix,
    protocol: Option<u8>,
    local_port: Option<u16>,
    remote_port: Option<u16>,
}

/// The fields of a packet that a pair compares, and how many bits of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    is_ipv4: bool,
    remote: u8,
    local: u8,
    has_protocol: bool,
    has_local_port: bool,
    has_remote_port: bool,
}

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl Pair {
    /// Returns the pairs that together cover `selector`, or a little more if it has a range of ports.
    fn covering(selector: &Selector) -> impl Iterator<Item = Self> + use<> {
        let Selector { local, remote, protocol, local_ports, remote_ports, .. } = *selector;
        let has_ports = [local_ports, remote_ports].iter().any(|ports| *ports != PortRange::ANY);
        let protocols = match protocol {
            None if has_ports => WITH_PORTS.map(Some).to_vec(),
            // A packet without ports is within no range of them.
            Some(other) if has_ports && !WITH_PORTS.contains(&other) => vec![],
            other => vec![other],
        };
        let port = |ports: PortRange| (ports.first == ports.last).then_some(ports.first);
        let (local_port, remote_port) = (port(local_ports), port(remote_ports));
        // A tunnel for everything would cut the host off from all others.
        let is_everything = local.length() == 0 && remote.length() == 0;
        let protocols = protocols.into_iter().filter(move |_| !is_everything);
        protocols.map(move |protocol| Self { remote, local, protocol, local_port, remote_port })
    }

    /// Returns all traffic between two prefixes.
    fn between(local: Prefix, remote: Prefix) -> impl Iterator<Item = Self> {
        Self::covering(&Selector::configured(local, remote))
    }

    /// Returns the pair that covers this one and all else with the far side's addresses, or with this
    /// side's if the far side is everywhere.
    pub(super) fn widened(self) -> Self {
        let any = everywhere(self.remote.is_ipv4());
        let local = if self.remote.length() == 0 { self.local } else { any.unwrap_or(self.local) };
        Self { local, protocol: None, local_port: None, remote_port: None, ..self }
    }

    /// Returns what the pair compares.
    pub(super) fn shape(&self) -> Shape {
        Shape {
            is_ipv4: self.remote.is_ipv4(),
            remote: self.remote.length(),
            local: self.local.length(),
            has_protocol: self.protocol.is_some(),
            has_local_port: self.local_port.is_some(),
            has_remote_port: self.remote_port.is_some(),
        }
    }

    /// Returns the values of the fields of its shape, as the kernel loads them: each begins at a
    /// multiple of four bytes.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        for prefix in [self.remote, self.local].iter().filter(|prefix| prefix.length() > 0) {
            match prefix.address() {
                IpAddr::V4(address) => key.extend(address.octets()),
                IpAddr::V6(address) => key.extend(address.octets()),
            }
        }
        key.extend(self.protocol.into_iter().flat_map(|protocol| [protocol, 0, 0, 0]));
        let ports = [self.local_port, self.remote_port].into_iter().flatten();
        key.extend(ports.flat_map(|port| [port.to_be_bytes(), [0, 0]].concat()));
        key
    }
}

impl Shape {
    /// Returns the name of the hash table of this shape in a step.
    pub(super) fn set(&self, step: usize) -> String {
        let family = if self.is_ipv4 { 4 } else { 6 };
        let mut name = format!("s{step}-ip{family}-far{}-near{}", self.remote, self.local);
        let fields = [self.has_protocol, self.has_local_port, self.has_remote_port];
        for (_, field) in fields.iter().zip(["-proto", "-nearport", "-farport"]).filter(|(has, _)| **has) {
            name += field;
        }
        name
    }

    /// Returns the type of its keys as `nft` numbers them, and their length in bytes.
    pub(super) fn key_type(&self) -> (u32, u32) {
        let address = if self.is_ipv4 { (IPV4_ADDRESS, 4) } else { (IPV6_ADDRESS, 16) };
        let fields = [
            (self.remote > 0, address),
            (self.local > 0, address),
            (self.has_protocol, (PROTOCOL, 4)),
            (self.has_local_port, (PORT, 4)),
            (self.has_remote_port, (PORT, 4)),
        ];
        let present = fields.iter().filter(|(has, _)| *has);
        present.fold((0, 0), |(kinds, length), (_, (kind, bytes))| (kinds << 6 | kind, length + bytes))
    }

    /// Returns the family, and the mask of the far and of this side's addresses.
    pub(super) fn masks(&self) -> (bool, [Vec<u8>; 2]) {
        (self.is_ipv4, [self.remote, self.local].map(|length| mask(self.is_ipv4, length)))
    }

    /// Returns the expressions that load the key of a packet in this `direction`. `masks` are those of
    /// [`Shape::masks`].
    pub(super) fn load<'a>(&self, direction: Direction, masks: &'a [Vec<u8>; 2]) -> Vec<Expression<'a>> {
        // Offsets of addresses in a header (RFC 791 §3.1, RFC 8200 §3).
        let (source, destination, length) = if self.is_ipv4 { (12, 16, 4) } else { (8, 24, 16) };
        let (addresses, ports) = match direction {
            Direction::Out => ([destination, source], [0, 2]),
            Direction::In => ([source, destination], [2, 0]),
        };
        let (mut all, mut word) = (Vec::new(), 0);
        for ((bits, at), mask) in [self.remote, self.local].iter().zip(addresses).zip(masks) {
            if *bits == 0 {
                continue;
            }
            all.push(Expression::Key(word, Part::Header(at, length)));
            if u32::from(*bits) < length * 8 {
                all.push(Expression::KeyMask(word, mask));
            }
            word += length / 4;
        }
        let parts = [
            (self.has_protocol, Part::Protocol),
            (self.has_local_port, Part::Transport(ports[0], 2)),
            (self.has_remote_port, Part::Transport(ports[1], 2)),
        ];
        for (word, (_, part)) in (word..).zip(parts.into_iter().filter(|(has, _)| *has)) {
            all.push(Expression::Key(word, part));
        }
        all
    }
}

fn mask(is_ipv4: bool, length: u8) -> Vec<u8> {
    let ones = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0).to_be_bytes();
    ones[..if is_ipv4 { 4 } else { 16 }].to_vec()
}

/// Returns the prefix of all addresses of a family.
fn everywhere(is_ipv4: bool) -> Option<Prefix> {
    Prefix::new(if is_ipv4 { [0; 4].into() } else { [0; 16].into() }, 0)
}

/// The order of steps: the ranks of bypass policies and of the ports' own segments, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(Vec<u8>);

impl Steps {
    /// Returns the steps of `config`. They are the same for each reload of it.
    pub(super) fn new(config: &Config) -> Self {
        let policies = bypasses(config).map(|selector| selector.rank.remote);
        let segments =
            config.ports.iter().flat_map(|port| &port.addresses).map(|(_, segment)| segment.length());
        let mut ranks: Vec<_> = policies.chain(segments).collect::<BTreeSet<_>>().into_iter().collect();
        ranks.reverse();
        Self(ranks)
    }

    /// Returns the number of steps.
    pub(super) fn count(&self) -> usize {
        2 * self.0.len() + 1
    }

    /// Returns the step of a tunnel's pairs of this rank.
    pub(super) fn of_tunnel(&self, rank: u8) -> usize {
        2 * self.0.iter().filter(|bypass| **bypass > rank).count()
    }

    /// Returns the step of a bypass policy of this rank.
    fn of_bypass(&self, rank: u8) -> usize {
        self.of_tunnel(rank) + 1
    }

    /// Returns whether a step drops what it covers; otherwise it lets that pass.
    pub(super) fn drops(step: usize) -> bool {
        step.is_multiple_of(2)
    }
}

fn bypasses(config: &Config) -> impl Iterator<Item = &Selector> {
    config
        .policies
        .iter()
        .filter(|policy| policy.action == PolicyAction::Bypass)
        .map(|policy| &policy.selector)
}

/// A pair in its step.
pub(super) type Placed = (usize, Pair);

/// Returns the pairs of a tunnel's selectors.
pub(super) fn of_tunnel<'a>(
    steps: &'a Steps,
    selectors: impl IntoIterator<Item = &'a Selector>,
) -> impl Iterator<Item = Placed> {
    selectors.into_iter().flat_map(|selector| {
        let step = steps.of_tunnel(selector.rank.remote);
        Pair::covering(selector).map(move |pair| (step, pair))
    })
}

/// Returns the pairs that `config` decides about by itself: tunnels by hand, bypass policies, pools, and
/// what connections name both sides of. Traffic that policy discards is not the host's tunnels'.
pub(super) fn of_config(config: &Config, steps: &Steps) -> BTreeSet<Placed> {
    let mut all: BTreeSet<Placed> =
        of_tunnel(steps, config.tunnels.iter().flat_map(|tunnel| &tunnel.selectors)).collect();
    // A range of ports would let more pass than the policy does.
    let is_exact = |selector: &&Selector| {
        let ranges = [selector.local_ports, selector.remote_ports];
        ranges.iter().all(|ports| *ports == PortRange::ANY || ports.first == ports.last)
    };
    for selector in bypasses(config).filter(is_exact) {
        let step = steps.of_bypass(selector.rank.remote);
        all.extend(Pair::covering(selector).map(|pair| (step, pair)));
    }
    let mut protect = |local: Prefix, remote: Prefix, rank: u8| {
        let step = steps.of_tunnel(rank);
        all.extend(Pair::between(local, remote).map(|pair| (step, pair)));
    };
    for pool in &config.ike.pools {
        let ranks = pool_ranks(pool.first, pool.last);
        for remote in prefixes(pool.first, pool.last) {
            let rank = ranks.iter().find(|rank| rank.contains(remote.address())).unwrap_or(&remote).length();
            everywhere(remote.is_ipv4()).into_iter().for_each(|local| protect(local, remote, rank));
        }
    }
    let all_of = |selectors: &[TrafficSelector]| -> Vec<Prefix> {
        selectors.iter().flat_map(|selector| prefixes(selector.start, selector.end)).collect()
    };
    for connection in &config.ike.connections {
        for child in &connection.protocol.children {
            let locals = all_of(&child.local);
            for remote in all_of(&child.remote) {
                let any = everywhere(remote.is_ipv4()).filter(|_| remote.length() > 0);
                let locals = match any.filter(|_| connection.protocol.is_dialled()) {
                    // While nobody is connected, the gateway drops all packets there.
                    Some(any) => vec![any],
                    None => locals.iter().filter(|p| p.is_ipv4() == remote.is_ipv4()).copied().collect(),
                };
                locals.into_iter().for_each(|local| protect(local, remote, remote.length()));
            }
        }
    }
    all
}

/// Returns the pairs of the host's own segments on `port`. A tunnel's far side may be wider than they
/// are, and then does not mean the stations there.
pub(super) fn of_segments(port: &Port, steps: &Steps) -> BTreeSet<Placed> {
    let pairs = port.addresses.iter().flat_map(|(_, segment)| {
        let step = steps.of_bypass(segment.length());
        let any = everywhere(segment.is_ipv4());
        any.into_iter().flat_map(|any| Pair::between(any, *segment)).map(move |pair| (step, pair))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_has_the_length_of_its_shape_and_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for (local, remote) in [
            ("10.0.0.0/8", "10.98.0.7/32"),
            ("0.0.0.0/0", "10.98.0.0/16"),
            ("10.98.0.7/32", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8:1::/48"),
        ] {
            for protocol in [None, Some(protocol::TCP), Some(protocol::ICMP)] {
                for ports in [PortRange::ANY, PortRange { first: 22, last: 22 }] {
                    let selector = Selector {
                        protocol,
                        local_ports: ports,
                        ..Selector::configured(prefix(local), prefix(remote))
                    };
                    for pair in Pair::covering(&selector) {
                        let shape = pair.shape();
                        assert_eq!(pair.key().len(), shape.key_type().1 as usize, "{selector:?}");
                        names.insert(shape.set(0));
                    }
                }
            }
        }
        // Without a protocol, a port stands for three protocols of the same shape.
        assert_eq!(names.len(), 4 * 3);
    }

    #[test]
    fn selectors_are_covered_and_everything_is_left_alone() {
        let selector = Selector::configured(prefix("10.99.0.0/24"), prefix("10.98.0.0/24"));
        let range = PortRange { first: 5000, last: 5010 };
        let cover = |selector: Selector| Pair::covering(&selector).collect::<Vec<_>>();
        let tcp = Selector { protocol: Some(protocol::TCP), ..selector.clone() };
        let [whole] = cover(tcp.clone())[..] else { panic!("one pair") };
        assert_eq!(cover(Selector { local_ports: range, ..tcp }), [whole]);
        let icmp = Selector { protocol: Some(protocol::ICMP), local_ports: range, ..selector.clone() };
        assert_eq!(cover(icmp), []);
        assert_eq!(cover(Selector { remote_ports: range, ..selector.clone() }).len(), 3);
        assert_eq!(cover(Selector::configured(prefix("0.0.0.0/0"), prefix("0.0.0.0/0"))), []);
        assert_eq!(whole.widened().shape().local, 0);
        let near = Selector::configured(prefix("10.98.0.7/32"), prefix("0.0.0.0/0"));
        let [pair] = cover(near)[..] else { panic!("one pair") };
        assert_eq!(pair.widened(), pair);
    }

    #[test]
    fn tunnels_go_before_policies_of_the_same_rank() {
        let steps = Steps(vec![32, 24]);
        assert_eq!(steps.count(), 5);
        assert_eq!([32, 31, 24, 23, 0].map(|rank| steps.of_tunnel(rank)), [0, 2, 2, 4, 4]);
        assert_eq!([32, 24].map(|rank| steps.of_bypass(rank)), [1, 3]);
        assert!([0, 2, 4].into_iter().all(Steps::drops) && ![1, 3].into_iter().any(Steps::drops));
    }
}
