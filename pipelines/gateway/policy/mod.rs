//! Policy (RFC 4301 §4.4.1): rules, their order, and which of them covers a packet.
//!
//! The operator's configuration orders rules. The longest prefix that it has for the peer's side comes first; within a
//! prefix, tunnels come before policies, each in the order of the configuration. What a peer negotiates lies within what
//! the configuration allows it and changes nothing of that order: a rule keeps the [`Rank`] of what it was narrowed from.
//!
//! [`Rank`]: wayfarer_dataplane::sa::Rank

mod index;

use index::Index;
use std::{ops::Deref, sync::Arc};
use wayfarer_dataplane::{
    few::Few,
    sa::{Flow, OutboundSa, Selector, TunnelId},
};

/// Rules of one prefix that are tried one after the other; with more, an index says which to try.
const SCANNED: usize = 8;

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
    /// Drops what the SA of this tunnel carried until its time was over: it is not for the clear.
    Ended(TunnelId),
}

impl Rule {
    /// The tunnel whose traffic it is.
    pub fn tunnel(&self) -> Option<TunnelId> {
        match &self.action {
            Action::Protect(sa) => Some(sa.tunnel),
            Action::Ended(tunnel) => Some(*tunnel),
            Action::Bypass | Action::Discard => None,
        }
    }

    /// Returns whether it speaks of its peer's addresses more closely than `rank`, with which `tunnel` or a policy speaks
    /// of them; as closely, if it is another tunnel's.
    pub fn outranks(&self, rank: u8, tunnel: Option<TunnelId>) -> bool {
        let own = self.selector.rank.remote;
        own > rank || (own == rank && self.tunnel().is_some() && self.tunnel() != tunnel)
    }
}

/// What policy says of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'r> {
    /// A rule covers it.
    Rule(&'r Rule),
    /// A later fragment, of which a rule asks for what only the first one shows.
    Hidden(&'r Rule),
    /// Nothing covers it.
    None,
}

impl<'r> Verdict<'r> {
    /// The rule that covers the packet, or may.
    #[inline(always)]
    pub fn rule(self) -> Option<&'r Rule> {
        match self {
            Self::Rule(rule) | Self::Hidden(rule) => Some(rule),
            Self::None => None,
        }
    }

    /// Whether rules of shorter prefixes may come before the one that covers the packet. They cannot if that has the rank of its
    /// own prefix: theirs is less.
    #[inline(always)]
    pub(super) fn is_narrowed(self) -> bool {
        self.rule().is_some_and(|rule| rule.selector.rank.is_narrowed)
    }

    /// What comes first: this, or what the rules of a shorter prefix say if they rank higher.
    pub(super) fn or_higher(self, shorter: Self) -> Self {
        let rank = |verdict: Self| verdict.rule().map(|rule| rule.selector.rank.remote);
        if rank(shorter) > rank(self) { shorter } else { self }
    }
}

/// The rules of one prefix, in their order.
#[derive(Debug)]
pub enum Rules {
    /// Few: tried one after the other.
    Scanned(Few<Rule>),
    /// Many.
    Indexed(Box<Index>),
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        match rules.into_iter().collect() {
            Few::Several(many) if many.len() > SCANNED => Self::Indexed(Box::new(Index::new(many))),
            few => Self::Scanned(few),
        }
    }
}

impl Deref for Rules {
    type Target = [Rule];

    fn deref(&self) -> &[Rule] {
        match self {
            Self::Scanned(rules) => rules,
            Self::Indexed(index) => index.rules(),
        }
    }
}

impl Rules {
    /// What these rules, of a prefix that contains the packet's destination, say of it: the first that covers it, or that
    /// nobody can tell whether it covers.
    #[inline(always)]
    pub(super) fn find<'r>(&'r self, outbound: &Flow) -> Option<Verdict<'r>> {
        match self {
            Self::Scanned(rules) => first(rules.iter(), outbound),
            Self::Indexed(index) => index.find(outbound),
        }
    }
}

#[inline(always)]
fn first<'r>(rules: impl Iterator<Item = &'r Rule>, outbound: &Flow) -> Option<Verdict<'r>> {
    for rule in rules {
        if rule.selector.covers_from(outbound) {
            return Some(Verdict::Rule(rule));
        }
        if rule.selector.cannot_tell(outbound) {
            return Some(Verdict::Hidden(rule));
        }
    }
    None
}
