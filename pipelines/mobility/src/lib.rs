//! Wayfarer's control protocols as pure state machines: `handle_*` in, `poll_*` out. Time is an
//! argument, counted from any fixed point; randomness is a source that the driver gives; nothing
//! here does I/O or reads a clock.
//!
//! The ground, on which every protocol stands and which knows none of them:
//!
//! | module | what |
//! |---|---|
//! | [`crypto`] | algorithms, randomness, and what is needed of cryptography |
//! | [`identity`] | who somebody is |
//! | [`aaa`] | proofs of that by EAP, with or without a RADIUS server |
//! | [`path`], [`transmit`] | where a peer is; what is sent there |
//! | [`task`], `task_queue` | work that takes longer than a message may wait, and whose turn it is |
//! | [`retransmission`] | when a request is sent again |
//! | [`roaming`] | whether a peer that shows up at a new address is followed |
//! | `rate`, `fair_queue` | how often something may be done; who makes room for others |
//!
//! The protocols, none of which knows another:
//!
//! | module | what |
//! |---|---|
//! | [`ike`] | IKEv2 with MOBIKE |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod aaa;
pub mod crypto;
mod fair_queue;
pub mod identity;
pub mod ike;
pub mod path;
mod rate;
pub mod retransmission;
pub mod roaming;
pub mod task;
mod task_queue;
pub mod transmit;
