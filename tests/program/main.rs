//! The program and its scripts, run as a user runs them.

#[cfg(feature = "bench")]
mod bench;
mod cli;
#[cfg(feature = "bench")]
mod demo;
mod dpdk_setup;
mod imports;
