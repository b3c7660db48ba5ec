//! RADIUS over sockets that never block.
//!
//! | module | contents |
//! |---|---|
//! | `sockets` | sockets to servers |
//! | `access` | questions and answers about peers |
//! | `accounting` | records about peers |
//! | `dynamic` | servers' requests about connected peers |

mod access;
mod accounting;
mod dynamic;
mod sockets;

pub use access::RadiusSockets;
pub use accounting::AccountingSockets;
pub use dynamic::DynamicSocket;
