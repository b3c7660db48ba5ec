//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2): both sides prove that they know a password, and
//! derive a key from it.
//!
//! The password is only as safe from an eavesdropper as DES. Use this only inside a protected
//! channel whose server has proved its identity, such as IKE_AUTH.
//!
//! | module | contents |
//! |---|---|
//! | `chap` | the computations of RFC 2759 and RFC 3079 |
//! | `message` | messages as bytes |
//! | [`Mschapv2Server`] | the server's side, which knows all users |
//! | [`Mschapv2Client`] | the side of one user |

mod chap;
mod client;
mod message;
mod server;

pub use chap::NtHash;
pub use client::Mschapv2Client;
pub use server::Mschapv2Server;

#[cfg(test)]
mod tests;
