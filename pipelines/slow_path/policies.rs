//! The slow path's changes to policy. All changes to the rules of one prefix take effect together.

use super::table_writer::TableWriter;
use crate::gateway::policy::{Action, Draft, Rule, Rules};
use std::{collections::BTreeSet, sync::Arc};
use wayfarer_dataplane::{
    sa::{Flow, OutboundSa, Selector, TunnelId},
    table::Prefix,
};

/// Adds `policies`, each after the rules of the same rank.
pub(super) fn add(policies: impl IntoIterator<Item = Rule>, tables: &mut TableWriter) {
    for new in sorted(policies).chunk_by(share_prefix) {
        change(new[0].selector.remote, tables, |rules| rules.with_policies(|draft| insert_after(draft, new)));
    }
}

/// Adds these rules of tunnels, each after the tunnels' rules of the same rank. However many share a
/// prefix, its list of rules is made once.
pub(super) fn protect_all(rules: impl IntoIterator<Item = Rule>, tables: &mut TableWriter) {
    for new in sorted(rules).chunk_by(share_prefix) {
        change(new[0].selector.remote, tables, |rules| rules.with_tunnels(|draft| insert_after(draft, new)));
    }
}

/// Returns the rules that send traffic that matches `selectors` by `sa`.
pub(super) fn rules_of(sa: &Arc<OutboundSa>, selectors: &[Selector]) -> impl Iterator<Item = Rule> {
    selectors
        .iter()
        .map(move |selector| Rule { selector: selector.clone(), action: Action::Protect(sa.clone()) })
}

/// Sends traffic that matches `selectors` by `sa`: before the `older` tunnels with the same selectors,
/// so that it takes their place among the rules of others.
pub(super) fn protect(
    sa: &Arc<OutboundSa>,
    selectors: &[Selector],
    older: &[TunnelId],
    tables: &mut TableWriter,
) {
    let is_older = |rule: &Rule| rule.tunnel().is_some_and(|id| older.contains(&id));
    for new in sorted(rules_of(sa, selectors)).chunk_by(share_prefix) {
        change(new[0].selector.remote, tables, |rules| {
            rules.with_tunnels(|draft| {
                for rule in new {
                    let gives_way = |old: &Rule| is_older(old) && old.selector == rule.selector;
                    if let Err(rule) = draft.insert_before(rule.clone(), gives_way) {
                        insert_after(draft, &[rule]);
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

/// Returns the rule of the tunnel that goes before all others that carry packets of this flow, or may.
pub(super) fn first_tunnel<'t>(outbound: &Flow, tables: &'t TableWriter) -> Option<&'t Rule> {
    let TableWriter { tables, reader, .. } = tables;
    let rank = |rule: &Rule| rule.selector.rank.remote;
    let mut best: Option<&Rule> = None;
    tables.policies.find_map(outbound.dst, reader, |rules| -> Option<()> {
        let found = rules.find_tunnel(outbound)?;
        if best.is_none_or(|longer| rank(found) > rank(longer)) {
            best = Some(found);
        }
        None
    });
    best
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
fn insert_after(rules: &mut Draft<'_>, new: &[Rule]) {
    for rule in new {
        let rank = rule.selector.rank.remote;
        rules.insert(rule.clone(), |old| old.selector.rank.remote >= rank);
    }
}

/// Returns `rules` sorted by their prefixes, and those of each prefix in the given order.
fn sorted(rules: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    let mut rules: Vec<_> = rules.into_iter().collect();
    rules.sort_by_key(|rule| rule.selector.remote);
    rules
}

fn share_prefix(one: &Rule, other: &Rule) -> bool {
    one.selector.remote == other.selector.remote
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
