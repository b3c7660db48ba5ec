//! Profiles by which clients connect, made of a gateway's configuration.
//!
//! | module | contents |
//! |---|---|
//! | [`Request`] | which profile is wanted |
//! | `terms` | what every profile says: names, credentials, networks |
//! | `algorithms` | chooses algorithms that both sides have |
//! | `apple`, `windows`, `android`, `strongswan`, `network_manager` | one client each |

mod algorithms;
mod android;
mod apple;
mod network_manager;
mod plist;
mod request;
mod strongswan;
mod terms;
mod windows;

pub use request::{Client, ProfileError, Request};

use crate::config::model::Config;
use terms::Terms;

/// Returns the text of a profile.
///
/// # Errors
/// If the client cannot use the connection, or a file of the authority is missing.
pub fn profile(config: &Config, request: &Request<'_>) -> Result<String, ProfileError> {
    let terms = Terms::of(config, request)?;
    match request.client {
        Client::Apple => apple::profile(&terms),
        Client::Windows => windows::profile(&terms),
        Client::Android => android::profile(&terms),
        Client::StrongSwan => strongswan::profile(&terms),
        Client::NetworkManager => network_manager::profile(&terms),
    }
}
