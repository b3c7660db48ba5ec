//! RADIUS over sockets that never block.
//!
//! | module | contents |
//! |---|---|
//! | `sockets` | sockets to servers |
//! | `access` | questions and answers about peers |
//! | `accounting` | records about peers |

mod access;
mod accounting;
mod sockets;

pub use access::RadiusSockets;
pub use accounting::AccountingSockets;
