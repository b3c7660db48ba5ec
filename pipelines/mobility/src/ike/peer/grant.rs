//! What a RADIUS server granted to a peer, and may change while the peer is connected.

use super::{request::QueuedRequest, state::Peer};
use crate::ike::{
    connection::{ChildPolicy, Connection},
    context::Context,
    event::{ChildId, Event},
    leases::GrantError,
};
use alloc::{string::String, vec::Vec};

impl Peer {
    /// Returns true if the peer may have child SAs of this policy: the server named it, or none
    /// (Filter-Id, RFC 2865 §5.11).
    pub(in crate::ike) fn may_have(&self, policy: &ChildPolicy) -> bool {
        let filters = self.grant.as_ref().map_or(&[][..], |grant| &grant.filters);
        filters.is_empty() || filters.iter().any(|name| name == policy.name.as_bytes())
    }

    /// Changes what the server granted: the seconds from now on until the peer is closed, with zero
    /// for no end, and the child SAs that it may have.
    pub(in crate::ike) fn change_grant(
        &mut self,
        cx: &mut Context<'_>,
        session_timeout: Option<u32>,
        filters: Option<Vec<Vec<u8>>>,
    ) {
        let so_far = cx.now.saturating_sub(self.up_at).as_secs();
        let Some(grant) = self.grant.as_mut().filter(|_| matches!(self.phase, super::Phase::Established))
        else {
            return;
        };
        if let Some(seconds) = session_timeout {
            let end = u32::try_from(so_far.saturating_add(seconds.into())).unwrap_or(u32::MAX);
            grant.session_timeout = (seconds > 0).then_some(end);
        }
        let has_filters = filters.is_some();
        if let Some(filters) = filters {
            grant.filters = filters;
        }
        if session_timeout.is_some() {
            self.enqueue(QueuedRequest::AuthLifetime);
            self.start_queued(cx);
        }
        if has_filters {
            self.end_forbidden(cx);
        }
    }

    /// Ends the child SAs that the peer may no longer have: here at once, and by DELETE at the peer.
    pub(in crate::ike) fn end_forbidden(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let is_forbidden =
            |policy: usize| connection.children.get(policy).is_none_or(|policy| !self.may_have(policy));
        let forbidden = self.children.iter().filter(|child| is_forbidden(child.sa.policy));
        let forbidden: Vec<ChildId> = forbidden.map(|child| child.id).collect();
        if forbidden.is_empty() {
            return;
        }
        for child in forbidden {
            cx.tell(Event::ChildDown { child });
            self.enqueue(QueuedRequest::DeleteChild(child));
        }
        self.start_queued(cx);
    }
}

/// Checks that a connection has child SAs of all these names.
///
/// # Errors
/// Returns the first name that it does not have.
pub(in crate::ike) fn check_filters(connection: &Connection, filters: &[Vec<u8>]) -> Result<(), GrantError> {
    let is_unknown =
        |name: &&Vec<u8>| !connection.children.iter().any(|child| child.name.as_bytes() == &name[..]);
    match filters.iter().find(is_unknown) {
        Some(name) => Err(GrantError::UnknownFilter(String::from_utf8_lossy(name).into_owned())),
        None => Ok(()),
    }
}
