//! Who a peer is: in whose name it has addresses, and who answers for what it does.

use super::state::Peer;
use crate::{
    identity::{Identity, kind},
    ike::{connection::RemoteAuth, context::Context, pool::Owner},
};
use alloc::{boxed::Box, vec, vec::Vec};

impl Peer {
    /// Who it has proved to be: by EAP, or what its ID payload says and its proof shows.
    pub(in crate::ike) fn name(&self) -> Option<&Identity> {
        self.account.as_deref().or(self.identity.as_ref())
    }

    /// Whose addresses it gets, and whose place it takes: the same one, whichever of its names it
    /// comes by.
    pub(in crate::ike) fn owner(&self) -> Option<Owner> {
        let name = self.all_names.as_deref().cloned();
        Some((self.connection?, name.or_else(|| Some(self.name()?.canonical()))?))
    }

    /// Who answers for its moves and its requests for SAs. A name that nobody proved is a new one
    /// each time that the peer wants it to be, so all such peers of a connection answer together:
    /// those whom EAP did not name, and those with a shared key, which shows no more than that they
    /// have it.
    pub(in crate::ike) fn principal(&self, cx: &Context<'_>) -> Option<Owner> {
        let (connection, name) = self.owner()?;
        let is_proved = !name.is_unnamed() && !matches!(self.connection(cx)?.remote_auth, RemoteAuth::Psk(_));
        Some((connection, if is_proved { name } else { Identity::anybody() }))
    }

    /// Takes the names that it has proved.
    pub(in crate::ike) fn take_names(&mut self, cx: &Context<'_>, names: &[Identity]) {
        let mut all: Vec<Identity> = names.iter().map(Identity::canonical).collect();
        all.sort();
        all.dedup();
        let parts = all.iter().flat_map(|name| {
            [vec![name.kind], (name.data.len() as u32).to_be_bytes().to_vec(), name.data.clone()]
        });
        let data = cx.crypto.sha1(&[&parts.flatten().collect::<Vec<u8>>()]).to_vec();
        self.all_names = (all.len() > 1).then(|| Box::new(Identity { kind: kind::SEVERAL, data }));
    }
}
