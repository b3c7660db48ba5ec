//! Key exchange: carries messages, tasks and time to the protocol's state machine, and what it
//! decides to the links.
//!
//! | module | what |
//! |---|---|
//! | `driver` | messages, time and events; what becomes of each |
//! | `datagram` | messages in IP packets |
//! | `child` | from what was agreed on to a tunnel |
//! | `prefixes` | ranges of addresses as prefixes |
//! | `guard` | what must not leave in clear while no peer is there |
//! | `peers` | what is installed for each peer |
//! | `unconfirmed` | how much is sent to where a peer has not shown that it is |
//! | `inner`, `host` | inner addresses that we are given |
//! | `helpers` | threads for what takes long |
//! | `key_log` | keys for a protocol analyser |
//! | `view` | what the control socket is told, and wants |

mod child;
pub(crate) mod datagram;
mod driver;
mod guard;
mod helpers;
mod host;
mod inner;
mod key_log;
mod peers;
mod prefixes;
mod unconfirmed;
mod view;

pub(super) use driver::Ike;
pub(super) use view::NoPeer;
