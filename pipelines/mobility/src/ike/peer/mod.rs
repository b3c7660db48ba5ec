//! One peer: its IKE SA, those that replace it, its child SAs and where it is.
//!
//! | module | what |
//! |---|---|
//! | `state` | what is known of it |
//! | `lifecycle` | answers and requests, what waits for its turn, its end |
//! | `responder`, `initiator` | the states of its handshake, from either side |
//! | `transcript` | what both sides said in it |
//! | `failure` | why it ends |
//! | `choose` | which connection holds for a peer that calls us |
//! | `creation` | CREATE_CHILD_SA exchanges under way |
//! | `move_check` | a move that it has not confirmed |
//! | `names` | who it is |
//! | `ike_sa` | an IKE SA and its window |
//! | `child`, `request` | child SAs; requests on their way |

pub(super) mod child;
pub(super) mod choose;
pub(super) mod creation;
pub(super) mod failure;
pub(super) mod ike_sa;
pub(super) mod initiator;
pub(super) mod lifecycle;
pub(super) mod move_check;
pub(super) mod names;
pub(super) mod request;
pub(super) mod responder;
pub(super) mod state;
pub(super) mod timers;
pub(super) mod transcript;

pub use state::State;
pub(super) use state::{Peer, Phase};
