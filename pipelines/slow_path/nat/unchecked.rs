//! Inner addresses whose tunnels have changed, until their mappings have been looked at.

use std::collections::{BTreeSet, VecDeque};
use wayfarer_dataplane::{table::Prefix, wire::Address};

/// Prefixes of inner IPv4 addresses, which have their turns in the order in which they were added, so that
/// none waits for ever for others that change again and again.
#[derive(Debug, Default)]
pub(super) struct Unchecked {
    current: Option<Scan>,
    queue: VecDeque<Prefix>,
    /// What is in the queue.
    queued: BTreeSet<Prefix>,
}

/// A prefix whose turn it is, with the NAT and the address that are next.
#[derive(Clone, Copy, Debug)]
struct Scan {
    prefix: Prefix,
    nat: u8,
    from: u32,
}

impl Unchecked {
    /// Adds a prefix of IPv4, whose addresses are all to be looked at: once more after its present turn, if
    /// it has that.
    pub(super) fn add(&mut self, prefix: Prefix) {
        if self.queued.insert(prefix) {
            self.queue.push_back(prefix);
        }
    }

    /// Returns the NAT that is next for the current prefix, and the first and last address that are left of
    /// it there.
    pub(super) fn next_range(&mut self) -> Option<(u8, Address, Address)> {
        let scan = match self.current {
            Some(scan) => scan,
            None => {
                let prefix = self.queue.pop_front()?;
                self.queued.remove(&prefix);
                *self.current.insert(Scan { prefix, nat: 0, from: span(prefix).0 })
            }
        };
        Some((scan.nat, Address::v4(scan.from), Address::v4(span(scan.prefix).1)))
    }

    /// Goes on behind an address of the current prefix.
    pub(super) fn pass(&mut self, address: Address) {
        let Some(scan) = &mut self.current else { return };
        let address = address.bits() as u32;
        match address < span(scan.prefix).1 {
            true => scan.from = address + 1,
            false => self.next_nat(),
        }
    }

    /// Goes on with the next NAT of the current prefix.
    pub(super) fn next_nat(&mut self) {
        let next = |scan: Scan| {
            let nat = scan.nat.checked_add(1)?;
            Some(Scan { nat, from: span(scan.prefix).0, ..scan })
        };
        self.current = self.current.and_then(next);
    }

    /// Goes on with the next prefix, since nothing is left of the current one.
    pub(super) fn finish(&mut self) {
        self.current = None;
    }
}

/// Returns the first and the last address of a prefix of IPv4.
fn span(prefix: Prefix) -> (u32, u32) {
    let (first, last) = prefix.span();
    (first as u32, last as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_their_turns_and_changes_throw_no_progress_away() {
        let [low, high]: [Prefix; 2] = ["10.0.0.0/24", "10.0.9.0/24"].map(|text| text.parse().unwrap());
        let left = |nat, from, prefix| Some((nat, Address::v4(from), Address::v4(span(prefix).1)));
        let (first, last) = span(high);
        let mut unchecked = Unchecked::default();
        unchecked.add(high);
        assert_eq!(unchecked.next_range(), left(0, first, high));
        unchecked.pass(Address::v4(first + 7));
        [low, high, low, high].into_iter().for_each(|prefix| unchecked.add(prefix));
        assert_eq!(unchecked.next_range(), left(0, first + 8, high), "goes on");
        unchecked.pass(Address::v4(last));
        assert_eq!(unchecked.next_range(), left(1, first, high));
        unchecked.finish();
        assert_eq!(unchecked.next_range(), left(0, span(low).0, low));
        unchecked.add(low);
        unchecked.finish();
        assert_eq!(unchecked.next_range(), left(0, first, high), "once more, before the other's next turn");
        unchecked.finish();
        assert_eq!(unchecked.next_range(), left(0, span(low).0, low));
        unchecked.finish();
        assert_eq!(unchecked.next_range(), None);
    }
}
