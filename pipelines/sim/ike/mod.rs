//! The other end of IKE, with its own copy of the protocol.
//!
//! | module | what |
//! |---|---|
//! | [`seeded`] | cryptography whose randomness can be repeated |
//! | [`configured`] | connections as a configuration file says them |
//! | [`connections`] | what a gateway and its terminals agree on |
//! | [`side`] | an endpoint whose tasks run at once |
//! | [`peer`] | a terminal of the whole gateway |

pub mod configured;
pub mod connections;
pub mod peer;
pub mod seeded;
pub mod side;
