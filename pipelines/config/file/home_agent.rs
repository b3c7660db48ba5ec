//! `[home_agent]`.

use super::Key;
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HomeAgent {
    pub address: Spanned<String>,
    pub network: Spanned<String>,
    pub store: Key<String>,
    pub lifetime: Key<String>,
    pub reverse_tunnel: Option<ReverseTunnel>,
    #[serde(default)]
    pub encapsulations: Vec<Encapsulation>,
    #[serde(default)]
    pub terminal: Vec<Spanned<HomeTerminal>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ReverseTunnel {
    Refused,
    Allowed,
    Required,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Encapsulation {
    Ipip,
    Gre,
    Minimal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HomeTerminal {
    pub home: Spanned<String>,
    pub nai: Key<String>,
    pub spi: Spanned<i64>,
    pub algorithm: Option<Authenticator>,
    pub secret_file: Spanned<String>,
    pub replay: Option<Replay>,
    pub window: Key<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Authenticator {
    HmacMd5,
    HmacSha256,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Replay {
    Timestamps,
    Nonces,
}
