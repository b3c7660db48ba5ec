//! Checks which RADIUS servers keep account of a connection's peers.

use super::raw::RawConnection;
use crate::config::{
    error::{ConfigResult, Rule},
    model::Accounting,
    value,
};
use std::{sync::Arc, time::Duration};
use toml::Spanned;
use wayfarer_mobility::aaa::radius::question::{Realm, Server};

/// Shortest time between two interim records (RFC 2869 §5.16).
const MIN_INTERVAL: Duration = Duration::from_secs(60);

impl RawConnection<'_> {
    /// Returns the servers with an address for accounting; `None` if there are none.
    pub(super) fn accounting(&self) -> ConfigResult<Option<Accounting>> {
        let Self { source, raw, .. } = self;
        let interval =
            source.optional("connection.accounting_interval", &raw.accounting_interval, |text| {
                Some(value::duration(text)?).filter(|time| *time >= MIN_INTERVAL).ok_or(Rule::Shortest("60s"))
            })?;
        if raw.radius.is_empty() {
            return Ok(None);
        }
        let mut servers = Vec::new();
        for (server, raw) in self.radius()?.into_iter().zip(&raw.radius) {
            let address =
                source.optional("connection.radius.accounting", &raw.get_ref().accounting, |text| {
                    value::server(text)
                })?;
            servers.extend(address.map(|address| Server { address, ..server }));
        }
        match (servers.is_empty(), &raw.accounting_interval) {
            (true, Some(_)) => {
                let place = raw.accounting_interval.as_ref().map_or(0..0, Spanned::span);
                let rule = Rule::Pointless("no \"accounting\" in \"radius\"".into());
                Err(source.bad("connection.accounting_interval", place, rule))
            }
            (true, None) => Ok(None),
            (false, _) => {
                let realm = Arc::new(Realm::new(servers, &self.nas_identifier()?));
                Ok(Some(Accounting { realm, interval }))
            }
        }
    }
}
