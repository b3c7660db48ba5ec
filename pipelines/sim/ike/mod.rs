//! The other end of IKE, with its own copy of the protocol.
//!
//! | module | what |
//! |---|---|
//! | [`seeded`] | cryptography whose randomness can be repeated |
//! | [`configured`] | connections as a configuration file says them |
//! | [`peer`] | a terminal of the whole gateway |

pub mod configured;
pub mod peer;
pub mod seeded;
