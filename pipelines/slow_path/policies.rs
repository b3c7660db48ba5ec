//! The slow path's changes to policy. All changes to the rules of one prefix take effect together.

use super::table_writer::TableWriter;
use crate::gateway::policy::{Action, Draft, Rule, Rules};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use wayfarer_dataplane::{
    sa::{OutboundSa, Selector, TunnelId},
    table::Prefix,
};

/// Adds `policies`, each after the rules of the same rank.
pub(super) fn add(policies: impl IntoIterator<Item = Rule>, tables: &mut TableWriter) {
    for (prefix, new) in by_prefix(policies) {
        change(prefix, tables, |rules| rules.with_policies(|draft| insert_after(draft, new)));
    }
}

/// Sends traffic that matches `selectors` by `sa`: before the `older` tunnels with the same selectors,
/// so that it takes their place among the rules of others.
pub(super) fn protect(
    sa: &Arc<OutboundSa>,
    selectors: &[Selector],
    older: &[TunnelId],
    tables: &mut TableWriter,
) {
    let rule = |selector: &Selector| Rule { selector: selector.clone(), action: Action::Protect(sa.clone()) };
    let is_older = |rule: &Rule| rule.tunnel().is_some_and(|id| older.contains(&id));
    for (prefix, new) in by_prefix(selectors.iter().map(rule)) {
        change(prefix, tables, |rules| {
            rules.with_tunnels(|draft| {
                for rule in new {
                    let selector = rule.selector.clone();
                    let gives_way = |rule: &Rule| is_older(rule) && rule.selector == selector;
                    if let Err(rule) = draft.insert_before(rule, gives_way) {
                        insert_after(draft, vec![rule]);
                    }
                }
            })
        });
    }
}

/// Drops traffic that matches `selector` and no tunnel. The guard precedes all policies of the same
/// rank.
pub(super) fn add_guard(selector: Selector, tables: &mut TableWriter) {
    let (prefix, rank) = (selector.remote, selector.rank.remote);
    let guard = Rule { selector, action: Action::Guard };
    change(prefix, tables, |rules| {
        rules.with_policies(|rules| rules.insert(guard, |old| old.selector.rank.remote > rank))
    });
}

/// Removes the rules of a tunnel with these `selectors`.
pub(super) fn unprotect(id: TunnelId, selectors: &[Selector], tables: &mut TableWriter) {
    for prefix in prefixes(selectors) {
        let others = |rules: &mut Draft<'_>| rules.remove(|rule| rule.tunnel() == Some(id));
        change(prefix, tables, |rules| rules.with_tunnels(others));
    }
}

/// Returns the rule of a tunnel that goes before those of all others for `prefix`, whatever else its
/// selector asks for.
pub(super) fn first_tunnel(prefix: Prefix, tables: &TableWriter) -> Option<&Rule> {
    let TableWriter { tables, reader, .. } = tables;
    let wider = |length| Prefix::new(prefix.address(), length);
    let first = |prefix| tables.policies.get(prefix, reader)?.first_tunnel();
    let rank = |rule: &Rule| rule.selector.rank.remote;
    let all = (0..=prefix.length()).rev().filter_map(wider).filter_map(first);
    all.reduce(|best, wider| if rank(wider) > rank(best) { wider } else { best })
}

/// Drops traffic that matches the rules of an expired tunnel with these `selectors`, so that no
/// wider policy sends it unencrypted.
pub(super) fn expire(id: TunnelId, selectors: &[Selector], tables: &mut TableWriter) {
    let end = |rules: &mut Draft<'_>| {
        rules.update(|rule| rule.tunnel() == Some(id), |rule| rule.action = Action::Ended(id));
    };
    for prefix in prefixes(selectors) {
        change(prefix, tables, |rules| rules.with_tunnels(end));
    }
}

/// Adds each new rule after those of the same rank.
fn insert_after(rules: &mut Draft<'_>, new: Vec<Rule>) {
    for rule in new {
        let rank = rule.selector.rank.remote;
        rules.insert(rule, |old| old.selector.rank.remote >= rank);
    }
}

fn by_prefix(rules: impl IntoIterator<Item = Rule>) -> BTreeMap<Prefix, Vec<Rule>> {
    let mut by_prefix: BTreeMap<Prefix, Vec<Rule>> = BTreeMap::new();
    for rule in rules {
        by_prefix.entry(rule.selector.remote).or_default().push(rule);
    }
    by_prefix
}

/// Returns the prefixes of `selectors` on the peer's side.
pub(super) fn prefixes(selectors: &[Selector]) -> BTreeSet<Prefix> {
    selectors.iter().map(|selector| selector.remote).collect()
}

/// Replaces the rules of `prefix` at once.
fn change(prefix: Prefix, tables: &mut TableWriter, to: impl FnOnce(&Rules) -> Rules) {
    let TableWriter { tables, writer, reader } = tables;
    let rules = to(tables.policies.get(prefix, reader).unwrap_or(&Rules::default()));
    if rules.is_empty() {
        tables.policies.remove(writer, prefix);
    } else {
        tables.policies.insert(writer, prefix, rules);
    }
}
