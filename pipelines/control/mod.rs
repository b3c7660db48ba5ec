//! The control socket, by which people and programs talk to a running gateway.

pub mod client;
pub mod protocol;
pub mod server;

/// The socket's path, unless the configuration sets another one.
pub const SOCKET: &str = "/run/wayfarer/gateway.sock";
