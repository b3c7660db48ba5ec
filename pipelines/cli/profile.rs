//! `wayfarer profile`.

use super::failure::Failure;
use clap::{Args, ValueEnum};
use std::{
    io::{self, Write},
    path::PathBuf,
};
use wayfarer::{
    config,
    profile::{self, Client, ProfileError, Request},
};

/// Options of a profile.
#[derive(Debug, Args)]
#[command(after_help = "\
The profile has the connection's names, networks and algorithms that the client knows. It never contains a password of a
user. If the client cannot use the connection, the message says what to change in the configuration.

With auth = \"certificate\" or \"eap-tls\", --user names a certificate that `wayfarer pki user` made; its files must be
beside the authority's.

Examples:
  wayfarer profile --for apple --config gateway.toml > vpn.mobileconfig
  wayfarer profile --for windows --config gateway.toml --connection people > vpn.ps1
  wayfarer profile --for android --config gateway.toml --user alice > vpn.sswan
  wayfarer profile --for strongswan --config gateway.toml --user alice > swanctl.conf
  wayfarer profile --for networkmanager --config gateway.toml --user alice > vpn.nmconnection")]
pub(super) struct Profile {
    /// The client.
    #[arg(long = "for", value_enum, value_name = "CLIENT")]
    client: ClientName,
    /// The gateway's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The connection [default: the only one for terminals].
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// The user's name, or the name of the user's certificate.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The name or address to connect to [default: the gateway's identity].
    #[arg(long, value_name = "NAME|ADDRESS")]
    server: Option<String>,
    /// The authority's certificate [default: ca.crt beside the gateway's certificate].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClientName {
    /// iOS, iPadOS, macOS: a .mobileconfig file.
    Apple,
    /// Windows 10 and 11: a PowerShell script.
    Windows,
    /// strongSwan's app for Android: a .sswan file.
    Android,
    /// strongSwan: swanctl.conf.
    Strongswan,
    /// NetworkManager with strongSwan's plugin: a .nmconnection file.
    Networkmanager,
}

impl From<ClientName> for Client {
    fn from(name: ClientName) -> Self {
        match name {
            ClientName::Apple => Self::Apple,
            ClientName::Windows => Self::Windows,
            ClientName::Android => Self::Android,
            ClientName::Strongswan => Self::StrongSwan,
            ClientName::Networkmanager => Self::NetworkManager,
        }
    }
}

/// Prints a profile.
pub(super) fn run(options: &Profile) -> Result<(), Failure> {
    let request = Request {
        client: options.client.into(),
        connection: options.connection.as_deref(),
        user: options.user.as_deref(),
        server: options.server.as_deref(),
        authority: options.ca.as_deref(),
    };
    let text = profile::profile(&config::load(&options.config)?, &request)?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

impl From<ProfileError> for Failure {
    fn from(why: ProfileError) -> Self {
        Self::Profile(why)
    }
}
