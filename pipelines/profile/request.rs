//! Which profile is wanted, and why there is none.

use std::{fmt, path::Path};

/// A client that profiles can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// iOS, iPadOS and macOS: a configuration profile.
    Apple,
    /// Windows 10 and 11: a PowerShell script.
    Windows,
    /// strongSwan's app for Android: a profile in JSON.
    Android,
    /// strongSwan: swanctl.conf.
    StrongSwan,
    /// NetworkManager with strongSwan's plugin: a key file.
    NetworkManager,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apple => "Apple's client",
            Self::Windows => "Windows",
            Self::Android => "strongSwan's app",
            Self::StrongSwan => "strongSwan",
            Self::NetworkManager => "NetworkManager",
        })
    }
}

/// A profile that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The client.
    pub client: Client,
    /// The name of the connection; `None`: the only one for terminals.
    pub connection: Option<&'a str>,
    /// The user's name; `None`: the client asks for it.
    pub user: Option<&'a str>,
    /// The name or address that the client connects to; `None`: the gateway's identity.
    pub server: Option<&'a str>,
    /// The file with the certificate of the gateway's authority; `None`: `ca.crt` beside the
    /// gateway's certificate.
    pub authority: Option<&'a Path>,
}

/// The reason why a client cannot use a connection, and what would have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileError(pub(super) String);

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProfileError {}
