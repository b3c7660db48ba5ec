//! Exchanges of both sides that collide: which are refused for now, and which SA stays if both were
//! created (RFC 7296 §2.8.1, §2.8.2, §2.25).

use crate::ike::{
    bounds,
    context::Context,
    counter::Counter,
    event::ChildId,
    peer::{
        Peer,
        child::{Child, ChildState},
        creation::{AgreedSa, Collision, NewSa, OwnCreate, Target},
        request::QueuedRequest,
    },
    wire::{ErrorNotify, notify},
};
use alloc::vec::Vec;

impl OwnCreate {
    /// Returns true if the SA of this exchange must go: one of its two nonces is the lowest of all
    /// four (RFC 7296 §2.8.1). `nonce` is the peer's.
    pub(super) fn has_lost(&self, nonce: &[u8]) -> bool {
        self.collision.as_ref().is_some_and(|theirs| lower(&self.nonce, nonce) < &theirs.nonce[..])
    }
}

impl Collision {
    /// Returns a collision with an exchange of the peer that had these nonces and created `sa`, or
    /// will create it by further key exchanges.
    pub(super) fn new([a, b]: &[Vec<u8>; 2], sa: Option<NewSa>) -> Self {
        Self { nonce: lower(a, b).to_vec(), sa }
    }
}

impl Peer {
    /// Checks that the peer may replace the IKE SA.
    ///
    /// # Errors
    /// TEMPORARY_FAILURE while we create or delete a child SA, which must not change IKE SAs
    /// meanwhile (RFC 7296 §2.25.2); once the peer has agreed that we replace the IKE SA by several
    /// key exchanges (RFC 9370 §2.2.4); and while too many IKE SAs remain that the peer has not
    /// deleted.
    pub(super) fn may_replace_ike_sa(&mut self, cx: &mut Context<'_>) -> Result<(), ErrorNotify> {
        if self.own_create(|target| target != Target::IkeSa).is_some()
            || self.follows_up(Target::IkeSa)
            || self.children.iter().any(|child| matches!(child.state(), ChildState::Deleting { .. }))
        {
            return Err(notify::TEMPORARY_FAILURE.into());
        }
        if self.ike_sas.len() >= bounds::IKE_SAS {
            self.drop_ended_ike_sa(cx);
        }
        if self.has_collision(Target::IkeSa) || self.ike_sas.len() >= bounds::IKE_SAS {
            cx.count(Counter::NoRoom);
            return Err(notify::TEMPORARY_FAILURE.into());
        }
        Ok(())
    }

    /// Returns the child SA with the peer's SPI `spi_out`, if the peer may replace it (RFC 7296
    /// §1.3.3).
    ///
    /// # Errors
    /// TEMPORARY_FAILURE if we are closing it or either side has replaced it (RFC 7296 §2.25.1), or
    /// the peer has agreed that we replace it by several key exchanges (RFC 9370 §2.2.4), or it may
    /// be the one that we are creating: the peer has it as soon as it has answered us.
    /// CHILD_SA_NOT_FOUND if there is none; the peer then ends it and makes another.
    pub(super) fn replaceable_child(&mut self, spi_out: [u8; 4]) -> Result<ChildId, ErrorNotify> {
        let is_it = |child: &&Child| child.sa.spi_out.to_be_bytes() == spi_out;
        let Some(child) = self.children.iter().find(is_it) else {
            return Err(match self.own_create(|target| target != Target::IkeSa) {
                Some(_) => notify::TEMPORARY_FAILURE.into(),
                None => ErrorNotify::child_sa_not_found(spi_out),
            });
        };
        let id = child.id;
        match child.state() {
            ChildState::Lingering { .. } => Err(ErrorNotify::child_sa_not_found(spi_out)),
            ChildState::Replaced { .. } | ChildState::Deleting { .. } => {
                Err(notify::TEMPORARY_FAILURE.into())
            }
            _ if self.has_collision(Target::Rekey(id)) || self.follows_up(Target::Rekey(id)) => {
                Err(notify::TEMPORARY_FAILURE.into())
            }
            _ => Ok(id),
        }
    }

    /// Returns true if the SA that `sa` replaces still exists and is not about to be deleted or, as
    /// the peer has agreed, to be replaced by us. The peer's request came by IKE SA `spi`.
    pub(super) fn is_replaceable(&self, spi: u64, sa: &AgreedSa) -> bool {
        let replaces = match sa {
            AgreedSa::Child(agreed) => agreed.replaces,
            AgreedSa::IkeSa(_) => None,
        };
        let is_there =
            |id| self.children.iter().any(|child| child.id == id && child.state().carries_traffic());
        let is_ours = sa.target().is_some_and(|target| self.follows_up(target));
        spi == self.active && replaces.is_none_or(is_there) && !is_ours
    }

    /// Returns true if the peer creates or has created the same SA that we are creating.
    fn has_collision(&mut self, target: Target) -> bool {
        self.own_create(|own| own == target).is_some_and(|create| create.collision.is_some())
    }

    /// Records that the peer creates this SA. Returns true if we are creating the same one.
    pub(super) fn collides(&mut self, target: Target, collision: Collision) -> bool {
        match self.own_create(|own| own == target) {
            Some(create) => {
                create.collision = Some(collision);
                true
            }
            None => false,
        }
    }

    /// Ends the collision with the peer's new IKE SA `spi`, which the peer has deleted again.
    pub(in crate::ike) fn end_collision(&mut self, spi: u64) {
        if let Some(create) = self.own_create(|target| target == Target::IkeSa) {
            create.collision.take_if(|theirs| theirs.sa == Some(NewSa::IkeSa(spi)));
        }
    }

    /// Gives up the SA that the peer is creating, because it has not sent the next key exchange, or
    /// its exchange has lost.
    pub(in crate::ike) fn drop_followup(&mut self, cx: &mut Context<'_>) {
        let Some(followup) = self.followup.take() else { return };
        self.withdraw_agreed(cx, followup.agreed.sa);
    }

    /// Does the same if it is the SA of this target.
    pub(super) fn drop_followup_of(&mut self, cx: &mut Context<'_>, target: Target) {
        if self.followup.as_ref().is_some_and(|followup| followup.agreed.sa.target() == Some(target)) {
            self.drop_followup(cx);
        }
    }

    /// Releases an SA that the peer is not going to create.
    pub(super) fn withdraw_agreed(&mut self, cx: &mut Context<'_>, sa: AgreedSa) {
        sa.withdraw(cx);
        if let Some(target) = sa.target()
            && let Some(create) = self.own_create(|own| own == target)
        {
            create.collision.take_if(|theirs| theirs.sa.is_none());
        }
    }

    /// Returns true if the peer that requested this child SA may not have our response yet, because
    /// it has not deleted the predecessor.
    pub(super) fn is_unknown_to_peer(&self, id: ChildId) -> bool {
        let is_kept = |child: &Child| {
            matches!(child.state(), ChildState::Rekeying { .. } | ChildState::Replaced { .. })
        };
        self.children.iter().any(|child| child.successor == Some(id) && is_kept(child))
    }

    /// Decides which child SA stays: our `made` or the peer's, either in place of `old`. The side
    /// that began the exchange of the losing one deletes it (RFC 7296 §2.8.1).
    pub(super) fn settle_child(
        &mut self,
        cx: &Context<'_>,
        old: ChildId,
        made: ChildId,
        lost: bool,
        theirs: Option<NewSa>,
    ) {
        let theirs = theirs.and_then(|theirs| match theirs {
            NewSa::Child(theirs) => Some(theirs),
            NewSa::IkeSa(_) => None,
        });
        if lost && theirs.is_none() {
            // The old one stays until the peer's further key exchanges are done.
            self.change_child(old, |state| state.abandon_rekey(Some(cx.now + bounds::FOLLOWUP_WAIT)));
            if let Some(old) = self.child(old) {
                old.successor = None;
            }
            return self.enqueue(QueuedRequest::DeleteChild(made));
        }
        // The peer may have deleted the old one meanwhile.
        let goes = self.change_child(old, ChildState::replace);
        match theirs {
            Some(theirs) if lost => {
                // It is used once the peer shows that it has the keys.
                if let Some(child) = self.child(old) {
                    child.successor = Some(theirs);
                }
                self.enqueue(QueuedRequest::DeleteChild(made));
            }
            theirs => {
                if let Some(theirs) = theirs {
                    self.change_child(theirs, ChildState::replace);
                }
                if goes {
                    self.enqueue(QueuedRequest::DeleteChild(old));
                }
            }
        }
    }

    /// Decides which IKE SA stays: our `made` or the peer's, either in place of the active one (RFC
    /// 7296 §2.8.2).
    pub(super) fn settle_ike_sa(
        &mut self,
        cx: &mut Context<'_>,
        made: u64,
        lost: bool,
        theirs: Option<NewSa>,
    ) {
        if lost {
            match theirs {
                Some(theirs) => self.use_ike_sa_of_peer(cx, theirs),
                // The old one stays until the peer's further key exchanges are done.
                None => self.rekey_at = Some(cx.now + bounds::FOLLOWUP_WAIT),
            }
            return self.request_delete_ike_sa(cx, made);
        }
        let old = self.active;
        self.use_ike_sa(cx, old, made);
        self.request_delete_ike_sa(cx, old);
        // The peer deletes the SA that it created, unless it never learns that it exists.
        let until = cx.now + cx.settings.retransmission.total();
        if let Some(NewSa::IkeSa(theirs)) = theirs
            && let Some(theirs) = self.ike_sas.iter_mut().find(|s| s.local_spi() == theirs)
        {
            theirs.change(|life| life.replace(until));
        }
    }

    /// Makes the IKE SA that the peer created the active one.
    pub(super) fn use_ike_sa_of_peer(&mut self, cx: &mut Context<'_>, theirs: NewSa) {
        if let NewSa::IkeSa(spi) = theirs {
            let old = self.active;
            self.use_ike_sa(cx, old, spi);
        }
    }
}

/// Returns the lower of two nonces, octet by octet (RFC 7296 §2.8.1).
fn lower<'a>(a: &'a [u8], b: &'a [u8]) -> &'a [u8] {
    a.min(b)
}
