//! Configuration payloads (RFC 7296 §3.15).

use super::{
    malformed::Malformed,
    reader::{Reader, within_u16},
};
use alloc::vec::Vec;

/// Types of attributes.
pub mod attribute {
    #![expect(missing_docs, reason = "names of RFC 7296 §3.15.1 and, from INTERNAL_DNS_DOMAIN, RFC 8598 §4")]
    pub const INTERNAL_IP4_ADDRESS: u16 = 1;
    pub const INTERNAL_IP4_NETMASK: u16 = 2;
    pub const INTERNAL_IP4_DNS: u16 = 3;
    pub const INTERNAL_IP4_NBNS: u16 = 4;
    pub const INTERNAL_IP4_DHCP: u16 = 6;
    pub const APPLICATION_VERSION: u16 = 7;
    pub const INTERNAL_IP6_ADDRESS: u16 = 8;
    pub const INTERNAL_IP6_DNS: u16 = 10;
    pub const INTERNAL_IP6_DHCP: u16 = 12;
    pub const INTERNAL_IP4_SUBNET: u16 = 13;
    pub const SUPPORTED_ATTRIBUTES: u16 = 14;
    pub const INTERNAL_IP6_SUBNET: u16 = 15;
    pub const INTERNAL_DNS_DOMAIN: u16 = 25;
    pub const INTERNAL_DNSSEC_TA: u16 = 26;
}

/// Most attributes of a payload.
const MAX_ATTRIBUTES: usize = 64;
/// Mask of an attribute's type, without the reserved bit above it.
const TYPE_MASK: u16 = 0x7fff;

/// Configuration that one side requests or assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration<'a> {
    /// 1 request, 2 reply, 3 set, 4 acknowledgement.
    pub kind: u8,
    /// The attributes.
    pub attributes: Vec<Attribute<'a>>,
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, of 15 bits; see [`attribute`].
    pub kind: u16,
    /// The value; empty in a request that leaves it open.
    pub value: &'a [u8],
}

impl<'a> Configuration<'a> {
    pub(super) fn parse(mut body: Reader<'a>) -> Result<Self, Malformed> {
        let [kind, ..] = body.array::<4>()?;
        let mut attributes = Vec::new();
        while !body.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(Malformed::TooMany);
            }
            let (kind, len) = (body.u16()? & TYPE_MASK, body.u16()?);
            attributes.push(Attribute { kind, value: body.take(usize::from(len))? });
        }
        Ok(Self { kind, attributes })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend([self.kind, 0, 0, 0]);
        for Attribute { kind, value } in &self.attributes {
            out.extend((kind & TYPE_MASK).to_be_bytes());
            out.extend(within_u16(value.len()).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}
