//! A neighbour as `show neighbours` gives it.

use serde::{Deserialize, Serialize};

/// One station at a port, whose MAC address is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourView {
    /// Name of the port.
    pub port: String,
    /// The station's address.
    pub address: String,
    /// The station's MAC address.
    pub mac: String,
    /// `static` if the configuration has it, `learned` if the station has told it.
    pub origin: String,
}
