//! One rule, and what policy decides by it.

use std::sync::Arc;
use wayfarer_dataplane::sa::{Flow, OutboundSa, Selector, TunnelId};

/// One rule of the policy database (RFC 4301 §4.4.1).
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it covers.
    pub selector: Selector,
    /// What happens to it.
    pub action: Action,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends it through this SA.
    Protect(Arc<OutboundSa>),
    /// Forwards it in clear.
    Bypass,
    /// Drops it.
    Discard,
    /// Drops what a tunnel would carry: it is not for the clear.
    Guard,
    /// Drops what the SA of this tunnel carried until its time was over: it is not for the clear.
    Ended(TunnelId),
}

impl Rule {
    /// Returns the tunnel whose traffic it is.
    pub fn tunnel(&self) -> Option<TunnelId> {
        match &self.action {
            Action::Protect(sa) => Some(sa.tunnel),
            Action::Ended(tunnel) => Some(*tunnel),
            Action::Bypass | Action::Discard | Action::Guard => None,
        }
    }

    /// Returns whether it speaks of its peer's addresses more closely than `rank`, with which
    /// `tunnel` or a policy speaks of them; as closely, if it is another tunnel's.
    pub fn outranks(&self, rank: u8, tunnel: Option<TunnelId>) -> bool {
        let own = self.selector.rank.remote;
        own > rank || (own == rank && self.tunnel().is_some() && self.tunnel() != tunnel)
    }
}

/// What policy says of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'r> {
    /// A rule covers it.
    Rule(&'r Rule),
    /// A later fragment, of which a rule asks for what only the first one shows.
    Hidden(&'r Rule),
    /// Nothing covers it.
    None,
}

impl<'r> Decision<'r> {
    /// Returns the rule that covers the packet, or may.
    #[inline(always)]
    pub fn rule(self) -> Option<&'r Rule> {
        match self {
            Self::Rule(rule) | Self::Hidden(rule) => Some(rule),
            Self::None => None,
        }
    }

    /// Returns whether rules of shorter prefixes may come before the one that covers the packet.
    /// They cannot if that has the rank of its own prefix: theirs is less.
    #[inline(always)]
    pub(in crate::gateway) fn is_narrowed(self) -> bool {
        self.rule().is_some_and(|rule| rule.selector.rank.is_narrowed)
    }

    /// Returns what comes first: this, or what the rules of a shorter prefix say if they rank
    /// higher.
    pub(in crate::gateway) fn or_higher(self, shorter: Self) -> Self {
        let rank = |decision: Self| decision.rule().map(|rule| rule.selector.rank.remote);
        if rank(shorter) > rank(self) { shorter } else { self }
    }
}

/// Returns the decision of the first of `rules` that covers `outbound`, or may.
#[inline(always)]
pub(super) fn first<'r>(rules: impl Iterator<Item = &'r Rule>, outbound: &Flow) -> Option<Decision<'r>> {
    for rule in rules {
        if rule.selector.covers_from(outbound) {
            return Some(Decision::Rule(rule));
        }
        if rule.selector.cannot_tell(outbound) {
            return Some(Decision::Hidden(rule));
        }
    }
    None
}
