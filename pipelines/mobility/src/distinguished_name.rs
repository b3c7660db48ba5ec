//! Distinguished names in DER, the data of ID_DER_ASN1_DN (RFC 7296 §3.5).

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write;
use x509_cert::{
    attr::AttributeTypeAndValue,
    der::{Any, Decode, Encode, Tag, Tagged, asn1::SetOfVec},
    name::{RdnSequence, RelativeDistinguishedName},
};

/// Longest name that is shown as text, in bytes of DER. A peer that is not authenticated can claim
/// any name, and text takes longer to make than bytes.
const LONGEST_SHOWN: usize = 512;

/// Parses text such as `CN=gw.test, O=Example` (RFC 4514, and blanks after separators). The last
/// part of the text comes first in DER.
pub(crate) fn parse(text: &str) -> Option<Vec<u8>> {
    let mut compact = String::with_capacity(text.len());
    let (mut is_escaped, mut is_start) = (false, true);
    for c in text.chars().filter(|c| !c.is_control()) {
        if is_start && c == ' ' {
            continue;
        }
        compact.push(c);
        is_start = !is_escaped && matches!(c, ',' | '+');
        is_escaped = !is_escaped && c == '\\';
    }
    compact.parse::<RdnSequence>().ok()?.to_der().ok()
}

/// Returns the name with its parts in the opposite order. Returns `None` if it cannot be parsed.
pub(crate) fn reversed(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<_> = RdnSequence::from_der(name).ok()?.into();
    parts.reverse();
    RdnSequence::from(parts).to_der().ok()
}

/// Returns the one form of all names that are the same (RFC 5280 §7.1): in lower case, with single
/// blanks, and with one type of string. Returns `None` if the name cannot be parsed.
pub(crate) fn canonical(name: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<_> = RdnSequence::from_der(name).ok()?.into();
    let parts: Option<Vec<_>> = parts.iter().map(canonical_part).collect();
    RdnSequence::from(parts?).to_der().ok()
}

fn canonical_part(part: &RelativeDistinguishedName) -> Option<RelativeDistinguishedName> {
    let attribute = |attribute: &AttributeTypeAndValue| {
        let value = &attribute.value;
        let folded = match (value.tag(), str::from_utf8(value.value())) {
            (Tag::Utf8String | Tag::PrintableString | Tag::Ia5String, Ok(text)) => {
                let words: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).collect();
                Any::new(Tag::Utf8String, words.join(" ").to_lowercase().as_bytes()).ok()?
            }
            _ => value.clone(),
        };
        Some(AttributeTypeAndValue { oid: attribute.oid, value: folded })
    };
    let attributes: Option<Vec<_>> = part.iter().map(attribute).collect();
    Some(SetOfVec::try_from(attributes?).ok()?.into())
}

/// Returns the name as text (RFC 4514) of printable characters. Returns `None` if it cannot be
/// parsed, or is too long.
pub(crate) fn text(name: &[u8]) -> Option<String> {
    let name = Some(name).filter(|name| name.len() <= LONGEST_SHOWN)?;
    let mut text = String::new();
    for c in RdnSequence::from_der(name).ok()?.to_string().chars() {
        match c.is_ascii() {
            true => text.push(c),
            false => write!(text, "{}", c.escape_debug()).ok()?,
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Vec<u8> {
        parse(text).unwrap()
    }

    #[test]
    fn text_is_written_in_any_of_its_ways() {
        let plain = name("CN=gw.test,O=Way\\, farer,C=DE");
        assert_eq!(name("CN=gw.test, O=Way\\, farer, C=DE"), plain);
        assert_eq!(name("cn=gw.test,2.5.4.10=Way\\2c farer,C=DE"), plain);
        assert_eq!(text(&plain).unwrap(), "CN=gw.test,O=Way\\, farer,C=DE");
        assert_eq!(reversed(&plain).unwrap(), name("C=DE, O=Way\\, farer, CN=gw.test"));
        assert_eq!(["gw.test", "CN", "NOSUCH=1", "=", "CN=a,"].map(parse), [const { None }; 5]);
    }

    #[test]
    fn same_name_has_one_form() {
        let form = |text| canonical(&name(text)).unwrap();
        assert_eq!(form("CN=GW.test,O=Some  Company "), form("CN=gw.TEST,O=some company"));
        assert_ne!(form("CN=gw.test,O=Company"), form("O=Company,CN=gw.test"), "order counts");
        assert_ne!(form("CN=gw.test"), form("OU=gw.test"));
        let mut printable = name("CN=gw.test");
        // UTF8String, PrintableString (X.680 §8.4).
        let at = printable.iter().position(|byte| *byte == 12).unwrap();
        printable[at] = 19;
        assert_eq!(canonical(&printable), canonical(&name("CN=gw.test")));
    }

    #[test]
    fn what_is_no_name_has_no_form() {
        let whole = name("CN=gw.test,O=Company");
        for length in 0..whole.len() {
            assert_eq!(canonical(&whole[..length]), None);
            assert_eq!(text(&whole[..length]), None);
        }
        assert_eq!(text(&name(&alloc::format!("CN={}", "a".repeat(LONGEST_SHOWN)))), None);
    }

    #[test]
    fn text_has_no_control_characters() {
        let shown = text(&name("CN=a\\0aINFO b\\1b[2J\\e2\\80\\ae")).unwrap();
        assert_eq!(shown, "CN=a\\0aINFO b\\1b[2J\\u{202e}");
    }
}
