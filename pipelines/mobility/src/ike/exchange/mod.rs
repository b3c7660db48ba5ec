//! IKE's exchanges, both sides of each.
//!
//! | module | contents |
//! |---|---|
//! | `init` | IKE_SA_INIT |
//! | `intermediate` | IKE_INTERMEDIATE |
//! | `auth` | IKE_AUTH |
//! | `create_child` | CREATE_CHILD_SA |
//! | `informational` | INFORMATIONAL |
//! | `mobike` | MOBIKE's part of INFORMATIONAL |
//! | `child_offer` | negotiation of child SAs |

pub(super) mod auth;
pub(super) mod child_offer;
pub(super) mod create_child;
pub(super) mod informational;
pub(super) mod init;
pub(super) mod intermediate;
pub(super) mod mobike;
