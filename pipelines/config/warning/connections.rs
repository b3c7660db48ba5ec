//! Connections that no peer reaches, because an earlier one takes them all; and RADIUS clients that
//! have a say about no connection.

use super::review::Review;
use crate::config::model::{Connection, PeerMethod};

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
        && b.ike.iter().all(|offer| a.ike.iter().any(|earlier| earlier.covers(offer)))
}
