//! The names of a peer: its identity, the owner of its addresses, and the principal to whom its
//! requests are charged.

use super::state::Peer;
use crate::{
    crypto::Crypto,
    identity::{Identity, kind},
    ike::{
        bars::{NameHash, hash},
        connection::RemoteAuth,
        context::Context,
        pool::Owner,
        reason::Reason,
    },
};
use alloc::{boxed::Box, collections::BTreeSet, vec::Vec};

/// Most names of a peer that are remembered each by itself.
const MAX_NAMES: usize = 64;

impl Peer {
    /// Returns the peer's identity: the one that EAP proved, or the one in its ID payload.
    pub(in crate::ike) fn name(&self) -> Option<&Identity> {
        self.account.as_deref().or(self.identity.as_ref())
    }

    /// Returns the identity that the peer proved, once it has.
    pub(in crate::ike) fn proved(&self) -> Option<&Identity> {
        self.name().filter(|_| self.is_proved)
    }

    /// Returns what the peer calls itself: in its ID payload, or until it has proved that, the name that
    /// its EAP is for.
    pub(in crate::ike) fn claimed(&self) -> Option<&Identity> {
        let account = self.account.as_deref().filter(|name| !self.is_proved && !name.is_unnamed());
        account.or(self.identity.as_ref())
    }

    /// Returns the owner of the peer's inner addresses, whose other peers it may replace. It is the
    /// same whichever of its names the peer uses.
    pub(in crate::ike) fn owner(&self, cx: &Context<'_>) -> Option<Owner> {
        let name = self.all_names.as_deref().cloned();
        Some((cx.connections.number(self.connection?)?, name.or_else(|| Some(self.name()?.canonical()))?))
    }

    /// Returns the principal to whom the peer's moves and requests for SAs are charged. A peer
    /// could invent a new name each time if nobody proves it. So all such peers of a connection
    /// share one principal: those that EAP did not name, and those with a shared key, which proves
    /// only that they know it.
    pub(in crate::ike) fn principal(&self, cx: &Context<'_>) -> Option<Owner> {
        let (connection, name) = self.owner(cx)?;
        let is_proved = !name.is_unnamed() && !matches!(self.connection(cx)?.remote_auth, RemoteAuth::Psk(_));
        Some((connection, if is_proved { name } else { Identity::anybody() }))
    }

    /// Returns all names that the peer proved, but at most [`MAX_NAMES`] besides the one that it uses.
    pub(in crate::ike) fn names(&self, crypto: &dyn Crypto) -> BTreeSet<NameHash> {
        let used = self.name().map(|name| hash(crypto, name));
        let all = self.all_names.as_deref().map_or(&[][..], |all| all.data.as_chunks().0);
        used.into_iter().chain(all.iter().copied()).collect()
    }

    /// Checks that the peer is not barred.
    ///
    /// # Errors
    /// [`Reason::Barred`].
    pub(in crate::ike) fn check_bars(&self, cx: &Context<'_>) -> Result<(), Reason> {
        if cx.is_barred(&self.names(cx.crypto)) { Err(Reason::Barred) } else { Ok(()) }
    }

    /// Records the names that the peer proved.
    ///
    /// # Errors
    /// [`Reason::Barred`] if one of them is barred.
    pub(in crate::ike) fn take_names(&mut self, cx: &Context<'_>, names: &[Identity]) -> Result<(), Reason> {
        let all: BTreeSet<NameHash> = names.iter().map(|name| hash(cx.crypto, name)).collect();
        let is_barred = cx.is_barred(&all);
        let all: Vec<NameHash> = all.into_iter().collect();
        let (known, others) = all.split_at(all.len().min(MAX_NAMES));
        let mut data = known.concat();
        if !others.is_empty() {
            data.extend(cx.crypto.sha1(&[&others.concat()]));
        }
        self.all_names = (all.len() > 1).then(|| Box::new(Identity { kind: kind::SEVERAL, data }));
        if is_barred { Err(Reason::Barred) } else { Ok(()) }
    }
}
