//! Who somebody is, as a password, a certificate or another server proves it: authentication,
//! authorization, accounting.
//!
//! | module | what |
//! |---|---|
//! | [`eap`] | conversations by which somebody proves who it is |
//! | [`radius`] | servers that judge for us |

pub mod eap;
pub mod radius;
