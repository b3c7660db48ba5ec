//! One peer: its IKE SA, those that replace it, its child SAs and where it is.
//!
//! | module | what |
//! |---|---|
//! | `state` | what is known of it |
//! | `dispatch` | what messages and finished tasks lead to |
//! | `lifecycle` | answers and requests, what waits for its turn, its end |
//! | `respond`, `initiate` | until it is established, from either side |
//! | `response`, `initiation` | what is known of it until then |
//! | `auth` | what both sides of IKE_AUTH share |
//! | `choose` | which connection holds for a peer that calls us |
//! | `agree` | what both sides agree on for a child SA |
//! | `create`, `creation` | CREATE_CHILD_SA: new keys, more child SAs; such exchanges under way |
//! | `inform` | INFORMATIONAL: deletes, signs of life |
//! | `mobility` | addresses that change |
//! | `moving`, `move_check` | whether a peer is where it is said to be; a move that it has not confirmed |
//! | `configure` | inner addresses and DNS |
//! | `names` | who it is |
//! | `session` | an IKE SA and its window |
//! | `child`, `request` | child SAs; requests on their way |

mod agree;
mod auth;
mod child;
mod choose;
mod configure;
mod create;
mod creation;
mod dispatch;
mod inform;
mod initiate;
mod initiation;
mod lifecycle;
mod mobility;
mod move_check;
mod moving;
mod names;
mod request;
mod respond;
mod response;
mod session;
mod state;
mod timers;

pub(super) use respond::InitRefused;
pub use state::State;
pub(super) use state::{Peer, Phase};
