//! Connections that no peer reaches, because an earlier one takes them all; those whose peers may begin
//! with other algorithms than these have; and RADIUS clients that have a say about no connection.

use super::review::Review;
use crate::config::{
    file::Connection as RawConnection,
    model::{Connection, PeerMethod},
};
use std::ops::Range;
use toml::Spanned;
use wayfarer_mobility::ike::{
    bounds,
    connection::{Remote, RemoteAuth},
    proposal::Offer,
};

/// Bytes of an authority's hash (RFC 7296 §3.7).
const HASH: usize = 20;

pub(super) fn review(review: &mut Review<'_>) {
    let (raw, config) = (review.raw, review.config);
    let all: Vec<_> = raw.connection.iter().zip(&config.ike.connections).collect();
    for (index, (raw, connection)) in all.iter().enumerate() {
        if let Some((first, _)) = all[..index].iter().find(|(_, earlier)| takes_all(earlier, connection)) {
            let name = first.get_ref().name.get_ref();
            let line = review.source.line(&first.get_ref().name.span());
            let text = format!(
                "connection {name:?} of line {line} takes every peer that could come here: set remote_id in one of \
                 them, or different addresses in local"
            );
            review.warn("connection.name", raw.get_ref().name.span(), text);
        }
    }
    for (raw, connection) in &all {
        let shares = |(_, other): &&(_, &Connection)| begins_without(connection, other);
        if let Some((other, _)) = all.iter().find(shares) {
            let name = other.get_ref().name.get_ref();
            let line = review.source.line(&other.get_ref().name.span());
            let text = format!(
                "a peer may begin without the additional key exchange of the first proposal, and do it by a rekey \
                 at once: connection {name:?} of line {line} is for the same addresses, and its first proposal has \
                 none; put the same proposal first in both, or set different addresses"
            );
            review.warn("connection.proposals", proposals(raw.get_ref()), text);
        }
    }
    let mut lists: Vec<&[_]> = vec![];
    for (raw, connection) in &all {
        if !lists.contains(&&connection.protocol.ike[..]) {
            lists.push(&connection.protocol.ike);
        }
        if lists.len() > bounds::LISTS {
            let text = format!(
                "more than {} different lists: of those that fit a peer's first message, only the first so many \
                 count; give more connections the same list",
                bounds::LISTS
            );
            review.warn("connection.proposals", proposals(raw.get_ref()), text);
            break;
        }
    }
    let clients = raw.coa.iter().flat_map(|coa| coa.get_ref().clients.get_ref());
    let known = config.ike.coa.iter().flat_map(|coa| &coa.clients);
    for (raw, client) in clients.zip(known) {
        if !config.ike.connections.iter().any(|connection| connection.servers.contains(&client.address)) {
            let text = "no connection has this address in \"radius\", so all requests from it are refused: list \
                        the connections that it has a say about in \"connections\"";
            review.warn("coa.clients.address", raw.address.span(), text);
        }
    }
}

/// Returns the place of a connection's proposals, or of its name.
fn proposals(raw: &RawConnection) -> Range<usize> {
    raw.proposals.as_ref().map_or_else(|| raw.name.span(), Spanned::span)
}

/// Returns true if a peer of a connection may begin without the additional key exchange that it prefers,
/// because it could be a peer of `other`, which prefers none.
fn begins_without(connection: &Connection, other: &Connection) -> bool {
    let (a, b) = (&connection.protocol, &other.protocol);
    let has_more = |offers: &[Offer]| offers.first().is_some_and(|offer| !offer.more_kex.is_empty());
    let is_anywhere =
        |remote: &[Remote]| remote.is_empty() || remote.iter().any(|end| matches!(end, Remote::Named(..)));
    let meets = |end: &Remote| {
        let ip = |end: &Remote| match end {
            Remote::At(end) => Some(end.ip()),
            Remote::Named(..) => None,
        };
        b.remote.iter().any(|other| ip(other).is_some() && ip(other) == ip(end))
    };
    has_more(&a.ike)
        && !has_more(&b.ike)
        && a.local.iter().any(|own| b.local.contains(own))
        && (is_anywhere(&a.remote) && is_anywhere(&b.remote) || a.remote.iter().any(meets))
}

/// Returns true if `earlier` trusts the authorities that `later` does. Others than these would take part
/// in the choice between them.
fn trusts_all(earlier: &RemoteAuth, later: &RemoteAuth) -> bool {
    match (earlier, later) {
        (RemoteAuth::Key(a), RemoteAuth::Key(b)) => {
            let [a, b] = [a, b].map(|verifier| verifier.authorities().as_chunks::<HASH>().0);
            b.iter().all(|authority| a.contains(authority))
        }
        _ => true,
    }
}

/// Returns true if `earlier` accepts any identity and all algorithms that `later` does, and peers
/// come to it in the same way.
fn takes_all(earlier: &Connection, later: &Connection) -> bool {
    let (a, b) = (&earlier.protocol, &later.protocol);
    let has_eap = |method| matches!(method, PeerMethod::Password | PeerMethod::EapTls | PeerMethod::Radius);
    let (one, other) = (earlier.peer_method, later.peer_method);
    !a.remote_id.is_named()
        && !b.remote_id.is_named()
        && a.remote == b.remote
        && b.local.iter().all(|own| a.local.contains(own))
        && (one == other || has_eap(one) && has_eap(other))
        && trusts_all(&a.remote_auth, &b.remote_auth)
        && b.ike.iter().all(|offer| a.ike.iter().any(|earlier| earlier.covers(offer)))
}
