//! Chains, names, signatures and files, both valid and invalid.

mod authorities;
mod files;
mod pki;
mod refusal;
mod signature;

use super::*;
use crate::primitives::{Primitives, tests::hex};
