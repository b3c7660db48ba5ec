//! Home agents as `show home-agents` gives them.

use serde::{Deserialize, Serialize};

/// A home agent whose updates move links, and what has become of its datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeAgentView {
    /// Its name.
    pub name: String,
    /// The address that its updates come from.
    pub address: String,
    /// Updates that were carried out.
    pub done: u64,
    /// Refused updates: there is no such link.
    pub unknown_link: u64,
    /// Refused updates: the link or the address is not the terminal's, or follows another home agent.
    pub refused: u64,
    /// Refused updates: the terminal has not been seen at the new address.
    pub unreachable: u64,
    /// Updates for which nothing was to be done: repetitions, and those too late or of another series of numbers.
    pub answered_only: u64,
    /// Datagrams that were dropped because they are no updates, or were not made with the shared key.
    pub malformed: u64,
    /// The links that follow it, by home address.
    pub links: Vec<FollowerView>,
}

/// A link that follows a home agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerView {
    /// Name of its tunnel.
    pub tunnel: String,
    /// The terminal's home address.
    pub home: String,
    /// The care-of address that the home agent has named last, if it has named one.
    pub care_of: Option<String>,
    /// The path to the terminal, if one is known.
    pub path: Option<String>,
}

/// Where a terminal of the gateway's own home agent is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BindingView {
    /// The terminal's home address.
    pub home: String,
    /// The care-of address.
    pub care_of: String,
    /// `ipip`, `gre` or `minimal`.
    pub encapsulation: String,
    /// True if packets from the terminal may come by the tunnel.
    pub reverse_tunnel: bool,
    /// Seconds until it ends; none if it does not.
    pub ends_in_s: Option<f64>,
}
