//! Connections that no peer reaches, because an earlier one takes them all.

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
}

/// Returns whether `earlier` accepts any identity, and peers come to it in the same way.
fn takes_all(earlier: &Connection, later: &Connection) -> bool {
    let (a, b) = (&earlier.protocol, &later.protocol);
    let has_eap = |method| matches!(method, PeerMethod::Password | PeerMethod::EapTls | PeerMethod::Radius);
    let (one, other) = (earlier.peer_method, later.peer_method);
    !a.remote_id.is_named()
        && !b.remote_id.is_named()
        && a.remote == b.remote
        && b.local.iter().all(|own| a.local.contains(own))
        && (one == other || has_eap(one) && has_eap(other))
}
