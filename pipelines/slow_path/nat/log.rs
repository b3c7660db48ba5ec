//! The log's lines about NATs.

use crate::slow_path::line_limit::LineLimit;
use std::{net::IpAddr, time::Duration};
use tracing::warn;

/// Limits for the lines of one NAT, of each kind.
#[derive(Debug, Default)]
pub(super) struct Lines {
    full: LineLimit,
    limit: LineLimit,
}

impl Lines {
    /// Logs that no port is left.
    pub(super) fn full(&mut self, now: Duration, address: IpAddr, protocol: &str) {
        if let Some(left_out) = self.full.admits(now) {
            warn!(
                name: "nat_full", %address, protocol, left_out,
                "no port of a [[nat]] is left for new connections: give it more ports"
            );
        }
    }

    /// Logs that an inner address has as many mappings as it may.
    pub(super) fn limit(&mut self, now: Duration, inside: IpAddr, mappings: u32) {
        if let Some(left_out) = self.limit.admits(now) {
            warn!(
                name: "nat_limit", %inside, mappings, left_out,
                "an address inside of a [[nat]] has as many mappings as it may"
            );
        }
    }
}
