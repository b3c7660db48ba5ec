//! IKEv2 (RFC 7296) with MOBIKE (RFC 4555).
//!
//! | module | what |
//! |---|---|
//! | [`endpoint`] | all peers: messages in, messages and news out |
//! | `peer` | one peer: its IKE SA, its child SAs, where it is |
//! | `settings`, `counter` | bounds and times; what is counted |
//! | [`bounds`] | what one peer can have us keep |
//! | `cookie`, `queue`, `rate` | standing up to many who begin |
//! | `quota` | how many SAs may be asked for in one name |
//! | `connected` | who is connected, and in whose name |
//! | `doubt` | whose moves are followed before they are confirmed |
//! | [`view`] | what may be seen of a peer |
//! | [`connection`] | who may connect, and what holds for it then |
//! | [`event`], [`task`] | what the endpoint tells and asks whoever drives it |
//! | [`wire`] | messages as bytes |
//! | [`protection`] | encrypted messages and their fragments |
//! | [`schedule`] | the keys |
//! | [`proposal`], [`selector`] | what is agreed on |
//! | [`eap`] | proofs inside IKE_AUTH |
//! | [`address`], [`description`] | where a peer is, and what lies between |
//! | [`pool`] | inner addresses |
//! | [`suite`], [`identity`], [`crypto`] | algorithms, names, and what is needed of cryptography |

pub mod address;
pub mod bounds;
pub mod connection;
pub mod crypto;
pub mod description;
pub mod eap;
pub mod endpoint;
pub mod event;
pub mod identity;
pub mod pool;
pub mod proposal;
pub mod protection;
pub mod schedule;
pub mod selector;
pub mod suite;
pub mod task;
pub mod view;
pub mod wire;

mod connected;
mod cookie;
mod counter;
mod doubt;
mod peer;
mod queue;
mod quota;
mod rate;
mod settings;
