//! The slow path's changes to policy: rules that come and go, each change of a prefix's rules as one.

use crate::gateway::{
    policy::{Action, Rule, Rules},
    tables::Tables,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use wayfarer_dataplane::{
    sa::{OutboundSa, Selector, TunnelId},
    table::{Prefix, Reader, Writer},
};

/// Adds rules in their order, each behind those of its rank, and a tunnel's before the policies of its rank.
pub(super) fn add(tables: &Tables, writer: &mut Writer, rules: impl IntoIterator<Item = Rule>) {
    insert(tables, writer, rules, |new, old| {
        let (new_rank, old_rank) = (new.selector.rank.remote, old.selector.rank.remote);
        let is_policy_behind = new.tunnel().is_some() && old.tunnel().is_none();
        new_rank > old_rank || (new_rank == old_rank && is_policy_behind)
    });
}

/// Leads what `selectors` cover to `sa`.
pub(super) fn protect(sa: &Arc<OutboundSa>, selectors: &[Selector], tables: &Tables, writer: &mut Writer) {
    let rule = |selector: &Selector| Rule { selector: selector.clone(), action: Action::Protect(sa.clone()) };
    add(tables, writer, selectors.iter().map(rule));
}

/// Drops what `selector` covers where no tunnel does: before any policy of the same prefix.
pub(super) fn add_guard(tables: &Tables, writer: &mut Writer, selector: Selector) {
    let guard = Rule { selector, action: Action::Discard };
    insert(tables, writer, [guard], |new, old| {
        let (new, rank) = (new.selector.rank.remote, old.selector.rank.remote);
        new > rank || (new == rank && old.tunnel().is_none())
    });
}

/// Takes away the rules of a tunnel, which has `selectors`.
pub(super) fn unprotect(
    id: TunnelId,
    selectors: &[Selector],
    tables: &Tables,
    writer: &mut Writer,
    reader: &Reader,
) {
    change(id, selectors, tables, writer, reader, |_| None);
}

/// Drops what the rules of a tunnel, which has `selectors`, lead to it: never does a wider policy send it in clear.
pub(super) fn expire(
    id: TunnelId,
    selectors: &[Selector],
    tables: &Tables,
    writer: &mut Writer,
    reader: &Reader,
) {
    let ended = |rule: &Rule| Some(Rule { selector: rule.selector.clone(), action: Action::Ended(id) });
    change(id, selectors, tables, writer, reader, ended);
}

/// Puts each of `rules` into those of its prefix, before the first old one that it `comes_before`.
fn insert(
    tables: &Tables,
    writer: &mut Writer,
    rules: impl IntoIterator<Item = Rule>,
    comes_before: impl Fn(&Rule, &Rule) -> bool,
) {
    let mut by_prefix: BTreeMap<Prefix, Vec<Rule>> = BTreeMap::new();
    for rule in rules {
        by_prefix.entry(rule.selector.remote).or_default().push(rule);
    }
    for (prefix, new) in by_prefix {
        let reader = writer.reader();
        let mut all = tables.policies.get(prefix, &reader).map(|r| r.to_vec()).unwrap_or_default();
        drop(reader);
        for rule in new {
            let at = all.iter().position(|old| comes_before(&rule, old)).unwrap_or(all.len());
            all.insert(at, rule);
        }
        tables.policies.insert(writer, prefix, all.into_iter().collect());
    }
}

/// Replaces each rule of a tunnel, which has `selectors`, by what `to` makes of it.
fn change(
    id: TunnelId,
    selectors: &[Selector],
    tables: &Tables,
    writer: &mut Writer,
    reader: &Reader,
    to: impl Fn(&Rule) -> Option<Rule>,
) {
    let prefixes: BTreeSet<Prefix> = selectors.iter().map(|selector| selector.remote).collect();
    for prefix in prefixes {
        let Some(rules) = tables.policies.get(prefix, reader) else { continue };
        let changed = |rule: &Rule| if rule.tunnel() == Some(id) { to(rule) } else { Some(rule.clone()) };
        let rules: Rules = rules.iter().filter_map(changed).collect();
        if rules.is_empty() {
            tables.policies.remove(writer, prefix);
        } else {
            tables.policies.insert(writer, prefix, rules);
        }
    }
}
