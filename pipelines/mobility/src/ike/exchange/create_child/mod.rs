//! CREATE_CHILD_SA: more child SAs, and new keys of child and IKE SAs (RFC 7296 §1.3).
//!
//! | module | what |
//! |---|---|
//! | `message` | its two messages |
//! | `initiator`, `responder` | exchanges that we begin, and that the peer begins |
//! | `collision` | exchanges of both sides that meet |
//! | `ike_sa` | IKE SAs that take another's place |

mod collision;
mod ike_sa;
mod initiator;
pub(in crate::ike) mod message;
mod responder;
