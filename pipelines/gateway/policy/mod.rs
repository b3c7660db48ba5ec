//! Policy (RFC 4301 §4.4.1): rules, their order, and the look-up of the rule that covers a packet.
//!
//! The operator's configuration orders rules. Longer prefixes of the peer's side come first. Within
//! a prefix, tunnels come before policies, each in the order of the configuration. Selectors that a
//! peer negotiates lie within those of the configuration and do not change the order: a rule keeps
//! the [`Rank`] of the selector that it was narrowed from.
//!
//! [`Rank`]: wayfarer_dataplane::sa::Rank

mod index;
mod list;
mod rule;

pub use list::Draft;
pub use rule::{Action, Decision, Rule};

use list::List;
use std::sync::Arc;
use wayfarer_dataplane::sa::Flow;

/// The rules of one prefix. Those of tunnels, which peers change, are separate from the policies,
/// of which there may be many more.
#[derive(Debug, Default)]
pub struct Rules {
    tunnels: List,
    /// The policies, if there are any.
    policies: Option<Arc<List>>,
}

impl Rules {
    /// Returns these rules with the tunnels' rules changed.
    pub fn with_tunnels(&self, change: impl FnOnce(&mut Draft<'_>)) -> Self {
        Self { tunnels: self.tunnels.changed(change), policies: self.policies.clone() }
    }

    /// Returns these rules with the policies changed.
    pub fn with_policies(&self, change: impl FnOnce(&mut Draft<'_>)) -> Self {
        let policies = self.policies.as_deref().unwrap_or(&List::default()).changed(change);
        let policies = (!policies.is_empty()).then(|| Arc::new(policies));
        Self { tunnels: self.tunnels.clone(), policies }
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty() && self.policies.is_none()
    }

    /// Returns the first rule of a tunnel that covers a packet, or may cover it. The packet's
    /// destination is in the rules' prefix.
    pub fn find_tunnel(&self, outbound: &Flow) -> Option<&Rule> {
        self.tunnels.find(outbound)?.rule()
    }

    /// Returns the decision of the first of these rules that covers a packet, or may cover it. The
    /// packet's destination is in the rules' prefix.
    #[inline(always)]
    pub(super) fn find<'r>(&'r self, outbound: &Flow) -> Option<Decision<'r>> {
        let found = self.tunnels.find(outbound);
        match &self.policies {
            None => found,
            Some(policies) => policies.or_higher(found, outbound),
        }
    }
}

impl List {
    /// Returns the decision that the tunnels' rules of the same prefix `found`, or that of these
    /// policies if the tunnels' rules found none or rank lower.
    #[inline(never)]
    fn or_higher<'r>(&'r self, found: Option<Decision<'r>>, outbound: &Flow) -> Option<Decision<'r>> {
        match found {
            None => self.find(outbound),
            // No rule ranks higher than its prefix.
            Some(found) if !found.is_narrowed() => Some(found),
            Some(found) => Some(self.find(outbound).map_or(found, |policy| found.or_higher(policy))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_dataplane::{
        sa::{Rank, Selector, TunnelId},
        table::Prefix,
        wire::Address,
    };

    fn rule(local: &str, rank: u8, action: Action) -> Rule {
        let mut selector =
            Selector::configured(local.parse().unwrap(), "10.0.0.0/8".parse::<Prefix>().unwrap());
        selector.rank = Rank { remote: rank, is_narrowed: rank < 8, ..selector.rank };
        Rule { selector, action }
    }

    #[test]
    fn tunnel_comes_before_policies_unless_narrowed_from_a_shorter_prefix() {
        let policies = ["192.0.2.0/24", "198.51.100.0/24"].map(|local| rule(local, 8, Action::Discard));
        let add = |rules: [Rule; 2]| |draft: &mut Draft<'_>| rules.map(|rule| draft.insert(rule, |_| true));
        let rules = Rules::default().with_policies(|draft| _ = add(policies)(draft));
        let (wide, narrowed) = (TunnelId(1), TunnelId(2));
        let tunnels =
            [rule("192.0.2.0/25", 8, Action::Ended(wide)), rule("0.0.0.0/0", 0, Action::Ended(narrowed))];
        let with_tunnels = rules.with_tunnels(|draft| _ = add(tunnels)(draft));
        let found = |rules: &Rules, src: [u8; 4]| {
            let src = Address::v4(u32::from_be_bytes(src));
            let dst = Address::v4(0x0a00_0001);
            let flow = Flow { src, dst, protocol: 17, ports: None, is_later_fragment: false };
            rules.find(&flow).map(|decision| decision.rule().unwrap().tunnel())
        };
        assert_eq!(found(&with_tunnels, [192, 0, 2, 1]), Some(Some(wide)));
        assert_eq!(found(&with_tunnels, [192, 0, 2, 200]), Some(None));
        assert_eq!(found(&with_tunnels, [198, 51, 100, 1]), Some(None));
        assert_eq!(found(&with_tunnels, [203, 0, 113, 1]), Some(Some(narrowed)));
        // Changes by peers leave the policies and their index as they were.
        let shared = |rules: &Rules| Arc::as_ptr(rules.policies.as_ref().unwrap());
        assert_eq!(shared(&rules), shared(&with_tunnels));
        let without = with_tunnels.with_tunnels(|draft| draft.remove(|_| true));
        assert_eq!(found(&without, [203, 0, 113, 1]), None);
        assert!(!without.is_empty() && without.with_policies(|draft| draft.remove(|_| true)).is_empty());
    }
}
