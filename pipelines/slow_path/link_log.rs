//! The log's lines about links with keys by hand. `ike/log.rs` has those about IKE's peers.

use super::{
    line_limit::LineLimit,
    tunnels::{MoveError, Tunnel},
};
use std::time::Duration;
use tracing::{field::display, info, warn};
use wayfarer_dataplane::sa::Path;

/// A move of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    /// How it became known: `by_hand` or `seen`.
    pub(super) cause: &'static str,
    /// The path before, if one was known.
    pub(super) from: Option<Path>,
    /// The new path.
    pub(super) to: Path,
}

impl Move {
    /// Logs that the link of `tunnel` has moved, or why it has not.
    pub(super) fn log(
        &self,
        now: Duration,
        limit: &mut LineLimit,
        tunnel: &str,
        result: Result<(), MoveError>,
    ) {
        let Some(left_out) = limit.admits(now) else { return };
        let Self { cause, from, to } = self;
        let ([_, peer], cause, from) = (to.ends(), display(cause), from.map(display));
        match result {
            Ok(()) if from.is_none() => info!(name: "peer_found", %peer, tunnel, %to, left_out, "peer found"),
            Ok(()) => info!(name: "peer_moved", %peer, tunnel, cause, from, %to, left_out, "peer moved"),
            Err(reason) => {
                info!(name: "peer_not_followed", %peer, tunnel, cause, from, %to, %reason, left_out, "peer not followed");
            }
        }
    }
}

/// Logs that a limit of SAs was reached.
pub(super) fn due(tunnel: &Tunnel, which: &str, what: &str) {
    let peer = tunnel.path().map(|path| display(path.ends()[1].clone()));
    warn!(name: "limit_reached", peer, tunnel = &*tunnel.name, "{which}: {what} reached");
}

/// Logs that a router on the path of `tunnel`'s link takes outer packets of `mtu` bytes at most.
pub(super) fn path_mtu(tunnel: &Tunnel, mtu: u16, left_out: Option<u64>) {
    let peer = tunnel.path().map(|path| display(path.ends()[1].clone()));
    info!(name: "path_mtu", peer, tunnel = &*tunnel.name, mtu, left_out, "a router on the path has a smaller MTU");
}

/// Logs that probes have found what outer packets the path of `tunnel`'s link takes.
pub(super) fn probed_mtu(tunnel: &Tunnel, left_out: Option<u64>) {
    let peer = tunnel.path().map(|path| display(path.ends()[1].clone()));
    let mtu = tunnel.mtu();
    info!(name: "path_mtu", peer, tunnel = &*tunnel.name, mtu, left_out, "probes have found the MTU of the path");
}

/// Logs that the peer of `tunnel`'s link does not answer probes.
pub(super) fn no_answers(tunnel: &Tunnel, left_out: Option<u64>) {
    let peer = tunnel.path().map(|path| display(path.ends()[1].clone()));
    info!(
        name: "path_mtu_unknown", peer, tunnel = &*tunnel.name, left_out,
        "the peer answers no probes of the path's MTU: set the tunnel's `mtu` if the path takes less than the port"
    );
}

/// Logs that IPv6 packets may need outer fragments in a tunnel, which has `room` for so many bytes.
pub(super) fn no_room_for_ipv6(tunnel: &Tunnel, room: usize) {
    warn!(
        name: "mtu_too_small",
        tunnel = &*tunnel.name,
        room,
        "the path's MTU leaves less than the 1280 bytes that IPv6 needs, so longer packets of IPv6 go in fragments"
    );
}
