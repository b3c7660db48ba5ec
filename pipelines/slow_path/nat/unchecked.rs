//! Inner addresses whose tunnels have changed, until their mappings have been looked at.

use std::collections::BTreeMap;
use wayfarer_dataplane::{table::Prefix, wire::Address};

/// Prefixes of inner IPv4 addresses, each with the NAT and the address that are next.
#[derive(Debug, Default)]
pub(super) struct Unchecked(BTreeMap<Prefix, (u8, u32)>);

impl Unchecked {
    /// Adds a prefix of IPv4, whose addresses are all to be looked at.
    pub(super) fn add(&mut self, prefix: Prefix) {
        self.0.insert(prefix, (0, span(prefix).0));
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
