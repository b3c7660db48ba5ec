//! The inner sender of a packet, and its mapping.

use super::mapping::Mapping;
use crate::gateway::{
    io::{FROM_TUNNEL, Io},
    rings::Punt,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    table::Reader,
    wire::{
        ip::IpHeader,
        tcp,
        translate::{End, Side, Untranslatable},
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
        // Nobody may use up the mappings of others by a forged source (RFC 3704 §2.2).
        None if packet.port() != FROM_TUNNEL && !tables.leads_to(header.src, packet.port(), reader) => {
            Err(DropReason::SourcePort.into())
        }
        None => Err(Refusal::Unmapped(nat)),
    }
}
