//! One peer: its IKE SA and its successors, its child SAs and its path.
//!
//! | module | contents |
//! |---|---|
//! | `state` | the peer's state |
//! | `lifecycle` | responses and requests, queued requests, the end |
//! | `responder`, `initiator` | the states of the handshake, from either side |
//! | `transcript` | the signed part of the handshake |
//! | `failure` | failures of the handshake |
//! | `choose` | chooses the connection for a peer that connects to us |
//! | `creation` | CREATE_CHILD_SA exchanges in progress |
//! | `move_check` | a move that the peer has not confirmed |
//! | `upkeep`, `esp_check` | what NATs on the way make necessary; checks whether its packets come |
//! | `path_probe` | the requests that find the MTU of its path |
//! | `grant` | what a RADIUS server granted to the peer |
//! | `names` | the peer's names, owner and principal |
//! | `ike_sa` | an IKE SA, its life and its window |
//! | `succession`, `renewal` | the peers before and after it, when one side authenticates again |
//! | `child`, `request` | child SAs and their life; outstanding and queued requests |

pub(super) mod child;
pub(super) mod choose;
pub(super) mod creation;
mod esp_check;
pub(super) mod failure;
pub(super) mod grant;
pub(super) mod ike_sa;
pub(super) mod initiator;
pub(super) mod lifecycle;
mod missing;
pub(super) mod move_check;
pub(super) mod names;
mod path_probe;
mod renewal;
pub(super) mod request;
pub(super) mod responder;
pub(super) mod state;
pub(super) mod succession;
pub(super) mod timers;
pub(super) mod transcript;
pub(super) mod upkeep;

pub use state::State;
pub(super) use state::{Peer, Phase};
