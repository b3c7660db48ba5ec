//! Extensions of messages (RFC 5944 §1.8 to §1.11).

use super::malformed::Malformed;
use crate::fields::{Fields, Truncated};
use alloc::vec::Vec;

/// Types of extensions. Those below 128 must not be skipped.
mod kind {
    pub(super) const PADDING: u8 = 0;
    pub(super) const MOBILE_HOME: u8 = 32;
    pub(super) const MOBILE_FOREIGN: u8 = 33;
    pub(super) const FOREIGN_HOME: u8 = 34;
    pub(super) const OLD_CRITICAL_VENDOR: u8 = 37;
    pub(super) const CRITICAL_VENDOR: u8 = 38;
    pub(super) const UDP_TUNNEL_REPLY: u8 = 44;
    pub(super) const FIRST_SKIPPABLE: u8 = 128;
    pub(super) const DELIVERY_STYLE: u8 = 130;
    pub(super) const NAI: u8 = 131;
    pub(super) const REVOCATION_SUPPORT: u8 = 137;
    pub(super) const UDP_TUNNEL_REQUEST: u8 = 144;
}

/// Whose secret an authenticator is made with (RFC 5944 §3.5.2 to §3.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parties {
    /// The node's and the home agent's.
    MobileHome,
    /// The node's and the foreign agent's.
    MobileForeign,
    /// The foreign agent's and the home agent's.
    ForeignHome,
}

impl Parties {
    pub(in crate::mip) fn kind(self) -> u8 {
        match self {
            Self::MobileHome => kind::MOBILE_HOME,
            Self::MobileForeign => kind::MOBILE_FOREIGN,
            Self::ForeignHome => kind::FOREIGN_HOME,
        }
    }
}

/// An authenticator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication<'a> {
    /// Who has the secret.
    pub parties: Parties,
    /// The number of the association that it was made with.
    pub spi: u32,
    /// The bytes that it covers: those of the message up to this SPI.
    pub covered: &'a [u8],
    /// The authenticator.
    pub authenticator: &'a [u8],
}

/// How packets are put into packets, by the number of an IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// IP in IP (RFC 2003).
    IpInIp,
    /// GRE (RFC 2784).
    Gre,
    /// Minimal encapsulation (RFC 2004).
    Minimal,
    /// Something else.
    Other(u8),
}

impl From<u8> for Encapsulation {
    fn from(protocol: u8) -> Self {
        match protocol {
            4 => Self::IpInIp,
            47 => Self::Gre,
            55 => Self::Minimal,
            other => Self::Other(other),
        }
    }
}

impl From<Encapsulation> for u8 {
    fn from(encapsulation: Encapsulation) -> Self {
        match encapsulation {
            Encapsulation::IpInIp => 4,
            Encapsulation::Gre => 47,
            Encapsulation::Minimal => 55,
            Encapsulation::Other(other) => other,
        }
    }
}

/// A node can have its tunnel in UDP (RFC 3519 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpTunnelRequest {
    /// F: the tunnel is to be in UDP even if the home agent sees no NAT.
    pub force: bool,
    /// R: the foreign agent demands that nodes register through it.
    pub by_foreign_agent: bool,
    /// What is to be in UDP.
    pub encapsulation: Encapsulation,
}

/// The home agent's answer (RFC 3519 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpTunnelReply {
    /// The tunnel is in UDP. If not, it was declined.
    pub accepted: bool,
    /// F: it is because the node demanded it.
    pub forced: bool,
    /// The time between keepalives in seconds; 0 leaves it to the node.
    pub keepalive: u16,
}

/// A reply code that accepts a tunnel in UDP, and one that declines.
const WILL_DO: u8 = 0;
const DECLINED: u8 = 64;

/// An agent can revoke registrations (RFC 3543 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationSupport {
    /// I: it can say whether the node may be told.
    pub can_inform: bool,
    /// The sender's clock, in its own units. Identifiers of revocations are later ones.
    pub timestamp: u32,
}

/// An extension that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension<'a> {
    /// Authenticates what is before it.
    Authentication(Authentication<'a>),
    /// A vendor's, which must be understood (RFC 3115 §2.1). We understand none.
    CriticalVendor,
    /// See [`UdpTunnelReply`].
    UdpTunnelReply(UdpTunnelReply),
    /// The node sends what is in its tunnel by its foreign agent's (RFC 3024 §3.3).
    EncapsulatingDelivery,
    /// The node's name, not empty (RFC 2794).
    Nai(&'a [u8]),
    /// See [`RevocationSupport`].
    RevocationSupport(RevocationSupport),
    /// See [`UdpTunnelRequest`].
    UdpTunnelRequest(UdpTunnelRequest),
}

/// The extensions of a message.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    message: &'a [u8],
    /// The offset of the first one.
    at: usize,
}

impl<'a> Extensions<'a> {
    /// Checks the extensions of `message` that begin at `at`.
    pub(super) fn parse(message: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let all = Self { message, at };
        let mut walk = all.walk();
        while walk.next_extension()?.is_some() {}
        Ok(all)
    }

    fn walk(&self) -> Walk<'a> {
        Walk { message: self.message, at: self.at }
    }

    /// Returns all extensions that are known, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        let mut walk = self.walk();
        core::iter::from_fn(move || walk.next_extension().ok().flatten()).flatten()
    }
}

/// A walk over extensions.
struct Walk<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// Returns the next extension, which is `None` if it is to be skipped. Returns `None` behind the last one.
    fn next_extension(&mut self) -> Result<Option<Option<Extension<'a>>>, Malformed> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let mut fields = Fields(rest);
        let Ok(kind) = fields.u8() else { return Ok(None) };
        if kind == kind::PADDING {
            self.at += 1;
            return Ok(Some(None));
        }
        let len = match kind {
            kind::CRITICAL_VENDOR => {
                fields.u8()?;
                fields.u16()?.into()
            }
            _ => usize::from(fields.u8()?),
        };
        let header = rest.len() - fields.0.len();
        let data = fields.take(len)?;
        let start = self.at;
        self.at += header + len;
        Ok(Some(self.read(kind, data, start)?))
    }

    /// Reads the extension of this type that begins at `start`.
    fn read(&self, kind: u8, data: &'a [u8], start: usize) -> Result<Option<Extension<'a>>, Malformed> {
        let cut = |Truncated| Malformed::Length(kind);
        let mut fields = Fields(data);
        let known = match kind {
            kind::MOBILE_HOME => self.authentication(Parties::MobileHome, fields, start).map_err(cut)?,
            kind::MOBILE_FOREIGN => {
                self.authentication(Parties::MobileForeign, fields, start).map_err(cut)?
            }
            kind::FOREIGN_HOME => self.authentication(Parties::ForeignHome, fields, start).map_err(cut)?,
            kind::OLD_CRITICAL_VENDOR | kind::CRITICAL_VENDOR => Extension::CriticalVendor,
            kind::UDP_TUNNEL_REPLY => {
                let [sub, code, high, low, keepalive @ ..] = fields.array::<6>().map_err(cut)?;
                if sub != 0 {
                    return Err(Malformed::Unknown(kind));
                }
                let forced = u16::from_be_bytes([high, low]) & 0x8000 != 0;
                let keepalive = u16::from_be_bytes(keepalive);
                Extension::UdpTunnelReply(UdpTunnelReply { accepted: code == WILL_DO, forced, keepalive })
            }
            kind::DELIVERY_STYLE => Extension::EncapsulatingDelivery,
            kind::NAI if data.is_empty() => return Err(Malformed::Length(kind)),
            kind::NAI => Extension::Nai(data),
            kind::REVOCATION_SUPPORT => {
                let can_inform = fields.u16().map_err(cut)? & 0x8000 != 0;
                let timestamp = fields.u32().map_err(cut)?;
                Extension::RevocationSupport(RevocationSupport { can_inform, timestamp })
            }
            kind::UDP_TUNNEL_REQUEST => {
                let [sub, _, flags, protocol, _, _] = fields.array::<6>().map_err(cut)?;
                if sub != 0 {
                    return Ok(None);
                }
                Extension::UdpTunnelRequest(UdpTunnelRequest {
                    force: flags & 0x80 != 0,
                    by_foreign_agent: flags & 0x40 != 0,
                    encapsulation: protocol.into(),
                })
            }
            kind::FIRST_SKIPPABLE.. => return Ok(None),
            _ => return Err(Malformed::Unknown(kind)),
        };
        Ok(Some(known))
    }

    fn authentication(
        &self,
        parties: Parties,
        mut fields: Fields<'a>,
        start: usize,
    ) -> Result<Extension<'a>, Truncated> {
        let spi = fields.u32()?;
        // Type, length and SPI are covered too.
        let covered = self.message.get(..start + 6).ok_or(Truncated)?;
        let authentication = Authentication { parties, spi, covered, authenticator: fields.0 };
        Ok(Extension::Authentication(authentication))
    }
}

/// Appends an extension to a message. Returns `None`, and appends nothing, if it is longer than 255
/// bytes, or a vendor's.
pub fn push(message: &mut Vec<u8>, extension: &Extension<'_>) -> Option<()> {
    let mut append = |kind: u8, parts: &[&[u8]]| {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        message.extend([kind, u8::try_from(len).ok()?]);
        parts.iter().for_each(|part| message.extend(*part));
        Some(())
    };
    let flag = |is_set: bool, bit: u16| (u16::from(is_set) * bit).to_be_bytes();
    match *extension {
        Extension::Authentication(Authentication { parties, spi, authenticator, .. }) => {
            append(parties.kind(), &[&spi.to_be_bytes(), authenticator])
        }
        Extension::CriticalVendor => None,
        Extension::UdpTunnelReply(UdpTunnelReply { accepted, forced, keepalive }) => {
            let code = if accepted { WILL_DO } else { DECLINED };
            append(kind::UDP_TUNNEL_REPLY, &[&[0, code], &flag(forced, 0x8000), &keepalive.to_be_bytes()])
        }
        Extension::EncapsulatingDelivery => append(kind::DELIVERY_STYLE, &[]),
        Extension::Nai(name) => append(kind::NAI, &[name]),
        Extension::RevocationSupport(RevocationSupport { can_inform, timestamp }) => {
            append(kind::REVOCATION_SUPPORT, &[&flag(can_inform, 0x8000), &timestamp.to_be_bytes()])
        }
        Extension::UdpTunnelRequest(UdpTunnelRequest { force, by_foreign_agent, encapsulation }) => {
            let flags = u8::from(force) << 7 | u8::from(by_foreign_agent) << 6;
            append(kind::UDP_TUNNEL_REQUEST, &[&[0, 0, flags, encapsulation.into(), 0, 0]])
        }
    }
}
