//! Tests of the whole gateway on memory ports, by the frames and counters that come out.

mod allocation;
mod bad_input;
mod control;
mod devices;
mod exception;
mod forwarding;
mod fragments;
mod fuzz_corpus;
mod icmp;
mod links;
mod log;
mod named_attacks;
mod nat;
mod outer_fragments;
mod path_mtu;
mod peer_commands;
mod policy;
mod radius;
mod renewals;
mod replay;
mod roaming;
mod size;
mod storms;
mod tunnels;
mod vlans;
mod workers;
