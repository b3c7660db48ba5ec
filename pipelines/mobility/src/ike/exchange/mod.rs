//! IKE's exchanges, both sides of each.
//!
//! | module | contents |
//! |---|---|
//! | `init` | IKE_SA_INIT |
//! | `intermediate` | IKE_INTERMEDIATE |
//! | `auth` | IKE_AUTH |
//! | `auth_lifetime` | the time until the initiator must authenticate again |
//! | `create_child` | CREATE_CHILD_SA and IKE_FOLLOWUP_KE |
//! | `informational` | INFORMATIONAL |
//! | `mobike` | MOBIKE's part of INFORMATIONAL |
//! | `child_offer` | negotiation of child SAs |
//! | `key_exchange` | the KE payload of exchanges with little else |

pub(super) mod auth;
pub(super) mod auth_lifetime;
pub(super) mod child_offer;
pub(super) mod create_child;
pub(super) mod informational;
pub(super) mod init;
pub(super) mod intermediate;
mod key_exchange;
pub(super) mod mobike;
