//! Messages that end a registration before its lifetime does (RFC 3543 §3.3, §3.4).

use super::{kind, malformed::Malformed};
use crate::fields::Fields;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// An agent ends a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// A: the sender is a home agent, or a foreign agent that acts for one.
    pub is_home_agent: bool,
    /// I: the node may be told.
    pub may_inform: bool,
    /// The node's home address.
    pub home: Ipv4Addr,
    /// The home agent's address, or zero if that is the sender.
    pub home_domain: Ipv4Addr,
    /// The care-of address.
    pub foreign_domain: Ipv4Addr,
    /// Tells this message from others of the same sender; never lower than before.
    pub identifier: u32,
}

const HOME_AGENT: u16 = 0x8000;
const INFORM: u16 = 0x4000;
/// The same in the answer.
const ACK_INFORM: u16 = 0x8000;

impl Revocation {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let _reserved = fields.u8()?;
        let flags = fields.u16()?;
        Ok(Self {
            is_home_agent: flags & HOME_AGENT != 0,
            may_inform: flags & INFORM != 0,
            home: fields.ipv4()?,
            home_domain: fields.ipv4()?,
            foreign_domain: fields.ipv4()?,
            identifier: fields.u32()?,
        })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let own = u16::from(self.is_home_agent) * HOME_AGENT;
        let flags = (own + u16::from(self.may_inform) * INFORM).to_be_bytes();
        let addresses = [self.home, self.home_domain, self.foreign_domain].map(|address| address.octets());
        let start = [kind::REVOCATION, 0, flags[0], flags[1]];
        [&start[..], &addresses.concat(), &self.identifier.to_be_bytes()].concat()
    }
}

/// The answer to a [`Revocation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationAck {
    /// I: the node was told, or may be.
    pub may_inform: bool,
    /// The node's home address.
    pub home: Ipv4Addr,
    /// The number of the message that is answered.
    pub identifier: u32,
}

impl RevocationAck {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let _reserved = fields.u8()?;
        let flags = fields.u16()?;
        let (home, identifier) = (fields.ipv4()?, fields.u32()?);
        Ok(Self { may_inform: flags & ACK_INFORM != 0, home, identifier })
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let flags = (u16::from(self.may_inform) * ACK_INFORM).to_be_bytes();
        let start = [kind::REVOCATION_ACK, 0, flags[0], flags[1]];
        [&start[..], &self.home.octets(), &self.identifier.to_be_bytes()].concat()
    }
}
