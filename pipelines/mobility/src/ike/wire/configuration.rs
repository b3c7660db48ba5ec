//! Configuration payloads (RFC 7296 §3.15).

use super::{malformed::Malformed, part::within_u16};
use crate::fields::Fields;
use alloc::{string::String, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Asks the other side for a configuration.
pub const REQUEST: u8 = 1;
/// Answers such a request.
pub const REPLY: u8 = 2;

/// Types of attributes (RFC 7296 §3.15.1, RFC 8598 §4).
mod number {
    pub(super) const INTERNAL_IP4_ADDRESS: u16 = 1;
    pub(super) const INTERNAL_IP4_DNS: u16 = 3;
    pub(super) const INTERNAL_IP6_ADDRESS: u16 = 8;
    pub(super) const INTERNAL_IP6_DNS: u16 = 10;
    pub(super) const INTERNAL_DNS_DOMAIN: u16 = 25;
}

/// Most attributes of a payload.
const MAX_ATTRIBUTES: usize = 64;
/// Mask of an attribute's type, without the reserved bit above it.
const TYPE_MASK: u16 = 0x7fff;

/// Configuration that one side requests or assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// [`REQUEST`], [`REPLY`], 3 for set, 4 for acknowledgement.
    pub kind: u8,
    /// The attributes.
    pub attributes: Vec<Attribute>,
}

/// One attribute. `None` is an empty value, by which a request asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// INTERNAL_IP4_ADDRESS.
    Ip4Address(Option<Ipv4Addr>),
    /// INTERNAL_IP6_ADDRESS.
    Ip6Address(Option<Ipv6Addr>),
    /// INTERNAL_IP4_DNS.
    Ip4Dns(Option<Ipv4Addr>),
    /// INTERNAL_IP6_DNS.
    Ip6Dns(Option<Ipv6Addr>),
    /// INTERNAL_DNS_DOMAIN; empty in a request.
    DnsDomain(String),
    /// An attribute of another type, which is ignored (RFC 7296 §3.15.1).
    Other(u16),
}

impl Attribute {
    /// Returns the attribute that assigns `address`.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ip4Address(Some(address)),
            IpAddr::V6(address) => Self::Ip6Address(Some(address)),
        }
    }

    /// Returns the attribute that names a DNS server.
    pub fn dns(server: IpAddr) -> Self {
        match server {
            IpAddr::V4(server) => Self::Ip4Dns(Some(server)),
            IpAddr::V6(server) => Self::Ip6Dns(Some(server)),
        }
    }

    fn parse(kind: u16, value: &[u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            number::INTERNAL_IP4_ADDRESS => Self::Ip4Address(optional(value)?),
            // The last octet is the length of a prefix, which one address does not need.
            number::INTERNAL_IP6_ADDRESS => match value {
                [] => Self::Ip6Address(None),
                [address @ .., _] => Self::Ip6Address(Some(fixed(address)?)),
            },
            number::INTERNAL_IP4_DNS => Self::Ip4Dns(optional(value)?),
            number::INTERNAL_IP6_DNS => Self::Ip6Dns(optional(value)?),
            number::INTERNAL_DNS_DOMAIN => {
                let domain = core::str::from_utf8(value).map_err(|_| Malformed::Domain)?;
                Self::DnsDomain(domain.into())
            }
            _ => Self::Other(kind),
        })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        fn octets<const N: usize>(address: Option<[u8; N]>) -> Vec<u8> {
            address.into_iter().flatten().collect()
        }
        let (kind, value) = match self {
            Self::Ip4Address(address) => (number::INTERNAL_IP4_ADDRESS, octets(address.map(|a| a.octets()))),
            Self::Ip6Address(address) => {
                let host = address.map(|a| a.octets().into_iter().chain([128]).collect());
                (number::INTERNAL_IP6_ADDRESS, host.unwrap_or_default())
            }
            Self::Ip4Dns(server) => (number::INTERNAL_IP4_DNS, octets(server.map(|a| a.octets()))),
            Self::Ip6Dns(server) => (number::INTERNAL_IP6_DNS, octets(server.map(|a| a.octets()))),
            Self::DnsDomain(domain) => (number::INTERNAL_DNS_DOMAIN, domain.as_bytes().to_vec()),
            Self::Other(kind) => (kind & TYPE_MASK, Vec::new()),
        };
        out.extend(kind.to_be_bytes());
        out.extend(within_u16(value.len()).to_be_bytes());
        out.extend(value);
    }
}

impl Configuration {
    /// # Errors
    /// Fails if an address does not have the length of its family, or a domain is not UTF-8.
    pub(super) fn parse(mut body: Fields<'_>) -> Result<Self, Malformed> {
        let [kind, ..] = body.array::<4>()?;
        let mut attributes = Vec::new();
        while !body.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(Malformed::TooMany);
            }
            let (kind, len) = (body.u16()? & TYPE_MASK, body.u16()?);
            attributes.push(Attribute::parse(kind, body.take(usize::from(len))?)?);
        }
        Ok(Self { kind, attributes })
    }

    /// Returns the bytes of memory beside its own.
    pub fn memory(&self) -> usize {
        let text = self.attributes.iter().map(|attribute| match attribute {
            Attribute::DnsDomain(domain) => domain.capacity(),
            _ => 0,
        });
        self.attributes.capacity() * size_of::<Attribute>() + text.sum::<usize>()
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend([self.kind, 0, 0, 0]);
        self.attributes.iter().for_each(|attribute| attribute.emit(out));
    }
}

/// Returns the address in `value`; `None` if it is empty.
fn optional<const N: usize, A: From<[u8; N]>>(value: &[u8]) -> Result<Option<A>, Malformed> {
    if value.is_empty() { Ok(None) } else { fixed(value).map(Some) }
}

fn fixed<const N: usize, A: From<[u8; N]>>(value: &[u8]) -> Result<A, Malformed> {
    <[u8; N]>::try_from(value).map(A::from).map_err(|_| Malformed::Length)
}
