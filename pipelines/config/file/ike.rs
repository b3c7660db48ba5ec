//! The keys of IKE: `[ike]`, `[[pool]]` and `[[connection]]`.

use super::field::{Key, List, Mode, PathProbing, Roam, Scalar};
use serde::{
    Deserialize, Deserializer,
    de::{
        Error, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};
use std::fmt;
use toml::Spanned;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ike {
    pub key_log: Key<String>,
    pub crash_secret_file: Key<String>,
    pub cookie_threshold: Key<i64>,
    pub half_open: Key<i64>,
    pub half_open_time: Key<String>,
    pub peers: Key<i64>,
    pub devices: Key<i64>,
    pub children: Key<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Coa {
    pub listen: Spanned<String>,
    pub clients: Spanned<Vec<CoaClient>>,
    #[serde(default)]
    pub require_event_timestamp: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CoaClient {
    pub address: Spanned<String>,
    pub secret_file: Spanned<String>,
    pub connections: Key<List>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Pool {
    pub name: Spanned<String>,
    pub addresses: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Connection {
    pub name: Spanned<String>,
    pub local: Key<List>,
    pub remote: Key<List>,
    pub local_id: Key<List>,
    pub remote_id: Key<List>,
    pub auth: Spanned<Auth>,
    pub psk_file: Key<String>,
    pub certificate: Key<String>,
    pub private_key: Key<String>,
    pub authorities: Key<List>,
    pub crls: Key<List>,
    pub crl_policy: Key<CrlPolicy>,
    pub revocation: Key<Revocation>,
    pub ocsp_stapling: Key<bool>,
    pub legacy_signatures: Key<bool>,
    pub users_file: Key<String>,
    pub user: Key<String>,
    pub password_file: Key<String>,
    #[serde(default)]
    pub radius: Vec<Spanned<Radius>>,
    pub nas_identifier: Key<String>,
    pub accounting_interval: Key<String>,
    pub proposals: Key<List>,
    pub esp: Key<List>,
    pub inner_local: Key<List>,
    pub inner_remote: Key<List>,
    pub mode: Key<Mode>,
    #[serde(default)]
    pub child: Vec<Spanned<Child>>,
    pub pool: Key<List>,
    pub dns: Key<List>,
    pub domains: Key<List>,
    pub request_address: Key<bool>,
    #[serde(default)]
    pub lifetime: Lifetime,
    pub liveness: Key<String>,
    pub mobike: Option<bool>,
    pub roam: Key<Roam>,
    pub encap: Key<Encap>,
    pub allow_nat: Option<bool>,
    pub fragment: Key<Scalar>,
    pub path_mtu_probing: Option<PathProbing>,
    pub ppk: Option<Ppk>,
    pub unique: Option<bool>,
    pub window: Key<i64>,
    pub mtu: Key<Scalar>,
    pub outer_fragments: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Child {
    pub name: Spanned<String>,
    pub inner_local: Key<List>,
    pub inner_remote: Key<List>,
    pub mode: Key<Mode>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum CrlPolicy {
    Relaxed,
    Strict,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Revocation {
    Off,
    IfAvailable,
    Required,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Radius {
    pub server: Spanned<String>,
    pub accounting: Key<String>,
    pub secret_file: Spanned<String>,
    pub timeout: Key<String>,
    pub tries: Key<i64>,
    #[serde(default)]
    pub trust_identity: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Lifetime {
    pub ike: Key<String>,
    pub authentication: Key<String>,
    pub child: Key<String>,
    pub packets: Key<Scalar>,
    pub bytes: Key<Scalar>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Encap {
    Auto,
    Udp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ppk {
    pub id: Spanned<String>,
    pub file: Spanned<String>,
    #[serde(default)]
    pub required: bool,
}

/// An authentication method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Method {
    Psk,
    Certificate,
    EapMschapv2,
    EapTls,
    EapRadius,
}

impl Method {
    /// Returns whether the method is inside EAP.
    pub(in crate::config) fn is_eap(self) -> bool {
        matches!(self, Self::EapMschapv2 | Self::EapTls | Self::EapRadius)
    }
}

/// The authentication methods of both sides: one word for both, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Auth {
    One(Method),
    Each { local: Method, remote: Method },
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Each {
            local: Method,
            remote: Method,
        }

        struct WordOrTable;
        impl<'de> Visitor<'de> for WordOrTable {
            type Value = Auth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table with \"local\" and \"remote\"")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Auth, E> {
                Method::deserialize(StrDeserializer::new(word)).map(Auth::One)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Auth, A::Error> {
                let Each { local, remote } = Each::deserialize(MapAccessDeserializer::new(table))?;
                Ok(Auth::Each { local, remote })
            }
        }
        deserializer.deserialize_any(WordOrTable)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Psk => "\"psk\"",
            Self::Certificate => "\"certificate\"",
            Self::EapMschapv2 => "\"eap-mschapv2\"",
            Self::EapTls => "\"eap-tls\"",
            Self::EapRadius => "\"eap-radius\"",
        })
    }
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(method) => method.fmt(f),
            Self::Each { local, remote } => write!(f, "{{ local = {local}, remote = {remote} }}"),
        }
    }
}
