//! Ordered lists of rules. Long lists consist of pieces, and a change replaces only the pieces that
//! it touches.

use super::{
    index::{BLOCK, Block},
    rule::{Decision, Rule, first},
};
use std::{borrow::Cow, sync::Arc};
use wayfarer_dataplane::{one_or_many::OneOrMany, sa::Flow};

/// The longest list whose rules are tried one after the other. Longer lists have an index.
const SCANNED: usize = 8;

/// Rules in their order.
#[derive(Clone, Debug)]
pub(super) enum List {
    /// A short list.
    Scanned(OneOrMany<Rule>),
    /// A long list.
    Indexed(Vec<Arc<Block>>),
}

impl Default for List {
    fn default() -> Self {
        Self::Scanned([].into_iter().collect())
    }
}

impl List {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Scanned(rules) if rules.is_empty())
    }

    #[inline(always)]
    pub(super) fn find<'r>(&'r self, outbound: &Flow) -> Option<Decision<'r>> {
        match self {
            Self::Scanned(rules) => first(rules.iter(), outbound),
            Self::Indexed(blocks) => find(blocks, outbound),
        }
    }

    /// Returns this list, changed by `change`.
    pub(super) fn changed(&self, change: impl FnOnce(&mut Draft<'_>)) -> Self {
        let blocks: &[Arc<Block>] = match self {
            Self::Scanned(_) => &[],
            Self::Indexed(blocks) => blocks,
        };
        let mut draft = Draft(match self {
            Self::Scanned(rules) => vec![Cow::Borrowed(&**rules)],
            Self::Indexed(blocks) => blocks.iter().map(|block| Cow::Borrowed(block.rules())).collect(),
        });
        change(&mut draft);
        let count: usize = draft.0.iter().map(|piece| piece.len()).sum();
        if count <= SCANNED {
            return Self::Scanned(draft.0.iter().flat_map(|piece| piece.iter().cloned()).collect());
        }
        draft.0.retain(|piece| !piece.is_empty());
        // Merge pieces, because removals have left too many small ones.
        if draft.0.len() > 1 + 4 * count / BLOCK {
            draft.0 = vec![draft.0.concat().into()];
        }
        let unchanged = |piece: &Cow<'_, [Rule]>| {
            blocks.iter().find(|block| std::ptr::eq(block.rules(), &**piece)).cloned()
        };
        let made = |piece: Cow<'_, [Rule]>| match unchanged(&piece) {
            Some(block) => vec![block],
            None => {
                let parts = piece.len().div_ceil(BLOCK);
                let parts = piece.chunks(piece.len().div_ceil(parts));
                parts.map(|rules| Arc::new(Block::new(rules.into()))).collect()
            }
        };
        Self::Indexed(draft.0.into_iter().flat_map(made).collect())
    }
}

#[inline(never)]
fn find<'r>(blocks: &'r [Arc<Block>], outbound: &Flow) -> Option<Decision<'r>> {
    blocks.iter().find_map(|block| block.find(outbound))
}

/// Rules that are being changed.
#[derive(Debug)]
pub struct Draft<'r>(Vec<Cow<'r, [Rule]>>);

impl Draft<'_> {
    /// Adds a rule after the first ones, those for which `stay_before` is true.
    pub fn insert(&mut self, rule: Rule, stay_before: impl Fn(&Rule) -> bool) {
        let goes_here = |piece: &Cow<'_, [Rule]>| piece.last().is_some_and(|last| !stay_before(last));
        let at = self.0.iter().position(goes_here).unwrap_or(self.0.len() - 1);
        let piece = self.0[at].to_mut();
        piece.insert(piece.partition_point(stay_before), rule);
    }

    /// Adds a rule right before the first one for which `gives_way` is true.
    ///
    /// # Errors
    /// The rule, if there is none.
    pub fn insert_before(&mut self, rule: Rule, gives_way: impl Fn(&Rule) -> bool) -> Result<(), Rule> {
        for piece in &mut self.0 {
            if let Some(at) = piece.iter().position(&gives_way) {
                piece.to_mut().insert(at, rule);
                return Ok(());
            }
        }
        Err(rule)
    }

    /// Removes every rule for which `goes` is true.
    pub fn remove(&mut self, goes: impl Fn(&Rule) -> bool) {
        for piece in self.0.iter_mut().filter(|piece| piece.iter().any(&goes)) {
            piece.to_mut().retain(|rule| !goes(rule));
        }
    }

    /// Changes every rule for which `differs` is true by `update`.
    pub fn update(&mut self, differs: impl Fn(&Rule) -> bool, update: impl Fn(&mut Rule)) {
        for piece in self.0.iter_mut().filter(|piece| piece.iter().any(&differs)) {
            piece.to_mut().iter_mut().filter(|rule| differs(rule)).for_each(&update);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::policy::rule::Action;
    use proptest::prelude::*;
    use wayfarer_dataplane::{
        sa::{Selector, TunnelId},
        table::Prefix,
    };

    /// Makes a rule of a tunnel with a rank.
    fn rule(tunnel: u16, rank: u8) -> Rule {
        let everywhere: Prefix = "0.0.0.0/0".parse().unwrap();
        let mut selector = Selector::configured(everywhere, everywhere);
        selector.rank.remote = rank;
        Rule { selector, action: Action::Ended(TunnelId(tunnel.into())) }
    }

    fn pieces(list: &List) -> Vec<&[Rule]> {
        match list {
            List::Scanned(rules) => vec![rules],
            List::Indexed(blocks) => blocks.iter().map(|block| block.rules()).collect(),
        }
    }

    fn name(rule: &Rule) -> (u8, Option<TunnelId>) {
        (rule.selector.rank.remote, rule.tunnel())
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert { tunnel: u16, rank: u8, count: usize },
        Remove { tunnel: u16 },
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0..8u16, 0..4u8, 1usize..400)
                .prop_map(|(tunnel, rank, count)| Change::Insert { tunnel, rank, count }),
            1 => (0..8u16).prop_map(|tunnel| Change::Remove { tunnel }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn keeps_rules_in_order(changes in proptest::collection::vec(change(), 1..20)) {
            let (mut list, mut expected) = (List::default(), Vec::<Rule>::new());
            for change in changes {
                list = match change {
                    Change::Insert { tunnel, rank, count } => list.changed(|draft| {
                        for _ in 0..count {
                            let stays = |old: &Rule| old.selector.rank.remote >= rank;
                            draft.insert(rule(tunnel, rank), stays);
                            expected.insert(expected.partition_point(stays), rule(tunnel, rank));
                        }
                    }),
                    Change::Remove { tunnel } => list.changed(|draft| {
                        let goes = |old: &Rule| old.tunnel() == Some(TunnelId(tunnel.into()));
                        draft.remove(goes);
                        expected.retain(|rule| !goes(rule));
                    }),
                };
                let pieces = pieces(&list);
                let held: Vec<_> = pieces.iter().flat_map(|piece| piece.iter().map(name)).collect();
                prop_assert_eq!(held, expected.iter().map(name).collect::<Vec<_>>());
                prop_assert!(pieces.iter().all(|piece| piece.len() <= BLOCK));
                prop_assert!(pieces.len() <= 2 + 5 * expected.len() / BLOCK, "{} pieces", pieces.len());
            }
        }
    }

    #[test]
    fn change_replaces_only_the_pieces_that_it_touches() {
        let stays = |old: &Rule| old.selector.rank.remote >= 3;
        let many = List::default().changed(|draft| {
            (0..10_000).for_each(|_| draft.insert(rule(1, 3), stays));
            (0..10_000).for_each(|_| draft.insert(rule(2, 1), |_| true));
        });
        let more = many.changed(|draft| draft.insert(rule(3, 3), stays));
        let (before, after) = (pieces(&many), pieces(&more));
        let is_new = |piece: &&&[Rule]| !before.iter().any(|old| std::ptr::eq(*old, **piece));
        assert!(before.len() >= 20_000 / BLOCK);
        assert!(after.iter().filter(is_new).count() <= 2);
    }
}
