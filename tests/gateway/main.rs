//! The whole gateway on memory ports: frames in, frames and counters out.

mod allocation;
mod bad_input;
mod control;
mod exception;
mod forwarding;
mod fuzz_corpus;
mod policy;
mod replay;
mod roaming;
mod size;
mod tunnels;
mod workers;
