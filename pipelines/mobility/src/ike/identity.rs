//! Who a peer says that it is (RFC 7296 §3.5).

use alloc::vec::Vec;
use core::{fmt, net::IpAddr};

/// The types of identities that we make or match; others are kept and compared as they are.
pub mod kind {
    #![expect(missing_docs, reason = "names of RFC 7296 §3.5")]
    pub const IPV4_ADDR: u8 = 1;
    pub const FQDN: u8 = 2;
    pub const RFC822_ADDR: u8 = 3;
    pub const IPV6_ADDR: u8 = 5;
    pub const DER_ASN1_DN: u8 = 9;
    pub const DER_ASN1_GN: u8 = 10;
    pub const KEY_ID: u8 = 11;
}

/// An identity: type and data of an ID payload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// ID type.
    pub kind: u8,
    /// Identification data.
    pub data: Vec<u8>,
}

impl Identity {
    /// The identity that a text means: an address, a mail address (`alice@example.org`), `@#` and hexadecimal digits for
    /// a key ID, else a domain name. `None` where the text can be none of these. Distinguished names are made from a
    /// certificate, by who can read one.
    pub fn from_text(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::from_address(address));
        }
        if let Some(digits) = text.strip_prefix("@#") {
            let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
            let byte = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
            let data = digits.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>()?;
            return (!data.is_empty()).then_some(Self { kind: kind::KEY_ID, data });
        }
        let is_plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        let kind = if text.contains('@') { kind::RFC822_ADDR } else { kind::FQDN };
        is_plain.then(|| Self { kind, data: text.into() })
    }

    /// The identity of an address.
    pub fn from_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self { kind: kind::IPV4_ADDR, data: a.octets().to_vec() },
            IpAddr::V6(a) => Self { kind: kind::IPV6_ADDR, data: a.octets().to_vec() },
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.data[..]) {
            (kind::IPV4_ADDR, data) if data.len() == 4 => {
                let octets: [u8; 4] = data.try_into().unwrap_or_default();
                IpAddr::from(octets).fmt(f)
            }
            (kind::IPV6_ADDR, data) if data.len() == 16 => {
                let octets: [u8; 16] = data.try_into().unwrap_or_default();
                IpAddr::from(octets).fmt(f)
            }
            (kind::FQDN | kind::RFC822_ADDR, data) => data.escape_ascii().fmt(f),
            (kind, data) => {
                write!(f, "{kind}#")?;
                data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
