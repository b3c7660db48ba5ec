//! The program and its scripts, run as a user runs them.

mod bench;
mod cli;
mod demo;
mod dpdk_setup;
