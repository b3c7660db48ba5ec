//! The other end of IKE, with its own copy of the protocol.
//!
//! | module | what |
//! |---|---|
//! | [`seeded`] | nonces, SPIs and jitter from a seed; key pairs are the crypto library's |
//! | [`configured`] | connections as a configuration file says them |
//! | [`connections`] | what a gateway and its terminals agree on |
//! | [`keys`] | what it takes to speak for an endpoint |
//! | [`side`] | an endpoint whose tasks run at once |
//! | [`carrier`] | carries messages between a gateway and its terminals |
//! | [`peer`] | a terminal of the whole gateway |

pub mod carrier;
pub mod configured;
pub mod connections;
pub mod keys;
pub mod peer;
pub mod seeded;
pub mod side;
