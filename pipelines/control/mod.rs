//! The control socket: how people and programs talk to a running gateway.

pub mod protocol;
