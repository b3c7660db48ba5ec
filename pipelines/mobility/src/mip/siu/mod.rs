//! The security information update (SIU): by it a home agent tells a gateway of a terminal's new care-of address,
//! and has it forward the reply to the terminal's registration. Specified byte by byte in `docs/siu.md`.
//!
//! ```text
//! home agent                                     gateway
//!   Sender::update ──── update, reply inside ───► Receiver::receive ─► the link moves, the reply is forwarded
//!   Sender::receive ◄────── acknowledgement ─────────────┘
//! ```
//!
//! The home agent numbers its updates, and the gateway names the series of their numbers. So either of them knows
//! old messages, whichever of them has been restarted.

mod message;
mod receiver;
mod sender;

#[cfg(test)]
mod tests;

pub use message::{Acknowledgement, Head, Malformed, SharedKey, Status, UDP_PORT, Update};
pub use receiver::{Outcome, Receiver};
pub use sender::{Event, Sender, Settings};
