//! Tests of the program and its scripts, run as a user would.

#[cfg(feature = "bench")]
mod bench;
mod cli;
#[cfg(feature = "bench")]
mod demo;
mod dpdk_setup;
mod imports;
#[cfg(feature = "bench")]
mod interrupt;
mod log;
mod pki;
mod reload;
#[cfg(feature = "bench")]
mod vlans;
