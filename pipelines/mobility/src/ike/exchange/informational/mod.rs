//! INFORMATIONAL: deletes and signs of life (RFC 7296 §1.4). What MOBIKE says in it is in `mobike`.
//!
//! | module | what |
//! |---|---|
//! | `message` | its two messages |
//! | `initiator`, `responder` | exchanges that we begin, and that the peer begins |

mod initiator;
pub(in crate::ike) mod message;
mod responder;
