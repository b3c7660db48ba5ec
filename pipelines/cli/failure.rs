//! Errors of commands.

use std::io;
use wayfarer::{config::ConfigError, control::client, pki::PkiError, profile::ProfileError};

/// The reason why a command failed.
pub(super) enum Failure {
    /// The configuration is wrong.
    Config(ConfigError),
    /// A running gateway did not execute the command.
    Control(client::ClientError),
    /// The gateway failed.
    Gateway(String),
    /// No certificate was made.
    Pki(PkiError),
    /// A profile cannot be made.
    Profile(ProfileError),
    /// Standard output could not be written.
    Output(io::Error),
}

impl From<ConfigError> for Failure {
    fn from(why: ConfigError) -> Self {
        Self::Config(why)
    }
}

impl From<client::ClientError> for Failure {
    fn from(why: client::ClientError) -> Self {
        Self::Control(why)
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self::Output(why)
    }
}
