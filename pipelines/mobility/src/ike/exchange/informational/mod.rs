//! INFORMATIONAL: deletion of SAs and liveness checks (RFC 7296 §1.4). The module `mobike` handles
//! MOBIKE's part of it.
//!
//! | module | contents |
//! |---|---|
//! | `message` | the two messages |
//! | `initiator`, `responder` | exchanges that we begin, and that the peer begins |
//! | `lifetime` | how long the authentication counts |
//! | `path_probe` | probes of the path's MTU |
//! | `crash` | crash tokens, and an IKE SA that the peer has lost |

mod crash;
mod initiator;
mod lifetime;
pub(in crate::ike) mod message;
mod path_probe;
mod responder;
