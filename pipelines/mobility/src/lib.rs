//! Wayfarer's control protocols as pure state machines: `handle_*` in, `poll_*` out. Time is an
//! argument, counted from any fixed point; the driver provides the source of randomness; nothing
//! here does I/O or reads a clock.
//!
//! Shared by all protocols, and knowing none of them:
//!
//! | module | contents |
//! |---|---|
//! | [`crypto`] | algorithms, randomness, and the interface to cryptography |
//! | [`identity`] | identities of peers |
//! | [`aaa`] | authentication by EAP, with or without a RADIUS server |
//! | [`path`], [`transmit`] | addresses of a peer; datagrams to send |
//! | [`path_mtu`], `mtu_search` | what is known of the MTU of a path, and what to try next |
//! | [`path_prober`] | finds it by probes that a peer without IKE answers |
//! | [`task`], `task_queue` | work that takes longer than a message may wait, and its order |
//! | [`retransmission`] | when a request is sent again |
//! | `fields` | reads messages |
//! | [`timers`] | when something is due, for each key |
//! | [`roaming`] | decides whether the gateway follows a peer to a new path |
//! | `rate`, [`fair_queue`] | limits how often something may be done; shares a limited resource fairly |
//!
//! The protocols, which do not depend on each other:
//!
//! | module | contents |
//! |---|---|
//! | [`ike`] | IKEv2 with MOBIKE |
//! | [`mip`] | Mobile IPv4: home agent and mobile node |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod aaa;
pub mod crypto;
mod distinguished_name;
pub mod fair_queue;
mod fields;
pub mod identity;
pub mod ike;
pub mod mip;
mod mtu_search;
pub mod path;
pub mod path_mtu;
pub mod path_prober;
pub mod rate;
pub mod retransmission;
pub mod roaming;
pub mod task;
mod task_queue;
pub mod timers;
pub mod transmit;
