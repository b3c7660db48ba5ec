//! Guards: traffic to peers that must not leave unencrypted while no peer is connected.

use super::prefixes::{pool_ranks, prefixes};
use crate::{
    config::model,
    slow_path::{policies, table_writer::TableWriter},
};
use std::{collections::BTreeSet, net::IpAddr};
use wayfarer_dataplane::{
    sa::{Rank, Selector},
    table::Prefix,
};

/// The guards in the tables.
#[derive(Debug, Default)]
pub(super) struct Guards(BTreeSet<Guarded>);

/// Remote addresses, and the length of the prefix by which their guard is ranked.
type Guarded = (Prefix, u8);

impl Guards {
    /// Replaces the guards by those of `config`. Those of both stay all the while.
    pub(super) fn replace(&mut self, config: &model::Ike, tables: &mut TableWriter) {
        let new: BTreeSet<Guarded> = guarded(config).collect();
        for selector in new.difference(&self.0).copied().filter_map(selector) {
            policies::add_guard(selector, tables);
        }
        for selector in self.0.difference(&new).copied().filter_map(selector) {
            policies::remove_guard(&selector, tables);
        }
        self.0 = new;
    }
}

/// Returns IKE peers' inner addresses, to which nothing is sent while no SA protects it: the addresses
/// of pools, and those behind peers that we connect to.
fn guarded(config: &model::Ike) -> impl Iterator<Item = Guarded> {
    let pools = config.pools.iter().flat_map(|pool| {
        let ranks = pool_ranks(pool.first, pool.last);
        let rank = move |prefix: &Prefix| ranks.iter().find(|rank| rank.contains(prefix.address())).copied();
        let all = prefixes(pool.first, pool.last).into_iter();
        all.map(move |prefix| (prefix, rank(&prefix).unwrap_or(prefix).length()))
    });
    let dialled = config.connections.iter().map(|c| &c.protocol).filter(|c| c.remote.is_some());
    let remote = dialled.flat_map(|c| &c.children).flat_map(|child| &child.remote);
    let remote = remote.flat_map(|selector| prefixes(selector.start, selector.end));
    pools.chain(remote.map(|prefix| (prefix, prefix.length())))
}

/// Returns the selector of a guard.
fn selector((remote, rank): Guarded) -> Option<Selector> {
    let any = if remote.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let rank = Rank { local: 0, remote: rank, is_narrowed: rank < remote.length() };
    Some(Selector { rank, ..Selector::configured(Prefix::new(any, 0)?, remote) })
}
