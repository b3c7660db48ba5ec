//! Keeps the host's own traffic that tunnels should carry from passing in clear.

use super::Links;
use crate::barrier::SharedBarrier;

impl Links {
    /// Has a barrier, or none, hear of the tunnels that come and go from now on.
    pub(in crate::slow_path) fn use_barrier(&mut self, barrier: Option<SharedBarrier>) {
        self.tunnels.barrier = barrier;
    }
}
