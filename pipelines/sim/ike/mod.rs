//! Terminals' IKE, with an endpoint of their own.
//!
//! | module | contents |
//! |---|---|
//! | [`seeded`] | randomness from a seed, except for key pairs |
//! | [`configured`] | connections read from configuration files |
//! | [`connections`] | connections with defaults |
//! | [`eap`] | an EAP method of one packet |
//! | [`keys`] | keys of an IKE SA from a key log, to send messages in an endpoint's name |
//! | [`habits`] | habits of other implementations, put on an endpoint of ours |
//! | [`side`] | an endpoint whose tasks run at once |
//! | [`carrier`] | carries messages between a gateway and its terminals |
//! | [`peer`] | a terminal that connects to the whole gateway |

pub mod carrier;
pub mod configured;
pub mod connections;
pub mod eap;
pub mod habits;
pub mod keys;
pub mod peer;
pub mod seeded;
pub mod side;
