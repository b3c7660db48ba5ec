//! The simulated world around a gateway, for benchmarks, the demonstration, tests and the fuzzer.
//!
//! | module | contents |
//! |---|---|
//! | [`random`] | pseudo-random numbers from one seed |
//! | [`nat`] | a NAT with the properties that RFC 4787 names |
//! | [`mutation`] | mutations of valid input |
//! | [`cable`] | loss, repetition, delay and reordering |
//! | [`disturbance`] | disturbances of a fleet, and a model of the state that must follow |
//! | [`networks`] | the networks that terminals are attached to, and move between |
//! | [`addresses`] | addresses of the numbered terminals of benchmarks and the demonstration |
//! | [`fixtures`] | addresses, and a configuration, tunnels and ports with defaults |
//! | [`frames`] | packets and frames, and a neighbour's answers |
//! | [`esp`] | sealing and opening of ESP packets |
//! | [`terminal`] | a terminal's end of a tunnel |
//! | [`world`] | the whole gateway, turned by hand in virtual time |
//! | [`lone_worker`] | a worker without a slow path, whose tables its owner changes |
//! | [`ike`] | terminals' IKE |
//! | [`fuzz`] | fuzz targets |
//! | [`files`] | short-lived files |
//!
//! An error here is a mistake of the caller, so most functions panic.

pub mod addresses;
pub mod cable;
pub mod disturbance;
pub mod esp;
pub mod files;
pub mod fixtures;
pub mod frames;
pub mod fuzz;
pub mod ike;
pub mod lone_worker;
pub mod mutation;
pub mod nat;
pub mod networks;
pub mod random;
pub mod terminal;
pub mod world;
