//! IKE: passes messages, outcomes of tasks and timers to the protocol's state machine, and its
//! decisions to the links.
//!
//! | module | contents |
//! |---|---|
//! | `driver` | messages, timers and events, and how each is handled |
//! | `demands` | requests of RADIUS servers about connected peers |
//! | `datagram`, `sending` | messages in IP packets, and on their way out |
//! | `accounts` | records about peers for RADIUS servers |
//! | `child` | converts a negotiated child SA into a tunnel |
//! | `prefixes` | ranges of addresses as prefixes |
//! | `guard` | traffic that must not leave unencrypted while no peer is connected |
//! | `peers` | what is installed for each peer |
//! | `path_mtu` | the MTU of peers' paths, as probes find it |
//! | `moves` | moves by hand that the peer has not answered |
//! | `unconfirmed` | limits what is sent on unconfirmed paths |
//! | `inner`, `host`, `host_device` | inner addresses that gateways assign to us |
//! | `helpers`, `postponed` | threads for long tasks; tasks that wait for authorities |
//! | `dialling`, `resolver` | connects to peers; looks up host names |
//! | `log`, `failed` | lines about peers in the log; the last that did not connect |
//! | `crash_secret` | the secret of crash tokens, which survives a crash |
//! | `key_log` | keys for a protocol analyser |
//! | `view` | peers as the control socket shows them, and its commands |

mod accounts;
mod child;
mod crash_secret;
pub(crate) mod datagram;
mod demands;
mod dialling;
mod driver;
mod failed;
mod guard;
mod helpers;
mod host;
mod host_device;
mod inner;
mod key_log;
mod log;
mod moves;
mod path_mtu;
mod peers;
mod postponed;
pub(crate) mod prefixes;
mod resolver;
mod sending;
mod unconfirmed;
mod view;

pub(super) use driver::Ike;
pub(super) use view::PeerError;
