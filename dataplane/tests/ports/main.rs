//! Ports against the running kernel: network namespaces made for each test, with veth pairs between them.
//!
//! Needs root, and iproute2 and ethtool.

mod af_packet;
mod af_xdp;
mod allocation;
mod classifier;
mod frames;
mod open;
mod tap;
mod traffic;
mod world;
