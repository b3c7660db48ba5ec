//! Identities of peers (RFC 7296 §3.5).

use crate::distinguished_name;
use alloc::{collections::BTreeSet, vec::Vec};
use core::{fmt, net::IpAddr};

/// The types of identities that we create or match. Others are kept and compared byte by byte.
pub mod kind {
    #![expect(missing_docs, reason = "names of RFC 7296 §3.5")]
    /// Internal: a peer without a name. The value is reserved, so no ID payload has this type.
    pub(crate) const UNNAMED: u8 = 0;
    /// Internal: a peer with several names. The value is for private use; ID payloads of this type
    /// are refused.
    pub(crate) const SEVERAL: u8 = 255;
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
    /// Returns the identity that a text stands for: an IP address, a distinguished name
    /// (`CN=gw.test, O=Example`, RFC 4514), a mail address (`alice@example.org`), `@#` and
    /// hexadecimal digits for a key ID, else a domain name. Returns `None` if the text is none of
    /// these.
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
        if text.contains('=') {
            if let Some(data) = distinguished_name::parse(text) {
                return Some(Self { kind: kind::DER_ASN1_DN, data });
            }
            // No domain name has this character.
            if !text.contains('@') {
                return None;
            }
        }
        let is_plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        let kind = if text.contains('@') { kind::RFC822_ADDR } else { kind::FQDN };
        is_plain.then(|| Self { kind, data: text.into() })
    }

    /// Returns the identity of a name that EAP proved. It is text, even if an ID payload would have
    /// the same text as an identity of another type.
    pub fn from_name(name: &[u8]) -> Self {
        let kind = if name.contains(&b'@') { kind::RFC822_ADDR } else { kind::FQDN };
        Self { kind, data: name.to_vec() }
    }

    /// Returns true if both are the same identity. Names are compared without regard to case: a
    /// peer that chooses how to write its name must not become another peer by that.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match self.kind {
                kind::DER_ASN1_DN => self.data == other.data || self.canonical() == other.canonical(),
                _ if self.is_name() => self.data.eq_ignore_ascii_case(&other.data),
                _ => self.data == other.data,
            }
    }

    /// Returns a distinguished name with its parts in the opposite order; `None` for other
    /// identities.
    pub fn reversed(&self) -> Option<Self> {
        let is_dn = self.kind == kind::DER_ASN1_DN;
        let data = is_dn.then(|| distinguished_name::reversed(&self.data))??;
        Some(Self { kind: self.kind, data })
    }

    /// Returns the one form that stands for all identities that [`Identity::is_same`] considers
    /// equal.
    pub fn canonical(&self) -> Self {
        let data = match self.kind {
            kind::DER_ASN1_DN => distinguished_name::canonical(&self.data),
            _ => self.is_name().then(|| self.data.to_ascii_lowercase()),
        };
        Self { kind: self.kind, data: data.unwrap_or_else(|| self.data.clone()) }
    }

    /// Returns true if this is a domain name or a mail address.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.kind, kind::FQDN | kind::RFC822_ADDR)
    }

    /// Returns a new identity for a peer that has no name; no other has this `number`.
    pub(crate) fn unnamed(number: u64) -> Self {
        Self { kind: kind::UNNAMED, data: number.to_be_bytes().to_vec() }
    }

    /// Returns the identity that stands for all peers that have not proved one.
    pub(crate) const fn anybody() -> Self {
        Self { kind: kind::UNNAMED, data: Vec::new() }
    }

    /// Returns true if this type is internal, so that no ID payload may have it.
    pub(crate) fn is_reserved(&self) -> bool {
        matches!(self.kind, kind::UNNAMED | kind::SEVERAL)
    }

    /// Returns true if the peer has no name.
    pub fn is_unnamed(&self) -> bool {
        self.kind == kind::UNNAMED
    }

    /// Returns the identity of an address.
    pub fn from_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => Self { kind: kind::IPV4_ADDR, data: a.octets().to_vec() },
            IpAddr::V6(a) => Self { kind: kind::IPV6_ADDR, data: a.octets().to_vec() },
        }
    }
}

/// The canonical forms of an identity that somebody claims, to compare it with many. They are made
/// once, because that takes long for a distinguished name. The order of such a name's parts does not
/// count: RFC 4514 and other programs write it differently.
#[derive(Clone, Debug)]
pub struct Forms {
    canonical: Identity,
    /// A distinguished name with its parts in the opposite order.
    reversed: Option<Identity>,
}

impl Forms {
    /// Returns the forms of `identity`.
    pub fn of(identity: &Identity) -> Self {
        let canonical = identity.canonical();
        Self { reversed: canonical.reversed(), canonical }
    }

    /// Returns true if one of the forms is among these canonical ones.
    pub fn are_in(&self, known: &BTreeSet<Identity>) -> bool {
        known.contains(&self.canonical) || self.reversed.as_ref().is_some_and(|form| known.contains(form))
    }

    /// Returns true if `other` is the identity.
    pub fn are_of(&self, other: &Identity) -> bool {
        let other = other.canonical();
        self.canonical == other || self.reversed.as_ref() == Some(&other)
    }

    /// Returns the canonical form.
    pub fn canonical(&self) -> &Identity {
        &self.canonical
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
            // A name may contain any byte. None of them may look like the next field of a log line.
            (kind::FQDN | kind::RFC822_ADDR, data) => data.iter().try_for_each(|byte| match byte {
                b' ' | b'=' => write!(f, "\\x{byte:02x}"),
                byte => byte.escape_ascii().fmt(f),
            }),
            (kind::UNNAMED, _) => f.write_str("unnamed"),
            (kind::DER_ASN1_DN, data) if let Some(text) = distinguished_name::text(data) => {
                write!(f, "\"{text}\"")
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_name_that_a_peer_chose_is_one_word_in_a_log_line() {
        let name = Identity::from_name(b"bob remote=192.0.2.1\n\x1b[2J\xff");
        assert_eq!(name.to_string(), "bob\\x20remote\\x3d192.0.2.1\\n\\x1b[2J\\xff");
        assert_eq!(Identity::from_text("alice@example.org").unwrap().to_string(), "alice@example.org");
    }

    #[test]
    fn distinguished_name_is_one_quoted_word_in_a_log_line() {
        let name = Identity::from_text("CN=bob, O=a\\\" remote=192.0.2.1").unwrap();
        assert_eq!(name.to_string(), "\"CN=bob,O=a\\\" remote=192.0.2.1\"");
        assert!(name.is_same(&Identity::from_text("CN=Bob,O=A\\\"  REMOTE=192.0.2.1").unwrap()));
        assert!(!name.is_same(&name.reversed().unwrap()));
        let broken = Identity { data: name.data[..20].to_vec(), ..name.clone() };
        assert!(broken.is_same(&broken.clone()) && !broken.is_same(&name) && broken.canonical() == broken);
        assert_eq!(Identity::from_text("a=b@example.org").unwrap().kind, kind::RFC822_ADDR);
        assert_eq!(Identity::from_text("CN=bob,NOSUCH=a"), None, "not a domain name");
    }

    #[test]
    fn forms_are_compared_as_the_identities_are() {
        let id = |text| Identity::from_text(text).unwrap();
        let forms = Forms::of(&id("CN=Bob,O=a"));
        for (other, is_it) in [("cn=bob,o=a", true), ("O=A, CN=bob", true), ("CN=Bob,O=b", false)] {
            assert_eq!(forms.are_of(&id(other)), is_it);
            assert_eq!(forms.are_in(&BTreeSet::from([id("a.test"), id(other).canonical()])), is_it);
        }
        assert!(Forms::of(&id("Bob@A.test")).are_of(&id("bob@a.TEST")));
        assert!(!Forms::of(&id("bob.test")).are_of(&id("@#626f622e74657374")));
    }

    #[test]
    fn another_spelling_is_the_same_identity() {
        let [a, b] =
            ["Alice@Example.org", "alice@example.ORG"].map(|text| Identity::from_text(text).unwrap());
        assert!(a != b && a.is_same(&b));
        assert_eq!(a.canonical(), b.canonical());
        let key = |data: &[u8]| Identity { kind: kind::KEY_ID, data: data.to_vec() };
        assert!(!key(b"a").is_same(&key(b"A")) && key(b"a").canonical() != key(b"A").canonical());
    }
}
