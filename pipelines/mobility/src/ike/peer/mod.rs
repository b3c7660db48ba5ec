//! One peer: its IKE SA, those that replace it, its child SAs and where it is.
//!
//! | module | what |
//! |---|---|
//! | `state` | what is known of it |
//! | `dispatch` | what messages and finished tasks lead to |
//! | `lifecycle` | answers and requests, what waits for its turn, its end |
//! | `respond`, `initiate` | until it is established, from either side |
//! | `responder`, `initiator` | what is known of it until then |
//! | `auth` | what both sides of IKE_AUTH share |
//! | `choose` | which connection holds for a peer that calls us |
//! | `creation` | CREATE_CHILD_SA exchanges under way |
//! | `move_check` | a move that it has not confirmed |
//! | `configure` | inner addresses and DNS |
//! | `names` | who it is |
//! | `ike_sa` | an IKE SA and its window |
//! | `child`, `request` | child SAs; requests on their way |

pub(super) mod auth;
pub(super) mod child;
pub(super) mod choose;
pub(super) mod configure;
pub(super) mod creation;
pub(super) mod dispatch;
pub(super) mod ike_sa;
pub(super) mod initiate;
pub(super) mod initiator;
pub(super) mod lifecycle;
pub(super) mod move_check;
pub(super) mod names;
pub(super) mod request;
pub(super) mod respond;
pub(super) mod responder;
pub(super) mod state;
pub(super) mod timers;

pub(super) use respond::InitRefused;
pub use state::State;
pub(super) use state::{Peer, Phase};
