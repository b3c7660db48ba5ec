//! Ports against the running kernel: each test has its own network namespaces, with veth pairs
//! between them.
//!
//! Needs root, iproute2 and ethtool.

mod af_packet;
mod af_xdp;
mod allocation;
mod bare_ip;
mod classifier;
mod fragments;
mod frames;
mod interface;
mod nat;
mod open;
mod pcap;
mod tap;
mod traffic;
mod vlans;
mod world;
