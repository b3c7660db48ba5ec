//! The way of a packet through the gateway. Start at [`worker`].
//!
//! ```text
//! port ─► flows: those that are remembered, all the way ─► port
//!      └► classify ─┬─► inbound:  look up SA ─► open ─► decapsulate ─► forward ─► port
//!                   ├─► plain_fragments, reassembly: fragments for the gateway ─► (classified again)
//!                   ├─► policy_fragments: those that policy judges together ─► (outbound)
//!                   ├─► outbound: policy ─► encapsulate ─► seal ─► route ───────► port
//!                   ├─► care_of: packets to home addresses ─► (outbound), and from tunnels to the home agent
//!                   ├─► nat: packets to its address ─► (policy, as from outside)
//!                   ├─► punt ring ─► slow path ─► inject ring ─► (worker again)
//!                   └─► exception: frames to the kernel by a TAP device, and back
//! ```

mod admission;
pub mod batch;
pub mod binding;
mod care_of;
pub mod classify;
pub mod counters;
pub mod decapsulate;
mod deliver;
pub mod departure;
mod dummy;
pub mod encapsulate;
pub mod exception;
pub mod flows;
pub mod forward;
pub mod fragment;
pub mod inbound;
mod inner_packet;
pub mod input_port;
pub mod io;
pub mod kernel_side;
mod keyed_hash;
mod long;
pub mod nat;
pub mod outbound;
mod plain_fragments;
pub mod policy;
mod policy_fragments;
pub mod profile;
pub mod reassembly;
pub mod rings;
mod seal;
pub mod share;
pub mod tables;
pub mod worker;
