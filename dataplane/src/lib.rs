//! Mechanism of Wayfarer's fast path. What happens to a packet is decided in the `wayfarer` package; here is what it
//! is done with.
//!
//! | module | what |
//! |---|---|
//! | [`packet`], [`pool`] | frames and bursts of them; a worker's own arena |
//! | [`port`] | where packets come from and go to |
//! | [`crypto`] | ESP algorithms over a burst |
//! | [`window`] | which sequence numbers an SA has accepted |

#![deny(unsafe_op_in_unsafe_fn)]

pub mod crypto;
pub mod packet;
pub mod pool;
pub mod port;
pub mod window;
