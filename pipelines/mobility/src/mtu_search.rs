//! The search for the longest packet that a path takes, by packets that are acknowledged (RFC 8899
//! §5.3).

/// The length that nearly every path takes, in bytes: the least MTU of IPv6 (RFC 8899 §5.1.2,
/// BASE_PLPMTU).
const BASE: u16 = 1280;
/// The least length that is tried over IPv4, in bytes: what every host takes (RFC 791 §3.1).
const V4_LEAST: u16 = 576;
/// Usual MTUs in bytes, in ascending order: of devices, of tunnels through them, and steps between.
const USUAL: [u16; 29] = [
    V4_LEAST, 1006, 1200, BASE, 1300, 1320, 1340, 1360, 1380, 1400, 1420, 1430, 1440, 1450, 1460, 1472, 1476,
    1480, 1492, 1500, 2000, 3000, 4400, 4470, 6000, 8000, 8500, 8900, 9000,
];

/// A search. Lengths are those of IP packets, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MtuSearch {
    first: u16,
    most: u16,
    least: u16,
    /// True if lengths beyond `first` are tried too, once that has passed.
    rises: bool,
    /// True if `first` has passed before, so that it must fail twice.
    was_proved: bool,
    /// A length to try before others, once a longer one has failed.
    suggested: Option<u16>,
    passed: Option<u16>,
    failed: Option<u16>,
}

impl MtuSearch {
    /// Begins a search with the length `first`, up to `most`, on a path of IPv4 or IPv6. It ends with
    /// `first` if that passes, unless it `rises`. A `first` that `was_proved` before must fail twice, the
    /// second time after something shorter has passed.
    pub(crate) fn new(first: u16, most: u16, is_ipv4: bool, rises: bool, was_proved: bool) -> Self {
        let least = if is_ipv4 { V4_LEAST } else { BASE };
        Self {
            first: first.min(most),
            most,
            least,
            rises,
            was_proved,
            suggested: None,
            passed: None,
            failed: None,
        }
    }

    /// Returns the length to try next; `None` if the search is over.
    pub(crate) fn next(&self) -> Option<u16> {
        let beyond = self.passed.map_or(self.least, |passed| passed + 1);
        let suggested = self.suggested.filter(|size| {
            self.failed.is_some_and(|failed| (beyond..failed).contains(size)) && !self.is_doubted()
        });
        if suggested.is_some() {
            return suggested;
        }
        match (self.passed, self.failed) {
            (None, None) => Some(self.first),
            (None, Some(failed)) => [BASE, self.least].into_iter().find(|size| *size < failed),
            (Some(_), Some(_)) if self.is_doubted() => Some(self.first),
            (Some(passed), None) => (self.rises && passed < self.most).then_some(self.most),
            (Some(passed), Some(failed)) => {
                let between = USUAL.iter().filter(|size| (passed + 1..failed).contains(*size));
                let count = between.clone().count();
                between.copied().nth(count / 2)
            }
        }
    }

    /// Has the search try this length before others if it may be the longest that passes. Only the first
    /// one counts, since anybody may suggest one.
    pub(crate) fn suggest(&mut self, size: u16) {
        self.suggested.get_or_insert(size);
    }

    /// Notes that a packet of this length has passed.
    pub(crate) fn pass(&mut self, size: u16) {
        self.passed = self.passed.max(Some(size));
        self.failed = self.failed.filter(|failed| *failed > size);
    }

    /// Notes that no packet of this length passes.
    pub(crate) fn fail(&mut self, size: u16) {
        self.was_proved &= !self.is_doubted();
        self.failed = Some(self.failed.map_or(size, |failed| failed.min(size)));
    }

    /// Returns true if what has passed is not all yet: the length that passed before is tried once more.
    pub(crate) fn is_doubted(&self) -> bool {
        self.was_proved && self.passed.is_some_and(|passed| passed < self.first)
    }

    /// Returns the longest length that has passed.
    pub(crate) fn passed(&self) -> Option<u16> {
        self.passed
    }

    /// Returns the longest length that may be tried.
    pub(crate) fn most(&self) -> u16 {
        self.most
    }

    /// Returns true if the longest packets pass.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.passed == Some(self.most)
    }

    /// Returns true if the search has tried lengths beyond the first one.
    pub(crate) fn has_risen(&self) -> bool {
        self.rises && self.passed >= Some(self.first) && self.first < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Runs a search on a path with this MTU. Returns what it found, and the lengths that it tried.
    fn run(mut search: MtuSearch, mtu: u16) -> (Option<u16>, Vec<u16>) {
        let mut tried = Vec::new();
        while let Some(size) = search.next() {
            assert!(!tried.contains(&size), "{size} is tried again: {tried:?}");
            tried.push(size);
            if size <= mtu { search.pass(size) } else { search.fail(size) }
        }
        (search.passed(), tried)
    }

    #[test]
    fn finds_the_next_usual_length_of_every_path_in_a_few_steps() {
        for most in [1400, 1500, 1504, 9000] {
            for mtu in V4_LEAST..=most {
                let (found, tried) = run(MtuSearch::new(most, most, true, false, false), mtu);
                let wanted =
                    if mtu == most { most } else { *USUAL.iter().rfind(|size| **size <= mtu).unwrap() };
                assert_eq!(found, Some(wanted), "{most} {mtu} {tried:?}");
                assert!(tried.len() <= 8, "{tried:?}");
            }
        }
        assert_eq!(run(MtuSearch::new(1500, 1500, true, false, false), 1500).1, [1500]);
        assert_eq!(
            run(MtuSearch::new(1500, 1500, true, false, false), 575),
            (None, [1500, BASE, V4_LEAST].into())
        );
        assert_eq!(run(MtuSearch::new(1500, 1500, false, false, false), 1279), (None, [1500, BASE].into()));
        assert_eq!(
            run(MtuSearch::new(V4_LEAST, V4_LEAST, true, false, false), 575),
            (None, [V4_LEAST].into())
        );
    }

    #[test]
    fn confirms_a_length_and_rises_only_if_told_to() {
        let known = |rises| MtuSearch::new(1438, 1500, true, rises, false);
        assert_eq!(run(known(false), 1500), (Some(1438), [1438].into()));
        assert_eq!(run(known(true), 1500), (Some(1500), [1438, 1500].into()));
        let (found, tried) = run(known(true), 1439);
        assert_eq!((found, &tried[..2]), (Some(1438), &[1438, 1500][..]));
        assert_eq!(run(known(false), 1400).0, Some(1400));
        // The port sends no more than that by now.
        assert_eq!(run(MtuSearch::new(1438, 1400, true, true, false), 1500), (Some(1400), [1400].into()));
    }

    #[test]
    fn length_that_was_proved_before_must_fail_twice() {
        let mut lossy = MtuSearch::new(1500, 1500, true, false, true);
        lossy.fail(1500);
        assert_eq!((lossy.next(), lossy.is_doubted()), (Some(BASE), false));
        lossy.pass(BASE);
        assert_eq!((lossy.next(), lossy.is_doubted()), (Some(1500), true));
        let mut narrow = lossy;
        lossy.pass(1500);
        assert_eq!((lossy.next(), lossy.passed(), lossy.is_doubted()), (None, Some(1500), false));
        narrow.fail(1500);
        assert!(!narrow.is_doubted());
        assert!(narrow.next().is_some_and(|size| (BASE..1500).contains(&size)));
    }

    #[test]
    fn suggested_length_is_tried_first_and_only_one_is() {
        let mut search = MtuSearch::new(1500, 1500, true, false, false);
        search.suggest(1438);
        search.suggest(700);
        assert_eq!(run(search, 1500).1, [1500]);
        let (found, tried) = run(search, 1438);
        assert_eq!((found, &tried[..2]), (Some(1438), &[1500, 1438][..]));
        assert!(run(search, 1437).1.iter().all(|size| *size != 700));
        for useless in [0, 100, 1500, 9000] {
            let mut search = MtuSearch::new(1500, 1500, true, false, false);
            search.suggest(useless);
            assert_eq!(run(search, 1400).0, Some(1400));
        }
    }
}
