//! CREATE_CHILD_SA: further child SAs, and rekeying of child and IKE SAs (RFC 7296 §1.3). If several
//! key exchanges were agreed on, IKE_FOLLOWUP_KE has those after the first, and the SA is created
//! after the last (RFC 9370 §2.2.4).
//!
//! | module | contents |
//! |---|---|
//! | `message` | the messages of CREATE_CHILD_SA |
//! | `followup_message` | the messages of IKE_FOLLOWUP_KE |
//! | `initiator`, `responder` | exchanges that we begin, and that the peer begins |
//! | `followup` | both sides of IKE_FOLLOWUP_KE |
//! | `collision` | exchanges of both sides that collide |
//! | `ike_sa` | IKE SAs that replace another |

mod collision;
mod followup;
pub(in crate::ike) mod followup_message;
mod ike_sa;
mod initiator;
pub(in crate::ike) mod message;
mod responder;
