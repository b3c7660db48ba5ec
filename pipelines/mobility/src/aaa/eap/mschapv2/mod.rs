//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2): both sides show that they know a password, and
//! get a key from it.
//!
//! What an eavesdropper could learn of the password is as weak as DES. It is safe only inside a
//! protected channel whose server has proved itself, such as IKE_AUTH.
//!
//! | module | what |
//! |---|---|
//! | `chap` | the computations of RFC 2759 and RFC 3079 |
//! | `message` | messages as bytes |
//! | [`Mschapv2Server`] | the side that knows all users |
//! | [`Mschapv2Client`] | one user |

mod chap;
mod client;
mod message;
mod server;

pub use chap::NtHash;
pub use client::Mschapv2Client;
pub use server::Mschapv2Server;

#[cfg(test)]
mod tests;
