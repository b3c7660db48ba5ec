//! Traffic between the host itself and the far sides of tunnels: what never passes in clear, and what
//! a bypass policy leaves alone.
//!
//! Policy decides by the longest prefix that the operator wrote for the far side, and at the same one
//! by tunnels before policies ([`policy`](crate::gateway::policy)). So pairs of addresses are looked
//! up in steps: tunnels that go before the first bypass policy, then the policies of that prefix, then
//! the next tunnels, and so on. The kernel looks up one hash table for each [`Shape`] of a step, so
//! that adding or removing a pair costs the same however many there are, and pairs may overlap.
//!
//! Nobody must be locked out of the host. So far sides that are too wide to name anybody are left alone,
//! and of what is negotiated, only the addresses of peers count that we connect to.

use super::{
    nftables::{Expression, Part},
    ranges,
    sides::{Side, is_wide},
};
use crate::{
    config::model::{Config, PolicyAction},
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
    /// True if it is only for later fragments, which do not show their ports. The first one decides.
    is_later: bool,
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
    is_later: bool,
}

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

impl Direction {
    /// Returns the end of a chain's name.
    pub(super) fn name(self) -> &'static str {
        if self == Self::In { "in" } else { "out" }
    }
}

impl Pair {
    /// Returns the pairs that together cover `selector`. A selector with a range of ports has none.
    fn covering(selector: &Selector) -> impl Iterator<Item = Self> + use<> {
        let Selector { local, remote, protocol, local_ports, remote_ports, .. } = *selector;
        let port = |ports: PortRange| (ports.first == ports.last).then_some(ports.first);
        let (local_port, remote_port) = (port(local_ports), port(remote_ports));
        let is_range = [local_ports, remote_ports]
            .iter()
            .any(|ports| *ports != PortRange::ANY && port(*ports).is_none());
        let has_ports = local_port.is_some() || remote_port.is_some();
        let protocols = match protocol {
            _ if is_range => vec![],
            None if has_ports => WITH_PORTS.map(Some).to_vec(),
            // A packet without ports has none of these.
            Some(other) if has_ports && !WITH_PORTS.contains(&other) => vec![],
            other => vec![other],
        };
        let pair = move |protocol| Self { remote, local, protocol, local_port, remote_port, is_later: false };
        protocols.into_iter().map(pair)
    }

    /// Returns the pair for later fragments of the same packets, if those do not show what it compares.
    fn later(self) -> Option<Self> {
        let has_ports = self.local_port.is_some() || self.remote_port.is_some();
        has_ports.then_some(Self { local_port: None, remote_port: None, is_later: true, ..self })
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
            is_later: self.is_later,
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
    /// Returns the name of the hash table of this shape in a `step`.
    pub(super) fn set(&self, step: &str) -> String {
        let family = if self.is_ipv4 { 4 } else { 6 };
        let mut name = format!("{step}-ip{family}-far{}-near{}", self.remote, self.local);
        let fields = [self.has_protocol, self.has_local_port, self.has_remote_port, self.is_later];
        let names = ["-proto", "-nearport", "-farport", "-later"];
        fields.iter().zip(names).filter(|(has, _)| **has).for_each(|(_, field)| name += field);
        name
    }

    /// Returns whether it is of IPv4, and how many bits of the far side's addresses it compares.
    pub(super) fn far(&self) -> (bool, u8) {
        (self.is_ipv4, self.remote)
    }

    /// Returns whether it is only for later fragments.
    pub(super) fn is_later(&self) -> bool {
        self.is_later
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

    /// Returns whether it compares nothing: then its only pair is all traffic of its family.
    pub(super) fn is_everything(&self) -> bool {
        self.key_type().1 == 0
    }

    /// Returns the masks of the far and of this side's addresses.
    pub(super) fn masks(&self) -> [Vec<u8>; 2] {
        [self.remote, self.local].map(|length| mask(self.is_ipv4, length))
    }

    /// Returns the expressions that load the key of a packet in this `direction`. `masks` are those of
    /// [`Shape::masks`].
    pub(super) fn load<'a>(&self, direction: Direction, masks: &'a [Vec<u8>; 2]) -> Vec<Expression<'a>> {
        let (addresses, length) = addresses(self.is_ipv4, direction);
        let ports = if direction == Direction::Out { [0, 2] } else { [2, 0] };
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

/// Returns the offsets of the far and of this side's address in a header, and their length in bytes (RFC
/// 791 §3.1, RFC 8200 §3).
pub(super) fn addresses(is_ipv4: bool, direction: Direction) -> ([u32; 2], u32) {
    let (source, destination, length) = if is_ipv4 { (12, 16, 4) } else { (8, 24, 16) };
    match direction {
        Direction::Out => ([destination, source], length),
        Direction::In => ([source, destination], length),
    }
}

/// Returns the mask of a prefix of `length` bits.
pub(super) fn mask(is_ipv4: bool, length: u8) -> Vec<u8> {
    let ones = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0).to_be_bytes();
    ones[..if is_ipv4 { 4 } else { 16 }].to_vec()
}

/// Returns the prefix of all addresses of a family.
fn everywhere(is_ipv4: bool) -> Option<Prefix> {
    Prefix::new(if is_ipv4 { [0; 4].into() } else { [0; 16].into() }, 0)
}

/// The order of steps: the ranks of bypass policies, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(Vec<u8>);

impl Steps {
    /// Returns the steps of `config`. They are the same for each reload of it.
    pub(super) fn new(config: &Config) -> Self {
        let ranks: BTreeSet<_> = bypasses(config).map(|selector| selector.rank.remote).collect();
        Self(ranks.into_iter().rev().collect())
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

/// Returns the pairs of selectors of tunnels.
fn placed<'a>(
    steps: &'a Steps,
    selectors: impl IntoIterator<Item = &'a Selector>,
) -> impl Iterator<Item = Placed> {
    selectors.into_iter().flat_map(|selector| {
        let step = steps.of_tunnel(selector.rank.remote);
        Pair::covering(selector).map(move |pair| (step, pair))
    })
}

/// Returns the pairs of a tunnel by hand with these selectors.
fn of_tunnel<'a>(steps: &'a Steps, selectors: &'a [Selector]) -> impl Iterator<Item = Placed> {
    let far = Side::new(selectors.iter().map(|selector| ranges::of_prefix(selector.remote)));
    placed(steps, selectors.iter().filter(move |selector| !far.is_wide(ranges::of_prefix(selector.remote))))
}

/// Returns the pairs of a tunnel whose far side the configuration does not name: single addresses that
/// are the peer's own, or were assigned to it.
pub(super) fn of_peer<'a>(
    steps: &'a Steps,
    selectors: impl IntoIterator<Item = &'a Selector>,
) -> impl Iterator<Item = Placed> {
    let is_single = |s: &&Selector| s.remote.length() == if s.remote.is_ipv4() { 32 } else { 128 };
    placed(steps, selectors.into_iter().filter(is_single))
}

/// Returns the pairs that `config` decides about by itself: tunnels by hand, bypass policies, pools, and
/// the far sides that connections name. Traffic that policy discards is not the host's tunnels'.
pub(super) fn of_config(config: &Config, steps: &Steps) -> BTreeSet<Placed> {
    let mut all: BTreeSet<Placed> =
        config.tunnels.iter().flat_map(|tunnel| of_tunnel(steps, &tunnel.selectors)).collect();
    for selector in bypasses(config) {
        let step = steps.of_bypass(selector.rank.remote);
        let pairs = Pair::covering(selector).flat_map(|pair| [Some(pair), pair.later()]).flatten();
        all.extend(pairs.map(|pair| (step, pair)));
    }
    let mut protect = |local: Prefix, remote: Prefix, rank: u8| {
        let step = steps.of_tunnel(rank);
        all.extend(Pair::covering(&Selector::configured(local, remote)).map(|pair| (step, pair)));
    };
    for pool in config.ike.pools.iter().filter(|pool| !is_wide((pool.first, pool.last))) {
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
            let far = Side::new(child.remote.iter().map(|remote| (remote.start, remote.end)));
            let named = child.remote.iter().filter(|remote| !far.is_wide((remote.start, remote.end)));
            for remote in named.flat_map(|remote| prefixes(remote.start, remote.end)) {
                // While nobody is connected, the gateway drops all packets to a peer that it calls.
                let any = everywhere(remote.is_ipv4()).filter(|_| connection.protocol.is_dialled());
                let locals = match any {
                    Some(any) => vec![any],
                    None => locals.iter().filter(|p| p.is_ipv4() == remote.is_ipv4()).copied().collect(),
                };
                locals.into_iter().for_each(|local| protect(local, remote, remote.length()));
            }
        }
    }
    all
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
            ("10.98.0.7/32", "10.0.0.0/8"),
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
                        names.insert(shape.set("s0"));
                    }
                }
            }
        }
        // Without a protocol, a port stands for three protocols of the same shape.
        assert_eq!(names.len(), 4 * 3);
    }

    #[test]
    fn selectors_are_covered_exactly_or_not_at_all() {
        let selector = Selector::configured(prefix("10.99.0.0/24"), prefix("10.98.0.0/24"));
        let [range, one] = [5010, 5000].map(|last| PortRange { first: 5000, last });
        let cover = |selector: &Selector| Pair::covering(selector).count();
        assert_eq!(cover(&selector), 1);
        assert_eq!(cover(&Selector { remote_ports: one, ..selector.clone() }), 3);
        for protocol in [None, Some(protocol::TCP), Some(protocol::ICMP)] {
            assert_eq!(cover(&Selector { protocol, local_ports: range, ..selector.clone() }), 0);
        }
        assert_eq!(cover(&Selector { protocol: Some(protocol::ICMP), local_ports: one, ..selector }), 0);
    }

    #[test]
    fn far_sides_that_name_nobody_are_left_alone() {
        let steps = Steps::default();
        let pairs = |remote: &str| {
            let local = if remote.contains(':') { "2001:db8::/32" } else { "10.99.0.0/24" };
            let selector = Selector::configured(prefix(local), prefix(remote));
            let by_hand = of_tunnel(&steps, std::slice::from_ref(&selector)).count();
            [by_hand, of_peer(&steps, [&selector]).count()]
        };
        for (remote, expected) in [
            ("0.0.0.0/0", [0, 0]),
            ("0.0.0.0/1", [0, 0]),
            ("128.0.0.0/1", [0, 0]),
            ("10.0.0.0/7", [0, 0]),
            ("10.0.0.0/8", [1, 0]),
            ("198.51.100.0/31", [1, 0]),
            ("198.51.100.9/32", [1, 1]),
            ("::/1", [0, 0]),
            ("2000::/15", [0, 0]),
            ("2001::/16", [1, 0]),
            ("2001:db8::9/128", [1, 1]),
        ] {
            assert_eq!(pairs(remote), expected, "{remote}");
        }
        let far_sides = |remotes: [&str; 3]| {
            let local = prefix("10.99.0.0/24");
            let selectors = remotes.map(|remote| Selector::configured(local, prefix(remote)));
            of_tunnel(&steps, &selectors).count()
        };
        assert_eq!(far_sides(["10.0.0.0/7", "12.0.0.0/8", "13.0.0.0/16"]), 0, "as a whole");
        assert_eq!(far_sides(["10.0.0.0/7", "13.0.0.0/8", "15.0.0.0/16"]), 2);
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
