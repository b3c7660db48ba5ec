//! Guards: traffic to peers that must not leave unencrypted while no peer is connected.
//!
//! A guard stays until the next start: after a reload, peers may keep addresses that the
//! configuration no longer has, and traffic to these must not leave unencrypted once such a peer
//! has gone.

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
    /// Adds the guards of `config`.
    pub(super) fn add(&mut self, config: &model::Ike, tables: &mut TableWriter) {
        let new = guarded(config).filter(|guarded| self.0.insert(*guarded));
        new.filter_map(selector).for_each(|selector| policies::add_guard(selector, tables));
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
    let dialled = config.connections.iter().map(|c| &c.protocol).filter(|c| c.is_dialled());
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
