//! IKEv2 (RFC 7296) with MOBIKE (RFC 4555).
//!
//! | module | what |
//! |---|---|
//! | [`suite`] | the algorithms, by their numbers |
//! | [`identity`] | who a peer says that it is |
//! | [`crypto`] | what is needed of cryptography |
//! | [`eap`] | proofs inside IKE_AUTH |
//! | [`wire`] | messages as bytes |

pub mod crypto;
pub mod eap;
pub mod identity;
pub mod suite;
pub mod wire;
