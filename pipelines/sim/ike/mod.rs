//! Terminals' IKE, with an endpoint of their own.
//!
//! | module | contents |
//! |---|---|
//! | [`seeded`] | randomness from a seed |
//! | [`configured`] | connections read from configuration files |
//! | [`connections`] | connections with defaults |
//! | [`side`] | an endpoint whose tasks run at once |
//! | [`peer`] | a terminal that connects to the whole gateway |

pub mod configured;
pub mod connections;
pub mod peer;
pub mod seeded;
pub mod side;
