//! One simulated world: what benchmarks, the demonstration, tests and the fuzzer have around a
//! gateway.
//!
//! | module | what |
//! |---|---|
//! | [`random`] | pseudo-random numbers from one seed |
//! | [`nat`] | a NAT as RFC 4787 names its properties |
//! | [`mutation`] | input that is almost right |
//! | [`cable`] | loss, repetition, delay and reordering |
//! | [`disturbance`] | what happens to a fleet, and a model of what must come of it |
//! | [`addresses`] | where the numbered terminals of benchmarks and the demonstration are |
//! | [`fixtures`] | addresses, and a configuration, tunnels and ports with defaults |
//! | [`frames`] | packets and frames, and the answers of a neighbour |
//! | [`esp`] | seals and opens ESP packets |
//! | [`terminal`] | the other end of a tunnel |
//! | [`world`] | the whole gateway, turned by hand in virtual time |
//! | [`ike`] | the other end of IKE |
//! | [`fuzz`] | what is fuzzed |
//! | [`files`] | files that are gone as soon as they were read |
//!
//! What goes wrong here is a fault of who uses it, so most of it panics.

pub mod addresses;
pub mod cable;
pub mod disturbance;
pub mod esp;
pub mod files;
pub mod fixtures;
pub mod frames;
pub mod fuzz;
pub mod ike;
pub mod mutation;
pub mod nat;
pub mod random;
pub mod terminal;
pub mod world;
