//! The inner sender of a packet, and its mapping.

use super::mapping::Mapping;
use crate::gateway::{
    input_port::{FROM_SLOW_PATH, is_from_tunnel},
    io::Io,
    rings::Punt,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    table::Reader,
    wire::{
        Address,
        ip::IpHeader,
        tcp,
        translate::{End, Side, Untranslatable, set_identification},
    },
};

/// The reason why a packet is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is dropped.
    Drop(DropReason),
    /// The slow path must make a mapping of this NAT first.
    Unmapped(u8),
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl From<Untranslatable> for Refusal {
    fn from(why: Untranslatable) -> Self {
        Self::Drop(match why {
            Untranslatable::Protocol | Untranslatable::Short => DropReason::NatProtocol,
            Untranslatable::Quote => DropReason::IcmpQuote,
        })
    }
}

impl Refusal {
    /// Drops a packet, or hands it to the slow path.
    pub fn apply(self, packet: Packet, io: &mut Io) {
        match self {
            Self::Drop(reason) => io.drop(packet, reason),
            Self::Unmapped(nat) => io.punt_shared(packet, Punt::Unmapped { nat }),
        }
    }
}

/// Returns the source of a packet from inside of NAT `nat`, and its mapping, which is in use now.
///
/// # Errors
/// The reason why it is not translated.
pub(super) fn source<'r>(
    nat: u8,
    header: &IpHeader,
    packet: &Packet,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Result<(End, &'r Mapping), Refusal> {
    let end = End::of(header, packet.data(), Side::Source)?;
    may_come(nat, end.address, packet.port(), tables, reader)?;
    let flags = tcp::flags(header, packet.data());
    match tables.nat.by_inside(nat, &end, reader) {
        Some(mapping) => {
            // An ICMP error keeps no mapping in use (RFC 5508 §4.3).
            if !end.is_quoted() {
                mapping.sent(tables.nat.now(), flags);
            }
            Ok((end, mapping))
        }
        None if end.is_quoted() || flags & tcp::RST != 0 => Err(DropReason::NatUnknown.into()),
        None => Err(Refusal::Unmapped(nat)),
    }
}

/// Gives a packet whose source has been translated, or all fragments of one, another identification if
/// it may be fragmented. `header` is that of the first.
pub(super) fn renumber(header: &IpHeader, packets: &mut [Packet], tables: &Tables) {
    if !header.dont_fragment || packets.len() > 1 {
        let id = tables.nat.new_id();
        packets.iter_mut().for_each(|packet| set_identification(packet.data_mut(), id));
    }
}

/// Checks that a packet that came by port `by` may be of the inner host with this address: nobody may use
/// mappings, or make them, by a forged source (RFC 3704 §2.2). Nobody inside comes by the NAT's own port,
/// whose default route leads to every address.
///
/// # Errors
/// `SourcePort` if it may not.
pub(super) fn may_come(
    nat: u8,
    address: Address,
    by: u16,
    tables: &Tables,
    reader: &Reader,
) -> Result<(), DropReason> {
    // The slow path hands back what had no mapping, and has passed this check.
    let is_known = by == FROM_SLOW_PATH || is_from_tunnel(by);
    match is_known || (by != tables.nat.nat(nat).port && tables.leads_to(address, by, reader)) {
        true => Ok(()),
        false => Err(DropReason::SourcePort),
    }
}
