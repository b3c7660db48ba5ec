//! IKEv2 (RFC 7296) with MOBIKE (RFC 4555).
//!
//! | module | what |
//! |---|---|
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
pub mod connection;
pub mod crypto;
pub mod description;
pub mod eap;
pub mod event;
pub mod identity;
pub mod pool;
pub mod proposal;
pub mod protection;
pub mod schedule;
pub mod selector;
pub mod suite;
pub mod task;
pub mod wire;
