//! Finds the connections whose peers authenticate against the same credentials: they name the same
//! users, servers or authorities, and have the same keys for EAP-TLS or servers. Such connections
//! share one verifier, so that a peer's authenticated identity selects among them.

use super::raw::RawConnection;
use crate::{
    config::{
        error::ConfigResult,
        file::{CrlPolicy, Method},
    },
    credentials::Revocation,
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use toml::Spanned;
use wayfarer_mobility::ike::connection::{Connection, RemoteAuth};

/// The credentials against which peers authenticate.
#[derive(PartialEq, Eq)]
pub(super) struct Trust {
    method: Method,
    /// Files of users or authorities, sorted.
    files: Vec<PathBuf>,
    /// Our own credentials for EAP-TLS or for the servers, in order.
    own: Vec<PathBuf>,
    /// RADIUS servers in the order in which they are asked: address, number of tries, timeout of
    /// each, and whether they check identities.
    servers: Vec<(SocketAddr, u32, Duration, bool)>,
    /// Our own name for the servers.
    nas_identifier: String,
    is_strict: bool,
    allows_sha1: bool,
    revocation: Revocation,
}

/// The credentials of the connections so far.
pub(super) type EarlierProofs = Vec<(Trust, RemoteAuth)>;

impl RawConnection<'_> {
    /// Replaces the connection's verifier by that of an earlier connection, if both have the same
    /// credentials.
    pub(super) fn share(&self, connection: &mut Connection, shared: &mut EarlierProofs) -> ConfigResult<()> {
        if let RemoteAuth::Psk(_) = connection.remote_auth {
            return Ok(());
        }
        let known = self.known(self.methods(&connection.remote)?.remote)?;
        match shared.iter().find(|(other, _)| *other == known) {
            Some((_, other)) => connection.remote_auth = other.clone(),
            None => shared.push((known, connection.remote_auth.clone())),
        }
        Ok(())
    }

    fn known(&self, method: Method) -> ConfigResult<Trust> {
        let Self { source, raw, .. } = self;
        let file = |key, text: &Spanned<String>| {
            let path = source.value(key, text, |text| source.path(text))?;
            // Different spellings of a path are the same file.
            Ok(path.canonicalize().unwrap_or(path))
        };
        let lists = [&raw.authorities, &raw.crls].into_iter().flatten();
        let mut files = match method {
            Method::EapTls | Method::Certificate => lists
                .flat_map(|list| list.get_ref().0.iter().map(|text| Spanned::new(list.span(), text.clone())))
                .map(|text| file("connection.authorities", &text))
                .collect::<ConfigResult<Vec<_>>>()?,
            Method::EapMschapv2 => raw
                .users_file
                .iter()
                .map(|text| file("connection.users_file", text))
                .collect::<ConfigResult<Vec<_>>>()?,
            _ => vec![],
        };
        let mut own = Vec::new();
        if method == Method::EapTls {
            let texts =
                [("connection.certificate", &raw.certificate), ("connection.private_key", &raw.private_key)];
            for (key, text) in texts {
                own.extend(text.as_ref().map(|text| file(key, text)).transpose()?);
            }
        }
        let mut servers = Vec::new();
        if method == Method::EapRadius {
            for radius in &raw.radius {
                own.push(file("connection.radius.secret_file", &radius.get_ref().secret_file)?);
            }
            let all = self.radius()?.into_iter();
            servers.extend(
                all.map(|server| (server.address, server.tries, server.timeout, server.trust_identity)),
            );
        }
        files.sort();
        let is_strict = raw.crl_policy.as_ref().is_some_and(|p| *p.get_ref() == CrlPolicy::Strict);
        let nas_identifier = self.nas_identifier()?;
        let (allows_sha1, revocation) = (self.allows_sha1(), self.revocation());
        Ok(Trust { method, files, own, servers, nas_identifier, is_strict, allows_sha1, revocation })
    }
}
