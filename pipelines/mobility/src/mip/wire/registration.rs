//! Requests and replies of registration (RFC 5944 §3.3, §3.4).

use super::{
    code::Code, extension::Encapsulation, identification::Identification, kind, malformed::Malformed,
};
use crate::fields::Fields;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// The lifetime of a binding that does not expire.
pub const LIFETIME_INFINITE: u16 = u16::MAX;

/// The flags of a request. The other bits are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// S: the bindings before stay.
    pub simultaneous: bool,
    /// B: broadcasts of the home network are wanted too.
    pub broadcasts: bool,
    /// D: the care-of address is the node's own.
    pub co_located: bool,
    /// M: minimal encapsulation is wanted (RFC 2004).
    pub minimal: bool,
    /// G: GRE is wanted (RFC 2784).
    pub gre: bool,
    /// T: packets from the node come by the tunnel too (RFC 3024).
    pub reverse_tunnel: bool,
}

/// The bits of [`Flags`].
mod bit {
    pub(super) const SIMULTANEOUS: u8 = 0x80;
    pub(super) const BROADCASTS: u8 = 0x40;
    pub(super) const CO_LOCATED: u8 = 0x20;
    pub(super) const MINIMAL: u8 = 0x10;
    pub(super) const GRE: u8 = 0x08;
    pub(super) const REVERSE_TUNNEL: u8 = 0x02;
}

impl Flags {
    fn of(bits: u8) -> Self {
        let has = |bit| bits & bit != 0;
        Self {
            simultaneous: has(bit::SIMULTANEOUS),
            broadcasts: has(bit::BROADCASTS),
            co_located: has(bit::CO_LOCATED),
            minimal: has(bit::MINIMAL),
            gre: has(bit::GRE),
            reverse_tunnel: has(bit::REVERSE_TUNNEL),
        }
    }

    /// Returns what the tunnel is to be made of.
    pub fn encapsulation(self) -> Encapsulation {
        match (self.gre, self.minimal) {
            (true, _) => Encapsulation::Gre,
            (false, true) => Encapsulation::Minimal,
            (false, false) => Encapsulation::IpInIp,
        }
    }

    /// Returns the flags' byte.
    fn bits(self) -> u8 {
        let all = [
            (self.simultaneous, bit::SIMULTANEOUS),
            (self.broadcasts, bit::BROADCASTS),
            (self.co_located, bit::CO_LOCATED),
            (self.minimal, bit::MINIMAL),
            (self.gre, bit::GRE),
            (self.reverse_tunnel, bit::REVERSE_TUNNEL),
        ];
        all.iter().filter(|(is_set, _)| *is_set).fold(0, |bits, (_, bit)| bits | bit)
    }
}

/// A node's registration request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the node wants.
    pub flags: Flags,
    /// Lifetime of the binding in seconds: 0 ends it, [`LIFETIME_INFINITE`] has no end.
    pub lifetime: u16,
    /// The node's home address. Zero asks for one, if the node has another name (RFC 2794 §2).
    pub home: Ipv4Addr,
    /// The home agent's address.
    pub agent: Ipv4Addr,
    /// The end of the tunnel. With lifetime 0, the home address ends all bindings.
    pub care_of: Ipv4Addr,
    /// Tells this request from those before.
    pub identification: Identification,
}

impl Request {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            flags: Flags::of(fields.u8()?),
            lifetime: fields.u16()?,
            home: fields.ipv4()?,
            agent: fields.ipv4()?,
            care_of: fields.ipv4()?,
            identification: Identification(fields.u64()?),
        })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let lifetime = self.lifetime.to_be_bytes();
        let addresses = [self.home, self.agent, self.care_of].map(|address| address.octets()).concat();
        let start = [kind::REQUEST, self.flags.bits(), lifetime[0], lifetime[1]];
        [&start[..], &addresses, &self.identification.0.to_be_bytes()].concat()
    }
}

/// The home agent's registration reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What becomes of the request.
    pub code: Code,
    /// The lifetime that is granted, in seconds; no more than was asked for.
    pub lifetime: u16,
    /// The node's home address.
    pub home: Ipv4Addr,
    /// The home agent's address.
    pub agent: Ipv4Addr,
    /// The lower half is that of the request.
    pub identification: Identification,
}

impl Reply {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            code: Code(fields.u8()?),
            lifetime: fields.u16()?,
            home: fields.ipv4()?,
            agent: fields.ipv4()?,
            identification: Identification(fields.u64()?),
        })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let lifetime = self.lifetime.to_be_bytes();
        let addresses = [self.home, self.agent].map(|address| address.octets()).concat();
        let start = [kind::REPLY, self.code.0, lifetime[0], lifetime[1]];
        [&start[..], &addresses, &self.identification.0.to_be_bytes()].concat()
    }
}
