//! Which connections' peers prove themselves to the same: those that name the same users, servers or authorities. They share
//! it, so that who a peer has proved to be decides among them.

use super::{Checked, Raw};
use crate::config::{
    file::{CrlPolicy, Method, Radius},
    value,
};
use std::{net::SocketAddr, path::PathBuf};
use toml::Spanned;
use wayfarer_mobility::ike::connection::{Connection, RemoteAuth};

/// What peers are known by, in no order.
#[derive(PartialEq, Eq)]
pub(super) struct Known {
    method: Method,
    files: Vec<PathBuf>,
    servers: Vec<SocketAddr>,
    is_strict: bool,
}

/// What peers have proved themselves to so far.
pub(super) type Shared = Vec<(Known, RemoteAuth)>;

impl Raw<'_> {
    /// Lets peers of a connection prove themselves to the same as those of an earlier one, if they are known by the same.
    pub(super) fn share(&self, connection: &mut Connection, shared: &mut Shared) -> Checked<()> {
        if let RemoteAuth::Psk(_) = connection.remote_auth {
            return Ok(());
        }
        let known = self.known(self.methods(connection.remote)?.remote)?;
        match shared.iter().find(|(other, _)| *other == known) {
            Some((_, other)) => connection.remote_auth = other.clone(),
            None => shared.push((known, connection.remote_auth.clone())),
        }
        Ok(())
    }

    fn known(&self, method: Method) -> Checked<Known> {
        let Self { source, raw, .. } = self;
        let file = |key, text: &Spanned<String>| {
            let path = source.value(key, text, |text| source.path(text))?;
            // However it is written, it is the same file.
            Ok(path.canonicalize().unwrap_or(path))
        };
        let lists = [&raw.authorities, &raw.crls].into_iter().flatten();
        let mut files = match method {
            Method::EapTls | Method::Certificate => lists
                .flat_map(|list| list.get_ref().0.iter().map(|text| Spanned::new(list.span(), text.clone())))
                .map(|text| file("connection.authorities", &text))
                .collect::<Checked<Vec<_>>>()?,
            Method::EapMschapv2 => raw
                .users_file
                .iter()
                .map(|text| file("connection.users_file", text))
                .collect::<Checked<Vec<_>>>()?,
            _ => vec![],
        };
        let server = |radius: &Spanned<Radius>| {
            let server = &radius.get_ref().server;
            source.value("connection.radius.server", server, |text| value::server(text))
        };
        let mut servers = raw.radius.iter().map(server).collect::<Checked<Vec<_>>>()?;
        files.sort();
        servers.sort();
        let is_strict = raw.crl_policy.as_ref().is_some_and(|p| *p.get_ref() == CrlPolicy::Strict);
        Ok(Known { method, files, servers, is_strict })
    }
}
