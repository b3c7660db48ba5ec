//! Inner addresses that have no peer any more, or another, until their mappings have ended.

use std::collections::BTreeMap;
use wayfarer_dataplane::{table::Prefix, wire::Address};

/// Prefixes of inner IPv4 addresses, each with the NAT and the address that are next.
#[derive(Debug, Default)]
pub(super) struct Freed(BTreeMap<Prefix, (u8, u32)>);

impl Freed {
    /// Adds a prefix of IPv4, whose addresses are all to be looked at.
    pub(super) fn add(&mut self, prefix: Prefix) {
        self.0.insert(prefix, (0, span(prefix).0));
    }

    /// Returns whether an address is within one of the prefixes.
    pub(super) fn has(&self, address: Address) -> bool {
        let within = |length| Prefix::new(address.into(), length);
        !self.0.is_empty() && (0..=32).filter_map(within).any(|prefix| self.0.contains_key(&prefix))
    }

    /// Returns the length of the first prefix.
    pub(super) fn length(&self) -> u8 {
        self.0.first_key_value().map_or(0, |(prefix, _)| prefix.length())
    }

    /// Returns the NAT that is next for the first prefix, and the first and last address that are left of
    /// it there.
    pub(super) fn first(&self) -> Option<(u8, Address, Address)> {
        let (prefix, (nat, from)) = self.0.first_key_value()?;
        Some((*nat, Address::v4(*from), Address::v4(span(*prefix).1)))
    }

    /// Goes on behind an address of the first prefix.
    pub(super) fn pass(&mut self, address: Address) {
        let Some(mut entry) = self.0.first_entry() else { return };
        let (address, last) = (address.bits() as u32, span(*entry.key()).1);
        match address < last {
            true => entry.get_mut().1 = address + 1,
            false => self.next_nat(),
        }
    }

    /// Goes on with the next NAT of the first prefix.
    pub(super) fn next_nat(&mut self) {
        let Some(mut entry) = self.0.first_entry() else { return };
        let first = span(*entry.key()).0;
        match entry.get().0.checked_add(1) {
            Some(next) => *entry.get_mut() = (next, first),
            None => drop(entry.remove()),
        }
    }

    /// Removes the first prefix, of which nothing is left.
    pub(super) fn remove_first(&mut self) {
        self.0.pop_first();
    }
}

/// Returns the first and the last address of a prefix of IPv4.
fn span(prefix: Prefix) -> (u32, u32) {
    let (first, last) = prefix.span();
    (first as u32, last as u32)
}
