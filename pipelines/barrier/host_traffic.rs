//! The part of the tables that keeps traffic of the host itself from passing in clear.
//!
//! Each step has two chains for each direction. One has what the configuration names, from the longest far
//! side to the shortest, and between them the host's own segments, each of which ends the step for its
//! stations. The other has single addresses of peers, and goes first.

use super::{
    nftables::{Batch, Expression, INET4, INET6, Part},
    pairs::{self, Direction, Placed, Shape, Steps},
};
use crate::config::model::Config;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use wayfarer_dataplane::{sa::Selector, table::Prefix, wire::ip::protocol};

/// The most shapes of peers' pairs. Each costs every packet of the host a look-up.
const MOST_SHAPES: usize = 64;
/// Neighbour solicitation and advertisement, which only the segment's own stations can send (RFC 4861
/// §7.1).
const NEIGHBOUR_DISCOVERY: [u8; 2] = [135, 136];
const OWN_HOP_LIMIT: u8 = 255;
// linux/rtnetlink.h: types of destinations for several stations, which no tunnel of the host carries.
const BROADCAST: u32 = 3;
const MULTICAST: u32 = 5;

/// The traffic that must not pass in clear, and what bypass policies leave alone.
#[derive(Debug, Default)]
pub(super) struct HostTraffic {
    steps: Steps,
    /// What the configuration names, and earlier ones since the start.
    configured: BTreeSet<Placed>,
    /// What is only known by peers' tunnels, with the number of these.
    of_peers: BTreeMap<Placed, usize>,
    /// The shapes of `of_peers`, with the number of pairs of each.
    shapes: BTreeMap<(usize, Shape), usize>,
}

/// A change of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    AddShape(usize, Shape),
    RemoveShape(usize, Shape),
    Add(Placed),
    Remove(Placed),
}

impl HostTraffic {
    /// Returns what `config` names.
    pub(super) fn new(config: &Config) -> Self {
        let steps = Steps::new(config);
        Self { configured: pairs::of_config(config, &steps), steps, ..Self::default() }
    }

    /// Adds what another configuration names.
    pub(super) fn add_config(&mut self, config: &Config) {
        self.configured.extend(pairs::of_config(config, &self.steps));
    }

    /// Adds a tunnel with these `selectors`, whose far side the configuration does not name. Returns the
    /// changes of every table, or `None` and adds nothing if it would need too many shapes.
    pub(super) fn add_tunnel(&mut self, selectors: &[Selector]) -> Option<Vec<Change>> {
        let all: Vec<_> = pairs::of_peer(&self.steps, selectors).collect();
        let shapes = all.iter().map(|(step, pair)| (*step, pair.shape()));
        let new = shapes.filter(|shape| !self.shapes.contains_key(shape)).collect::<BTreeSet<_>>();
        if self.shapes.len() + new.len() > MOST_SHAPES {
            return None;
        }
        let mut changes: Vec<_> =
            new.into_iter().map(|(step, shape)| Change::AddShape(step, shape)).collect();
        for (step, pair) in all {
            let count = self.of_peers.entry((step, pair)).or_default();
            *count += 1;
            if *count == 1 {
                *self.shapes.entry((step, pair.shape())).or_default() += 1;
                changes.push(Change::Add((step, pair)));
            }
        }
        Some(changes)
    }

    /// Removes a tunnel that was added. Returns the changes of every table.
    pub(super) fn remove_tunnel(&mut self, selectors: &[Selector]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (step, pair) in pairs::of_peer(&self.steps, selectors) {
            let Some(count) = self.of_peers.get_mut(&(step, pair)) else { continue };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            self.of_peers.remove(&(step, pair));
            changes.push(Change::Remove((step, pair)));
            let shape = (step, pair.shape());
            if let Some(pairs) = self.shapes.get_mut(&shape) {
                *pairs -= 1;
                if *pairs == 0 {
                    self.shapes.remove(&shape);
                    changes.push(Change::RemoveShape(step, pair.shape()));
                }
            }
        }
        changes
    }

    /// Adds the chains, and the rules of the base chains that lead to them, for packets by the device
    /// that `by` compares. The base chains exist.
    pub(super) fn fill(
        &self,
        batch: &mut Batch,
        table: &str,
        segments: &BTreeSet<Prefix>,
        bases: [(Direction, &str, [Expression<'_>; 2]); 2],
    ) {
        for (direction, base, by) in bases {
            accept_others(batch, table, base, by);
            for step in 0..self.steps.count() {
                let [chain, peers] = [chain(step, direction), peers_chain(step, direction)];
                batch.add_inner_chain(table, &chain);
                if Steps::drops(step) {
                    batch.add_inner_chain(table, &peers);
                    batch.add_rule(table, &chain, &[Expression::Jump(&peers)]);
                }
                batch.add_rule(table, base, &[&by[..], &[Expression::Jump(&chain)]].concat());
            }
        }
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (step, pair) in &self.configured {
            let (shape, (is_ipv4, length)) = (pair.shape(), pair.shape().far());
            keys.entry((*step, is_ipv4, Reverse(length), shape)).or_default().push(pair.key());
        }
        for step in 0..self.steps.count() {
            for is_ipv4 in [true, false] {
                let own = segments.iter().filter(|segment| segment.is_ipv4() == is_ipv4);
                let mut own: Vec<_> = own.map(|segment| (segment.length(), *segment)).collect();
                own.sort_unstable();
                let of_step = keys.iter().filter(|((at, v4, ..), _)| (*at, *v4) == (step, is_ipv4));
                for ((_, _, Reverse(length), shape), keys) in of_step {
                    while Steps::drops(step) && own.last().is_some_and(|(longer, _)| longer > length) {
                        own.pop().into_iter().for_each(|(_, segment)| end_step(batch, table, step, segment));
                    }
                    let set = shape.set(&format!("s{step}"));
                    // The kernel takes no keys without a byte.
                    if !shape.is_everything() {
                        batch.add_key_set(table, &set, shape.key_type());
                        batch.add_keys(table, &set, keys);
                    }
                    look_up(batch, table, step, shape, &set, chain);
                }
            }
        }
        self.shapes.keys().for_each(|(step, shape)| add_peers_shape(batch, table, *step, shape));
        for (step, pair) in self.of_peers.keys() {
            batch.add_keys(table, &peers_set(*step, &pair.shape()), &[pair.key()]);
        }
    }

    /// Makes a change, after which `self` is already, in a table.
    pub(super) fn apply(&self, change: Change, batch: &mut Batch, table: &str) {
        match change {
            Change::AddShape(step, shape) => add_peers_shape(batch, table, step, &shape),
            Change::RemoveShape(step, shape) => {
                for direction in [Direction::In, Direction::Out] {
                    batch.flush_chain(table, &peers_chain(step, direction));
                }
                for (_, left) in self.shapes.keys().filter(|(at, _)| *at == step) {
                    look_up(batch, table, step, left, &peers_set(step, left), peers_chain);
                }
                batch.delete_set(table, &peers_set(step, &shape));
            }
            Change::Add((step, pair)) => {
                batch.add_keys(table, &peers_set(step, &pair.shape()), &[pair.key()]);
            }
            Change::Remove((step, pair)) => {
                batch.remove_key(table, &peers_set(step, &pair.shape()), pair.key());
            }
        }
    }
}

/// Accepts what no tunnel of the host carries: packets to several stations, and neighbour discovery.
fn accept_others(batch: &mut Batch, table: &str, base: &str, by: [Expression<'_>; 2]) {
    for kind in [BROADCAST, MULTICAST].map(u32::to_ne_bytes) {
        let rule = [Expression::DestinationType, Expression::Is(&kind), Expression::Accept];
        batch.add_rule(table, base, &[&by[..], &rule].concat());
    }
    for kind in NEIGHBOUR_DISCOVERY.map(|kind| [kind]) {
        let rule = [
            Expression::Family,
            Expression::Is(&INET6),
            Expression::Header(7, 1),
            Expression::Is(&[OWN_HOP_LIMIT]),
            Expression::Key(0, Part::Protocol),
            Expression::Is(&[protocol::ICMPV6]),
            Expression::Key(0, Part::Transport(0, 1)),
            Expression::Is(&kind),
            Expression::Accept,
        ];
        batch.add_rule(table, base, &[&by[..], &rule].concat());
    }
}

fn chain(step: usize, direction: Direction) -> String {
    let verdict = if Steps::drops(step) { "protected" } else { "open" };
    format!("{verdict}-{step}-{}", direction.name())
}

fn peers_chain(step: usize, direction: Direction) -> String {
    format!("peers-{step}-{}", direction.name())
}

fn peers_set(step: usize, shape: &Shape) -> String {
    shape.set(&format!("p{step}"))
}

fn add_peers_shape(batch: &mut Batch, table: &str, step: usize, shape: &Shape) {
    let set = peers_set(step, shape);
    batch.add_key_set(table, &set, shape.key_type());
    look_up(batch, table, step, shape, &set, peers_chain);
}

/// Adds the rules that look packets up in the hash table `set` of a shape, if it compares anything.
fn look_up(
    batch: &mut Batch,
    table: &str,
    step: usize,
    shape: &Shape,
    set: &str,
    chain: fn(usize, Direction) -> String,
) {
    let (masks, (is_ipv4, _)) = (shape.masks(), shape.far());
    let family = if is_ipv4 { INET4 } else { INET6 };
    // The offset of a fragment (RFC 791 §3.1, RFC 8200 §4.5).
    let (part, offset) = match is_ipv4 {
        true => (Part::Header(6, 2), [0x1f, 0xff]),
        false => (Part::FragmentHeader(2, 2), [0xff, 0xf8]),
    };
    let later = [Expression::Key(0, part), Expression::KeyMask(0, &offset), Expression::IsNot(&[0, 0])];
    let is_in = [Expression::KeyIsIn(set)];
    let verdict = if Steps::drops(step) { Expression::Drop } else { Expression::Accept };
    for direction in [Direction::In, Direction::Out] {
        let start = [Expression::Family, Expression::Is(&family)];
        let later = if shape.is_later() { &later[..] } else { &[] };
        let is_in = if !shape.is_everything() { &is_in[..] } else { &[] };
        let end = [Expression::Count, verdict];
        let rule = [&start[..], later, &shape.load(direction, &masks), is_in, &end].concat();
        batch.add_rule(table, &chain(step, direction), &rule);
    }
}

/// Ends a step for the stations of a segment.
fn end_step(batch: &mut Batch, table: &str, step: usize, segment: Prefix) {
    let is_ipv4 = segment.is_ipv4();
    let (family, mask) = (if is_ipv4 { INET4 } else { INET6 }, pairs::mask(is_ipv4, segment.length()));
    let address = match segment.address() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    for direction in [Direction::In, Direction::Out] {
        let ([far, _], length) = pairs::addresses(is_ipv4, direction);
        let rule = [
            Expression::Family,
            Expression::Is(&family),
            Expression::Key(0, Part::Header(far, length)),
            Expression::KeyMask(0, &mask),
            Expression::Is(&address),
            Expression::Return,
        ];
        batch.add_rule(table, &chain(step, direction), &rule);
    }
}
