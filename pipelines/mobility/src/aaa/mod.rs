//! Authentication, authorization and accounting: proofs of identity by a password, a certificate or
//! another server.
//!
//! | module | contents |
//! |---|---|
//! | [`eap`] | EAP conversations |
//! | [`grant`] | what a server grants to a peer that it accepts |
//! | [`origin`] | where a peer comes from |
//! | [`radius`] | RADIUS servers that authenticate peers for us |

pub mod eap;
pub mod grant;
pub mod origin;
pub mod radius;
