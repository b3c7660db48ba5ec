//! Peers that no route leads to.

use super::review::Review;
use crate::config::model::Remote;
use std::net::IpAddr;

pub(super) fn review(review: &mut Review<'_>) {
    let (raw, config) = (review.raw, review.config);
    if config.gateway.kernel_routes {
        return;
    }
    let tunnels = raw.tunnel.iter().zip(&config.tunnels).filter(|(_, tunnel)| tunnel.remote == Remote::Any);
    let tunnels =
        tunnels.map(|(raw, tunnel)| ("tunnel.remote", raw.get_ref().remote.span(), vec![tunnel.local]));
    let connections = raw.connection.iter().zip(&config.ike.connections);
    let connections = connections.filter(|(_, connection)| !connection.protocol.is_dialled());
    let connections = connections.map(|(raw, connection)| {
        let raw = raw.get_ref();
        let place = raw.remote.as_ref().map_or_else(|| raw.name.span(), toml::Spanned::span);
        ("connection.remote", place, connection.protocol.local.clone())
    });
    let all: Vec<_> = tunnels.chain(connections).collect();
    for (v4, everything) in [(true, "0.0.0.0/0"), (false, "::/0")] {
        let has_default = config.routes.iter().any(|r| r.to.length() == 0 && r.to.is_ipv4() == v4);
        let first = all.iter().find(|(.., local)| local.iter().any(|own: &IpAddr| own.is_ipv4() == v4));
        if let Some((key, place, _)) = first.filter(|_| !has_default) {
            let text = format!(
                "the peer may be anywhere, but no default route leads to it: add a [[route]] with to = \
                 \"{everything}\", or routes = \"kernel\" in [gateway]"
            );
            review.warn(key, place.clone(), text);
        }
    }
}
