//! Which of many rules of one prefix to try for a packet: decision trees that cut the space of packets in two until few
//! rules are left (HiCuts: Gupta and McKeown, "Packet Classification using Hierarchical Intelligent Cuttings", 1999).
//!
//! A tree only says which rules may cover a packet; these are then asked as they would be without it.

use super::{Rule, Verdict, first};
use wayfarer_dataplane::{
    sa::{Flow, PortRange, Selector},
    wire::ip::protocol,
};

/// Rules that are not divided any further.
const LEAF: usize = 8;
/// Cuts above a leaf.
const DEPTH: u32 = 48;
/// How often each rule may be looked at to make a tree, on average. What spans a cut is on both sides of it, so hostile
/// rules could make a tree of any size: what is left when this is used up is not divided any further.
const EFFORT: usize = 64;
/// In place of the port of a packet that shows none: beyond every port.
const NO_PORT: u128 = 1 << 16;

/// What a tree cuts by: address on this side, protocol, port on this side, port on the peer's.
const FIELDS: usize = 4;
/// A packet, by field.
type Point = [u128; FIELDS];
/// Packets between two points, both included, by field.
type Cell = [(u128, u128); FIELDS];

const EVERYTHING: Cell = [(0, u128::MAX); FIELDS];

/// Rules in their order, and where to look for each kind of packet.
#[derive(Debug)]
pub struct Index {
    rules: Box<[Rule]>,
    /// For packets that show what they are.
    shown: Tree,
    /// For later fragments, which have no ports.
    later: Tree,
    /// For later fragments that hide their protocol behind extension headers too.
    hidden: Tree,
}

impl Index {
    pub(super) fn new(rules: Box<[Rule]>) -> Self {
        let tree = |cell: fn(&Selector) -> Cell| {
            let cells = rules.iter().map(|rule| cell(&rule.selector)).collect::<Vec<_>>();
            Tree::new(&cells)
        };
        let (shown, later, hidden) = (tree(shown), tree(later), tree(hidden));
        Self { rules, shown, later, hidden }
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    #[inline(never)]
    pub(super) fn find(&self, outbound: &Flow) -> Option<Verdict<'_>> {
        let tree = match outbound {
            Flow { is_later_fragment: false, .. } => &self.shown,
            Flow { protocol: protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION, .. } => {
                &self.hidden
            }
            _ => &self.later,
        };
        let (local, remote) =
            outbound.ports.map_or((NO_PORT, NO_PORT), |(local, remote)| (local.into(), remote.into()));
        let point = [outbound.src.bits(), outbound.protocol.into(), local, remote];
        first(tree.find(&point).iter().filter_map(|at| self.rules.get(*at as usize)), outbound)
    }
}

/// What a selector covers of packets that are no later fragments.
fn shown(selector: &Selector) -> Cell {
    let ports = |range: PortRange| match range {
        PortRange::ANY => (0, u128::MAX),
        PortRange { first, last } => (first.into(), last.into()),
    };
    let [local, protocol, ..] = later(selector);
    [local, protocol, ports(selector.local_ports), ports(selector.remote_ports)]
}

/// What a selector covers, or may cover, of later fragments.
fn later(selector: &Selector) -> Cell {
    let mut cell = hidden(selector);
    if let Some(protocol) = selector.protocol {
        cell[1] = (protocol.into(), protocol.into());
    }
    cell
}

/// What a selector may cover of fragments that show nothing but addresses.
fn hidden(selector: &Selector) -> Cell {
    let mut cell = EVERYTHING;
    cell[0] = selector.local.span();
    cell
}

/// A decision tree over the indices of rules.
#[derive(Debug)]
struct Tree {
    /// The root is the last.
    nodes: Vec<Node>,
    /// The leaves' rules, each leaf's in their order.
    leaves: Vec<u32>,
    /// Rules that may still be looked at.
    effort: usize,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Cut {
        cut: Cut,
        /// The node for packets below it.
        below: u32,
        /// The node for the others.
        above: u32,
    },
    Leaf {
        /// Where its rules are.
        from: u32,
        end: u32,
    },
}

/// Between the packets whose `field` is below `at` and the others.
#[derive(Clone, Copy, Debug)]
struct Cut {
    field: usize,
    at: u128,
}

impl Cut {
    fn halves(self, cell: &Cell) -> (Cell, Cell) {
        let (mut low, mut high) = (*cell, *cell);
        low[self.field].1 = self.at - 1;
        high[self.field].0 = self.at;
        (low, high)
    }
}

impl Tree {
    /// A tree for the rules that cover `cells`.
    fn new(cells: &[Cell]) -> Self {
        let mut this = Self { nodes: vec![], leaves: vec![], effort: cells.len() * EFFORT };
        let all = (0..cells.len() as u32).collect();
        this.grow(cells, all, EVERYTHING, DEPTH);
        this
    }

    /// Adds what is needed for `rules` within `cell`; answers which node that is.
    fn grow(&mut self, cells: &[Cell], mut rules: Vec<u32>, cell: Cell, depth: u32) -> u32 {
        let of = |rule: &u32| &cells[*rule as usize];
        rules.truncate(tried(rules.iter().map(of), &cell));
        self.effort = self.effort.saturating_sub(rules.len());
        let may_grow = depth > 0 && rules.len() > LEAF && self.effort > 0;
        let cut = if may_grow { best_cut(rules.iter().map(of), &cell) } else { None };
        let node = match cut {
            Some(cut) => {
                let (low, high) = cut.halves(&cell);
                let side = |side: &Cell| -> Vec<u32> {
                    rules.iter().filter(|rule| meets(of(rule), side)).copied().collect()
                };
                let below = self.grow(cells, side(&low), low, depth - 1);
                let above = self.grow(cells, side(&high), high, depth - 1);
                Node::Cut { cut, below, above }
            }
            None => {
                let from = self.leaves.len() as u32;
                self.leaves.extend(rules);
                Node::Leaf { from, end: self.leaves.len() as u32 }
            }
        };
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    /// The rules that may cover the packet at `point`, in their order.
    fn find(&self, point: &Point) -> &[u32] {
        let mut node = self.nodes.last();
        loop {
            match node {
                Some(Node::Cut { cut, below, above }) => {
                    let next = if point[cut.field] < cut.at { below } else { above };
                    node = self.nodes.get(*next as usize);
                }
                Some(Node::Leaf { from, end }) => {
                    return self.leaves.get(*from as usize..*end as usize).unwrap_or_default();
                }
                None => return &[],
            }
        }
    }
}

fn covers(outer: &Cell, inner: &Cell) -> bool {
    outer.iter().zip(inner).all(|(outer, inner)| outer.0 <= inner.0 && inner.1 <= outer.1)
}

fn meets(one: &Cell, other: &Cell) -> bool {
    one.iter().zip(other).all(|(one, other)| one.0 <= other.1 && other.0 <= one.1)
}

/// How many of `rules`, all of which meet `cell`, can matter there: what covers all of it hides those behind it.
fn tried<'c>(rules: impl Iterator<Item = &'c Cell> + Clone, cell: &Cell) -> usize {
    let before = rules.clone().position(|rule| covers(rule, cell));
    before.map_or_else(|| rules.count(), |last| last + 1)
}

/// The cut that leaves the fewest of `rules` on its fuller side. In each field it halves the points at which some rule
/// begins or has ended, so that what overlaps gets separated too in the end; `None` if there are none in any.
fn best_cut<'c>(rules: impl Iterator<Item = &'c Cell> + Clone, cell: &Cell) -> Option<Cut> {
    let cuts = (0..FIELDS).filter_map(|field| {
        let (first, last) = cell[field];
        let mut edges: Vec<u128> = rules
            .clone()
            .flat_map(|rule| [Some(rule[field].0), rule[field].1.checked_add(1)])
            .flatten()
            .filter(|edge| first < *edge && *edge <= last)
            .collect();
        edges.sort_unstable();
        edges.dedup();
        Some(Cut { field, at: *edges.get(edges.len() / 2)? })
    });
    cuts.min_by_key(|cut| {
        let (low, high) = cut.halves(cell);
        let side = |side: &Cell| tried(rules.clone().filter(|rule| meets(rule, side)), side);
        let (below, above) = (side(&low), side(&high));
        (below.max(above), below + above)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::policy::{Action, Rules};
    use proptest::prelude::*;
    use std::net::IpAddr;
    use wayfarer_dataplane::table::Prefix;

    fn ports() -> impl Strategy<Value = PortRange> {
        prop_oneof![
            2 => Just(PortRange::ANY),
            3 => (0u16..40, 0u16..6).prop_map(|(first, more)| PortRange { first, last: first + more }),
            1 => any::<(u16, u16)>().prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
        ]
    }

    fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
        any::<u8>().prop_map(move |b| match v4 {
            true => IpAddr::from([10, b & 3, b >> 4 & 3, b >> 6]),
            false => IpAddr::from([0x2001, 0xdb8, u16::from(b & 3), 0, 0, 0, 0, u16::from(b >> 6)]),
        })
    }

    fn rule(v4: bool) -> impl Strategy<Value = Rule> {
        let protocol = prop_oneof![Just(None), Just(Some(6)), Just(Some(17)), Just(Some(1))];
        (address(v4), 0u8..=128, protocol, ports(), ports(), any::<bool>()).prop_map(
            move |(local, length, protocol, local_ports, remote_ports, bypass)| {
                let everything = IpAddr::from([0u8; 16]);
                let remote = Prefix::new(if v4 { IpAddr::from([0; 4]) } else { everything }, 0).unwrap();
                let local = Prefix::new(local, if v4 { length % 33 } else { length }).unwrap();
                let selector =
                    Selector { protocol, local_ports, remote_ports, ..Selector::configured(local, remote) };
                Rule { selector, action: if bypass { Action::Bypass } else { Action::Discard } }
            },
        )
    }

    fn flow(v4: bool) -> impl Strategy<Value = Flow> {
        let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(0), Just(60), any::<u8>()];
        let ports = proptest::option::of((0u16..50, 0u16..50));
        (address(v4), address(v4), protocol, ports, any::<bool>()).prop_map(
            |(src, dst, protocol, ports, is_later_fragment)| Flow {
                src: src.into(),
                dst: dst.into(),
                protocol,
                ports: ports.filter(|_| !is_later_fragment),
                is_later_fragment,
            },
        )
    }

    /// Rules and flows of one family.
    fn policy() -> impl Strategy<Value = (Vec<Rule>, Vec<Flow>)> {
        any::<bool>().prop_flat_map(|v4| {
            let (rules, flows) = (rule(v4), flow(v4));
            (proptest::collection::vec(rules, 9..120), proptest::collection::vec(flows, 1..60))
        })
    }

    /// What a verdict is and of which rule.
    fn name(verdict: Option<Verdict<'_>>, rules: &[Rule]) -> Option<(bool, usize)> {
        let is_hidden = matches!(verdict, Some(Verdict::Hidden(_)));
        let rule = verdict?.rule()?;
        Some((is_hidden, rules.iter().position(|own| std::ptr::eq(own, rule))?))
    }

    proptest! {
        #[test]
        fn says_what_a_scan_of_all_rules_says((rules, flows) in policy()) {
            let scanned: Vec<Rule> = rules.clone();
            let rules: Rules = rules.into_iter().collect();
            prop_assert!(matches!(rules, Rules::Indexed(_)));
            for flow in flows {
                let found = rules.find(&flow);
                let expected = first(scanned.iter(), &flow);
                prop_assert_eq!(name(found, &rules), name(expected, &scanned), "{:?}", flow);
            }
        }
    }

    #[test]
    fn of_thousands_of_rules_few_are_tried() {
        let everywhere = Prefix::new(IpAddr::from([0; 4]), 0).unwrap();
        let any = Selector::configured(everywhere, everywhere);
        let by_port = |port| Selector {
            protocol: Some(17),
            remote_ports: PortRange { first: port, last: port },
            ..any.clone()
        };
        let by_host = |host: u16| {
            Selector::configured(
                Prefix::host(IpAddr::from([10, 0, host.to_be_bytes()[0], host.to_be_bytes()[1]])),
                everywhere,
            )
        };
        // As a peer may well choose them: each within the one before, or around it.
        let within = |at| Selector {
            protocol: Some(6),
            local_ports: PortRange { first: at, last: u16::MAX - at },
            ..any.clone()
        };
        let around = |at| within(5000 - at);
        let by_both = |n: u16| Selector { local_ports: within(n % 64).local_ports, ..by_port(n) };
        let kinds: [&dyn Fn(u16) -> Selector; 5] = [&by_port, &by_host, &within, &around, &by_both];
        for (kind, selector) in kinds.into_iter().enumerate() {
            let cells: Vec<_> = (0..4000).map(|n| shown(&selector(n))).collect();
            let tree = Tree::new(&cells);
            let leaves = tree.nodes.iter().filter_map(|node| match node {
                Node::Leaf { from, end } => Some(end - from),
                Node::Cut { .. } => None,
            });
            assert!(leaves.max().unwrap() <= LEAF as u32, "kind {kind}");
            assert!(tree.leaves.len() <= 4 * cells.len(), "kind {kind}: {}", tree.leaves.len());
        }
    }
}
