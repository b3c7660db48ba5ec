//! IKEv2 (RFC 7296) with MOBIKE (RFC 4555).
//!
//! | module | what |
//! |---|---|
//! | [`endpoint`] | all peers: messages in, messages and news out |
//! | `admission` | half-open peers, cookies, and refusals of first messages |
//! | `dial` | connections that we make, and make again |
//! | `context` | what peers share |
//! | `exchange` | what messages lead to, exchange by exchange |
//! | `dispatch` | what messages and finished tasks lead to |
//! | `peer` | one peer: its IKE SA, its child SAs, where it is |
//! | [`settings`], [`counter`] | bounds and times; what is counted |
//! | [`bounds`] | what one peer can have us keep |
//! | `cookie` | standing up to many who begin |
//! | `quota` | how many SAs may be asked for in one name |
//! | `connected` | who is connected, and in whose name |
//! | `doubt` | whose moves are followed before they are confirmed |
//! | [`view`] | what may be seen of a peer |
//! | [`connection`] | who may connect, and what holds for it then |
//! | [`event`] | what the endpoint tells whoever drives it |
//! | [`wire`] | messages as bytes |
//! | [`protection`] | encrypted messages and their fragments |
//! | [`schedule`] | the keys |
//! | [`proposal`], [`selector`] | what is agreed on |
//! | [`nat`], [`description`] | what lies between us and a peer |
//! | [`pool`] | inner addresses |
//! | [`suite`] | sets of algorithms |

pub mod bounds;
pub mod connection;
pub mod description;
pub mod endpoint;
pub mod event;
pub mod nat;
pub mod pool;
pub mod proposal;
pub mod protection;
pub mod schedule;
pub mod selector;
pub mod suite;
pub mod view;
pub mod wire;

mod admission;
mod connected;
mod context;
mod cookie;
pub mod counter;
mod dial;
mod dispatch;
mod doubt;
mod exchange;
mod peer;
mod quota;
pub mod settings;
