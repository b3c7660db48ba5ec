//! Chains, names, signatures and files, both valid and invalid.

mod authorities;
mod expiry;
mod files;
mod ocsp;
mod pki;
mod refusal;
mod revocation;
mod scopes;
mod signature;
mod staple;

use super::*;
use crate::primitives::{Primitives, tests::hex};
