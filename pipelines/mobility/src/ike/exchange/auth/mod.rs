//! IKE_AUTH from both sides, with EAP (RFC 7296 §1.2, §2.15, §2.16; RFC 8784).
//!
//! | module | contents |
//! |---|---|
//! | `message` | the messages |
//! | `configuration` | inner addresses and DNS |
//! | `initiator`, `responder` | the two sides |
//! | `responder_eap` | the responder's side of EAP |

pub(in crate::ike) mod configuration;
pub(in crate::ike) mod initiator;
pub(in crate::ike) mod message;
pub(in crate::ike) mod responder;
pub(in crate::ike) mod responder_eap;
