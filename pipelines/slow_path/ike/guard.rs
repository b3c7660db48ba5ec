//! Guards: traffic to peers that must not leave unencrypted while no peer is connected.

use super::prefixes::{pool_ranks, prefixes};
use crate::config::model;
use std::net::IpAddr;
use wayfarer_dataplane::{
    sa::{Rank, Selector},
    table::Prefix,
};

/// Returns selectors of traffic to IKE peers' inner addresses, which is dropped while no SA
/// protects it: the addresses of pools, and those behind peers that we connect to.
pub(super) fn selectors(config: &model::Ike) -> impl Iterator<Item = Selector> {
    let pools = config.pools.iter().flat_map(|pool| {
        let ranks = pool_ranks(pool.first, pool.last);
        let rank = move |prefix: &Prefix| ranks.iter().find(|rank| rank.contains(prefix.address())).copied();
        let all = prefixes(pool.first, pool.last).into_iter();
        all.map(move |prefix| (prefix, rank(&prefix).unwrap_or(prefix).length()))
    });
    let dialled = config.connections.iter().map(|c| &c.protocol).filter(|c| c.remote.is_some());
    let remote = dialled.flat_map(|c| &c.children).flat_map(|child| &child.remote);
    let remote = remote.flat_map(|selector| prefixes(selector.start, selector.end));
    pools.chain(remote.map(|prefix| (prefix, prefix.length()))).filter_map(|(remote, rank)| {
        let any = if remote.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let rank = Rank { local: 0, remote: rank, is_narrowed: rank < remote.length() };
        Some(Selector { rank, ..Selector::configured(Prefix::new(any, 0)?, remote) })
    })
}
