//! Wayfarer's control protocols as pure state machines: `handle_*` in, `poll_*` out. Time is an argument, counted from
//! any fixed point; nothing here does I/O, reads a clock or draws a random number.
//!
//! | module | what |
//! |---|---|
//! | [`ike`] | IKEv2 with MOBIKE |
//! | [`radius`] | what asks another server who a peer is |
//! | [`roaming`] | whether a peer that shows up at a new address is followed |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod crowd;
pub mod ike;
pub mod radius;
pub mod roaming;
