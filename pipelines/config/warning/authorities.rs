//! Authorities that are not named to peers, because there are too many.

use super::review::Review;
use std::collections::HashSet;
use toml::Spanned;
use wayfarer_mobility::ike::{bounds, connection::RemoteAuth};

/// Bytes of an authority's hash (RFC 7296 §3.7).
const HASH: usize = 20;

pub(super) fn review(review: &mut Review<'_>) {
    let (raw, config) = (review.raw, review.config);
    let kex = config.ike.connections.iter().flat_map(|connection| &connection.protocol.ike);
    let room: Vec<usize> = kex.flat_map(|offer| &offer.kex).map(|kex| bounds::authorities(*kex)).collect();
    let (Some(least), Some(most)) = (room.iter().min(), room.iter().max()) else { return };
    let mut named: HashSet<[u8; HASH]> = HashSet::new();
    for (raw, connection) in raw.connection.iter().zip(&config.ike.connections) {
        let RemoteAuth::Key(verifier) = &connection.protocol.remote_auth else { continue };
        named.extend(verifier.authorities().as_chunks::<HASH>().0);
        if named.len() > *least {
            let raw = raw.get_ref();
            let place = raw.authorities.as_ref().map_or_else(|| raw.name.span(), Spanned::span);
            let text = format!(
                "{} authorities so far, but the answer to IKE_SA_INIT has room to name {least} to {most} of them, \
                 depending on the key exchange: it names the first ones of the first connections, and a peer may not \
                 use a certificate of another",
                named.len()
            );
            return review.warn("connection.authorities", place, text);
        }
    }
}
