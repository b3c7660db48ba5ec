//! IKE_SA_INIT from both sides (RFC 7296 §1.2).
//!
//! | module | contents |
//! |---|---|
//! | `message` | the messages |
//! | `initiator`, `responder` | the two sides |

pub(in crate::ike) mod initiator;
pub(in crate::ike) mod message;
pub(in crate::ike) mod responder;
