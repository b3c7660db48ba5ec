//! What a valid configuration may still get wrong.
//!
//! | module | contents |
//! |---|---|
//! | [`Warning`] | a warning, and how they are collected |
//! | `tunnels` | selectors and keys of several tunnels |
//! | `routes` | peers that no route leads to |
//! | `connections` | connections that no peer reaches, or with each other's algorithms; RADIUS clients that reach none |
//! | `certificates` | the gateway's own certificates |
//! | `authorities` | authorities that peers do not hear of |
//! | `secrets` | secrets that everybody knows |
//! | `machine` | devices, cores and programs of this machine |

mod authorities;
mod certificates;
mod connections;
mod machine;
mod review;
mod routes;
mod secrets;
mod tunnels;

pub use review::Warning;

use super::{file::File, model::Config, source::Source};
use review::Review;

/// Returns the warnings about the configuration and its files.
pub(super) fn of_file(source: &Source<'_>, raw: &File, config: &Config) -> Vec<Warning> {
    Review::new(source, raw, config)
        .by(tunnels::same_keys)
        .by(tunnels::overlaps)
        .by(routes::review)
        .by(connections::review)
        .by(secrets::review)
        .by(authorities::review)
        .finish()
}

/// Returns the warnings about the gateway's own certificates.
pub(super) fn of_certificates(source: &Source<'_>, raw: &File, config: &Config) -> Vec<Warning> {
    Review::new(source, raw, config).by(certificates::review).finish()
}

/// Returns the warnings about running the configuration on this machine.
pub(super) fn of_machine(source: &Source<'_>, raw: &File, config: &Config) -> Vec<Warning> {
    Review::new(source, raw, config).by(machine::review).finish()
}
