//! How much an endpoint keeps.

/// Sizes of all state that is kept for peers. All are zero once the last peer is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSizes {
    /// Peers in any state.
    pub peers: usize,
    /// Peers that are not established.
    pub half_open: usize,
    /// SPIs of IKE SAs.
    pub spis: usize,
    /// SPIs of child SAs, reserved ones included.
    pub child_spis: usize,
    /// Pairs of child SAs.
    pub children: usize,
    /// Tasks that wait or run.
    pub tasks: usize,
    /// Entries of the indices by name.
    pub names: usize,
    /// Inner addresses in use.
    pub leases: usize,
    /// Connections of earlier configurations.
    pub earlier_connections: usize,
}
