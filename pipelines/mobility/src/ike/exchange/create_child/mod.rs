//! CREATE_CHILD_SA: further child SAs, and rekeying of child and IKE SAs (RFC 7296 §1.3).
//!
//! | module | contents |
//! |---|---|
//! | `message` | the two messages |
//! | `initiator`, `responder` | exchanges that we begin, and that the peer begins |
//! | `collision` | exchanges of both sides that collide |
//! | `ike_sa` | IKE SAs that replace another |

mod collision;
mod ike_sa;
mod initiator;
pub(in crate::ike) mod message;
mod responder;
