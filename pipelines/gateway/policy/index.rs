//! Finds the rules to try for a packet by bit vectors (Lakshman and Stiliadis, "High-Speed
//! Policy-based Packet Forwarding Using Efficient Multi-dimensional Range Matching", 1998): each
//! field of the packet has one bit for each rule, which is set if the rule may cover the packet.
//! Rules whose bit is set for all fields are tried.
//!
//! Memory and time depend only on the number of rules, not on their overlaps, because peers choose
//! some of them.

use super::rule::{Decision, Rule, first};
use std::{
    iter::{once, successors},
    num::NonZero,
};
use wayfarer_dataplane::{
    sa::{Flow, PortRange},
    wire::ip::protocol,
};

/// The number of rules whose bits are in one row, which is a cache line.
pub(super) const BLOCK: usize = 512;
const WORD: usize = u64::BITS as usize;
/// Stands for the port of a packet that shows none: beyond every port.
const NO_PORT: u128 = 1 << 16;

/// Up to [`BLOCK`] rules in their order, with the bits for each field.
#[derive(Debug)]
pub(super) struct Block {
    rules: Box<[Rule]>,
    local: Field,
    protocol: Field,
    local_ports: Field,
    remote_ports: Field,
}

impl Block {
    pub(super) fn new(rules: Box<[Rule]>) -> Self {
        let field = |span: &dyn Fn(&Rule) -> (u128, u128)| Field::new(rules.iter().map(span));
        Self {
            local: field(&|rule| rule.selector.local.span()),
            protocol: field(&|rule| match rule.selector.protocol {
                Some(protocol) => (protocol.into(), protocol.into()),
                None => (0, u128::MAX),
            }),
            local_ports: field(&|rule| ports(rule.selector.local_ports)),
            remote_ports: field(&|rule| ports(rule.selector.remote_ports)),
            rules,
        }
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the first rule that covers a packet, or that may cover it.
    pub(super) fn find(&self, outbound: &Flow) -> Option<Decision<'_>> {
        first(self.tried(outbound).filter_map(|at| self.rules.get(at)), outbound)
    }

    /// Returns the positions of rules to try for a packet, in their order.
    #[inline(always)]
    fn tried(&self, outbound: &Flow) -> impl Iterator<Item = usize> {
        let mut row = *self.local.row(outbound.src.bits());
        // A later fragment may hide its protocol behind extension headers.
        let is_hidden = outbound.is_later_fragment && protocol::is_extension(outbound.protocol);
        if !is_hidden {
            row.keep(self.protocol.row(outbound.protocol.into()));
        }
        if !outbound.is_later_fragment {
            let (local, remote) =
                outbound.ports.map_or((NO_PORT, NO_PORT), |(local, remote)| (local.into(), remote.into()));
            row.keep(self.local_ports.row(local));
            row.keep(self.remote_ports.row(remote));
        }
        row.bits()
    }
}

fn ports(range: PortRange) -> (u128, u128) {
    match range {
        PortRange::ANY => (0, u128::MAX),
        PortRange { first, last } => (first.into(), last.into()),
    }
}

/// One bit for each rule of a block.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Row([u64; BLOCK / WORD]);

impl Row {
    #[inline(always)]
    fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// Returns the positions of the bits that are set.
    #[inline(always)]
    fn bits(self) -> impl Iterator<Item = usize> {
        let set = |word| successors(NonZero::new(word), |word| NonZero::new(word.get() & (word.get() - 1)));
        let words = self.0.into_iter().enumerate();
        words
            .flat_map(move |(at, word)| set(word).map(move |word| at * WORD + word.trailing_zeros() as usize))
    }
}

/// The rules of a block that allow each value of one field.
#[derive(Debug)]
struct Field {
    /// The values at which some rule begins or has ended, in ascending order. The first is zero.
    edges: Vec<u128>,
    /// For each edge, the rules that allow the values from it up to the next one.
    rows: Vec<Row>,
}

impl Field {
    /// Makes the field of rules that allow these ranges, each given by its first and last value.
    fn new(spans: impl Iterator<Item = (u128, u128)>) -> Self {
        let changes = spans.enumerate().flat_map(|(rule, (first, last))| {
            once((first, rule)).chain(last.checked_add(1).map(|behind| (behind, rule)))
        });
        let mut changes: Vec<_> = changes.collect();
        changes.sort_unstable();
        let (mut edges, mut rows) = (vec![0], vec![Row([0; BLOCK / WORD])]);
        for (at, rule) in changes {
            if edges.last() != Some(&at) {
                edges.push(at);
                rows.extend_from_within(rows.len() - 1..);
            }
            if let Some(row) = rows.last_mut() {
                row.0[rule / WORD] ^= 1 << (rule % WORD);
            }
        }
        Self { edges, rows }
    }

    #[inline(always)]
    fn row(&self, value: u128) -> &Row {
        &self.rows[self.edges.partition_point(|edge| *edge <= value) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::policy::rule::Action;
    use proptest::prelude::*;
    use std::net::IpAddr;
    use wayfarer_dataplane::{sa::Selector, table::Prefix};

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
        let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(0), Just(44), Just(60), any::<u8>()];
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
            let flows = flow(v4);
            let count = prop_oneof![1usize..120, BLOCK - 9..=BLOCK];
            let rules = count.prop_flat_map(move |count| proptest::collection::vec(rule(v4), count));
            (rules, proptest::collection::vec(flows, 1..60))
        })
    }

    /// Returns whether a decision is hidden, and its rule.
    fn name(decision: Option<Decision<'_>>, rules: &[Rule]) -> Option<(bool, usize)> {
        let is_hidden = matches!(decision, Some(Decision::Hidden(_)));
        let rule = decision?.rule()?;
        Some((is_hidden, rules.iter().position(|own| std::ptr::eq(own, rule))?))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_scan_of_all_rules((rules, flows) in policy()) {
            let block = Block::new(rules.into());
            for flow in flows {
                let (found, expected) = (block.find(&flow), first(block.rules().iter(), &flow));
                prop_assert_eq!(name(found, block.rules()), name(expected, block.rules()), "{:?}", flow);
            }
        }

        /// Checks that the first try succeeds, however rules overlap.
        #[test]
        fn tries_only_rules_that_cover_the_packet((rules, flows) in policy()) {
            let block = Block::new(rules.into());
            for flow in flows {
                for rule in block.tried(&flow).map(|at| &block.rules()[at]) {
                    let may_cover = rule.selector.covers_from(&flow) || rule.selector.cannot_tell(&flow);
                    prop_assert!(may_cover, "{:?}: {:?}", flow, rule);
                }
            }
        }
    }
}
