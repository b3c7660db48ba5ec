//! Chains, names, signatures and files, and what must be refused.

mod authorities;
mod files;
mod pki;
mod signature;

use super::*;
use crate::primitives::{Primitives, tests::hex};
