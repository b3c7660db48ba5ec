//! The part of the tables that keeps traffic of the host itself from passing in clear.

use super::{
    INET4, INET6,
    nftables::{Batch, Expression, Part},
    pairs::{self, Direction, Placed, Shape, Steps},
};
use crate::config::model::{Config, Port};
use std::collections::{BTreeMap, BTreeSet};
use wayfarer_dataplane::{sa::Selector, wire::ip::protocol};

/// The most shapes of pairs that peers may add to. Each costs every packet of the host a look-up. Pairs
/// of further shapes are widened.
const MOST_SHAPES: usize = 64;
/// Neighbour solicitation and advertisement, which only the segment's own stations can send (RFC 4861
/// §7.1).
const NEIGHBOUR_DISCOVERY: [u8; 2] = [135, 136];
const OWN_HOP_LIMIT: u8 = 255;

/// The traffic that must not pass in clear, and what bypass policies leave alone.
#[derive(Debug, Default)]
pub(super) struct HostTraffic {
    steps: Steps,
    /// What the configuration names, and earlier ones since the start.
    configured: BTreeSet<Placed>,
    /// What peers negotiated, with the number of their tunnels.
    negotiated: BTreeMap<Placed, usize>,
    /// The shapes that the tables have.
    shapes: BTreeSet<(usize, Shape)>,
}

/// A change of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Shape(usize, Shape),
    Add(Placed),
    Remove(Placed),
}

impl HostTraffic {
    /// Returns what `config` names.
    pub(super) fn new(config: &Config) -> Self {
        let steps = Steps::new(config);
        Self { configured: pairs::of_config(config, &steps), steps, ..Self::default() }
    }

    /// Returns the pairs of the host's own segments on the device of `port`.
    pub(super) fn segments(&self, config: &Config, port: &Port) -> BTreeSet<Placed> {
        let is_there = |other: &&Port| other.tagging.is_none() && other.shares_device(port);
        config.ports.iter().filter(is_there).flat_map(|port| pairs::of_segments(port, &self.steps)).collect()
    }

    /// Adds what another configuration names.
    pub(super) fn add_config(&mut self, config: &Config) {
        self.configured.extend(pairs::of_config(config, &self.steps));
    }

    /// Adds the traffic of a tunnel with these `selectors`. Returns the changes of every table.
    pub(super) fn add_tunnel(&mut self, selectors: &[Selector]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (step, mut pair) in pairs::of_tunnel(&self.steps, selectors).collect::<Vec<_>>() {
            if self.shapes.len() >= MOST_SHAPES && !self.shapes.contains(&(step, pair.shape())) {
                pair = pair.widened();
            }
            let count = self.negotiated.entry((step, pair)).or_default();
            *count += 1;
            if *count > 1 || self.configured.contains(&(step, pair)) {
                continue;
            }
            if self.shapes.insert((step, pair.shape())) {
                changes.push(Change::Shape(step, pair.shape()));
            }
            changes.push(Change::Add((step, pair)));
        }
        changes
    }

    /// Removes the traffic of a tunnel that was added. Returns the changes of every table.
    pub(super) fn remove_tunnel(&mut self, selectors: &[Selector]) -> Vec<Change> {
        let mut changes = Vec::new();
        for mut placed in pairs::of_tunnel(&self.steps, selectors) {
            if !self.negotiated.contains_key(&placed) {
                placed.1 = placed.1.widened();
            }
            let Some(count) = self.negotiated.get_mut(&placed) else { continue };
            *count -= 1;
            if *count == 0 {
                self.negotiated.remove(&placed);
                let is_gone = !self.configured.contains(&placed);
                changes.extend(is_gone.then_some(Change::Remove(placed)));
            }
        }
        changes
    }

    /// Adds the chains, and the rules of the base chains that lead to them, for packets by the device
    /// that `by` compares. The base chains exist.
    pub(super) fn fill(
        &mut self,
        batch: &mut Batch,
        table: &str,
        segments: &BTreeSet<Placed>,
        bases: [(Direction, &str, [Expression<'_>; 2]); 2],
    ) {
        for (direction, base, by) in bases {
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
            for step in 0..self.steps.count() {
                let chain = chain(step, direction);
                batch.add_inner_chain(table, &chain);
                batch.add_rule(table, base, &[&by[..], &[Expression::Jump(&chain)]].concat());
            }
        }
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let all: BTreeSet<_> = self.configured.iter().chain(self.negotiated.keys()).chain(segments).collect();
        for (step, pair) in all {
            keys.entry((*step, pair.shape())).or_default().push(pair.key());
        }
        for ((step, shape), keys) in &keys {
            add_shape(batch, table, *step, shape);
            batch.add_keys(table, &shape.set(*step), keys);
        }
        self.shapes = keys.into_keys().filter(|(step, _)| Steps::drops(*step)).collect();
    }
}

/// Makes a change in a table.
pub(super) fn apply(change: Change, batch: &mut Batch, table: &str) {
    match change {
        Change::Shape(step, shape) => add_shape(batch, table, step, &shape),
        Change::Add((step, pair)) => batch.add_keys(table, &pair.shape().set(step), &[pair.key()]),
        Change::Remove((step, pair)) => batch.remove_key(table, &pair.shape().set(step), pair.key()),
    }
}

fn chain(step: usize, direction: Direction) -> String {
    let direction = if direction == Direction::In { "in" } else { "out" };
    let verdict = if Steps::drops(step) { "protected" } else { "open" };
    format!("{verdict}-{step}-{direction}")
}

/// Adds the hash table of a shape, and the rules that look packets up there.
fn add_shape(batch: &mut Batch, table: &str, step: usize, shape: &Shape) {
    let set = shape.set(step);
    batch.add_key_set(table, &set, shape.key_type());
    let (is_ipv4, masks) = shape.masks();
    let family = if is_ipv4 { INET4 } else { INET6 };
    let verdict = if Steps::drops(step) { Expression::Drop } else { Expression::Accept };
    for direction in [Direction::In, Direction::Out] {
        let start = [Expression::Family, Expression::Is(&family)];
        let end = [Expression::KeyIsIn(&set), Expression::Count, verdict];
        let rule = [&start[..], &shape.load(direction, &masks), &end].concat();
        batch.add_rule(table, &chain(step, direction), &rule);
    }
}
