//! Where a peer that authenticates comes from.

use alloc::string::String;
use core::net::IpAddr;

/// Where a peer that authenticates comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the connection that was chosen for the identity that it claims.
    pub connection: String,
    /// Our address that it reached.
    pub local: IpAddr,
    /// Its outer address, at which it has received a message of ours.
    pub remote: IpAddr,
}
