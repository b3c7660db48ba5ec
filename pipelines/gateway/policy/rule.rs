//! Rules of policy, and decisions by them.

use std::sync::Arc;
use wayfarer_dataplane::sa::{Flow, OutboundSa, Selector, TunnelId};

/// One rule of the policy database (RFC 4301 §4.4.1).
#[derive(Clone, Debug)]
pub struct Rule {
    /// The traffic that the rule covers.
    pub selector: Selector,
    /// The action on that traffic.
    pub action: Action,
}

/// The action of a rule.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends traffic through this SA.
    Protect(Arc<OutboundSa>),
    /// Forwards traffic in clear.
    Bypass,
    /// Drops traffic.
    Discard,
    /// Drops traffic that a tunnel would carry, so that it does not leave in clear.
    Guard,
    /// Drops traffic of this tunnel, whose SA has expired, so that it does not leave in clear.
    Ended(TunnelId),
}

impl Rule {
    /// Returns the tunnel to which the rule belongs.
    pub fn tunnel(&self) -> Option<TunnelId> {
        match &self.action {
            Action::Protect(sa) => Some(sa.tunnel),
            Action::Ended(tunnel) => Some(*tunnel),
            Action::Bypass | Action::Discard | Action::Guard => None,
        }
    }

    /// Returns whether the rule goes before one of `tunnel` or a policy with `rank`: its rank is
    /// higher, or the same if it is another tunnel's.
    pub fn outranks(&self, rank: u8, tunnel: Option<TunnelId>) -> bool {
        let own = self.selector.rank.remote;
        own > rank || (own == rank && self.tunnel().is_some() && self.tunnel() != tunnel)
    }
}

/// The decision of policy on a packet.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'r> {
    /// A rule covers the packet.
    Rule(&'r Rule),
    /// The packet is a later fragment, and a rule depends on fields that only the first fragment
    /// shows.
    Hidden(&'r Rule),
    /// No rule covers the packet.
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
    /// They cannot if that has the rank of its own prefix, because theirs are lower.
    #[inline(always)]
    pub(in crate::gateway) fn is_narrowed(self) -> bool {
        self.rule().is_some_and(|rule| rule.selector.rank.is_narrowed)
    }

    /// Returns this decision, or the one of a shorter prefix's rules if they rank higher.
    pub(in crate::gateway) fn or_higher(self, shorter: Self) -> Self {
        let rank = |decision: Self| decision.rule().map(|rule| rule.selector.rank.remote);
        if rank(shorter) > rank(self) { shorter } else { self }
    }
}

/// Returns the decision of the first of `rules` that covers `outbound`, or may cover it.
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
