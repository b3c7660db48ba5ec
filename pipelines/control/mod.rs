//! The control socket: how people and programs talk to a running gateway.

pub mod client;
pub mod protocol;
pub mod server;

/// Where the socket is unless a configuration says otherwise.
pub const SOCKET: &str = "/run/wayfarer/gateway.sock";
