//! Checks where a connection's peer is.

use super::raw::RawConnection;
use crate::config::{
    error::{ConfigResult, Rule},
    model::Config,
    value,
};
use wayfarer_mobility::{
    identity::Identity,
    ike::connection::{IdentityPattern, Remote},
};

/// UDP port of IKE (RFC 7296 §2).
const IKE: u16 = 500;

/// Most addresses and host names of one peer.
const MAX_REMOTE: usize = 8;

impl RawConnection<'_> {
    /// Returns where the peer is; nothing if it may be anywhere.
    pub(super) fn remote(&self, config: &Config) -> ConfigResult<Vec<Remote>> {
        let ours = |own| config.ports.iter().any(|port| port.addresses.iter().any(|(a, _)| *a == own));
        let check = |text: &String| match value::peer(text, IKE)? {
            Remote::At(end) if ours(end.ip()) => Err(Rule::Own),
            remote => Ok(remote),
        };
        let all = self.source.optional("connection.remote", &self.raw.remote, |list| match &list.0[..] {
            [any] if any == "any" => Ok(vec![]),
            [] => Err(Rule::Empty),
            list if list.iter().any(|text| text == "any") => Err(Rule::LoneAny),
            list if list.len() > MAX_REMOTE => Err(Rule::TooLong(MAX_REMOTE)),
            list => list.iter().map(check).collect(),
        })?;
        Ok(all.unwrap_or_default())
    }

    /// Refuses a peer that has a host name and may have any identity. It may come from any address, so
    /// that nothing but its identity tells it from others.
    pub(super) fn check_named(&self, remote: &[Remote], id: &IdentityPattern) -> ConfigResult<()> {
        let has_name = remote.iter().any(|end| matches!(end, Remote::Named(..)));
        match &self.raw.remote_id {
            Some(list) if has_name && !id.is_named() => {
                Err(self.source.bad("connection.remote_id", list.span(), Rule::NamedPeer))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the identities of a peer for which the configuration names none: its addresses and names.
/// A certificate of the same authority alone does not make a peer the gateway that was called.
pub(super) fn default_identities(remote: &[Remote]) -> IdentityPattern {
    let identity = |end: &Remote| match end {
        Remote::At(end) => Some(Identity::from_address(end.ip())),
        Remote::Named(name, _) => Identity::from_text(name),
    };
    match remote {
        [] => IdentityPattern::Any,
        remote => IdentityPattern::of(remote.iter().filter_map(identity).collect()),
    }
}
