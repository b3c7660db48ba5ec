//! IKE's exchanges, from both sides.
//!
//! | module | what |
//! |---|---|
//! | `init` | IKE_SA_INIT |
//! | `intermediate` | IKE_INTERMEDIATE |
//! | `auth` | IKE_AUTH |
//! | `create_child` | CREATE_CHILD_SA |
//! | `informational` | INFORMATIONAL |
//! | `mobike` | what MOBIKE says in it |
//! | `child_offer` | what both sides agree on for a child SA |

pub(super) mod auth;
pub(super) mod child_offer;
pub(super) mod create_child;
pub(super) mod informational;
pub(super) mod init;
pub(super) mod intermediate;
pub(super) mod mobike;
