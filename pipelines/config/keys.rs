//! Key files. Their contents are kept in zeroised memory, and no message shows them.

use super::error::Rule;
use crate::secrets;
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, io::Read, path::Path};
use wayfarer_dataplane::crypto::Suite;
use wayfarer_mobility::crypto::Secret;
use zeroize::Zeroizing;

/// Longest key file, in bytes. The longest key has 96 bytes.
const LONGEST: usize = 4096;

/// Longest file of users and passwords, in bytes.
const LONGEST_USERS: usize = 16 << 20;

/// Reads the keying material in `file`: hexadecimal digits, with optional white space and a leading
/// `0x`, or raw bytes.
pub(super) fn load(file: &Path, cipher: Suite) -> Result<Secret, Rule> {
    decode(&read(file, LONGEST)?, cipher.key_len())
}

/// Reads the secret in `file`: text without its last line end, or `0x` and hexadecimal digits. Logs
/// a warning if the secret is shorter than `advised` bytes.
pub(super) fn secret(file: &Path, advised: usize) -> Result<Secret, Rule> {
    let secret = secret_of(&read(file, LONGEST)?)?;
    if secret.len() < advised {
        tracing::warn!(file = %file.display(), "this secret is shorter than {advised} bytes and may be guessed");
    }
    Ok(secret)
}

/// Reads names and passwords, one TOML line `name = "password"` each.
pub(super) fn users(file: &Path) -> Result<Vec<(String, Password)>, Rule> {
    let content = read(file, LONGEST_USERS)?;
    let text = std::str::from_utf8(&content).map_err(|_| Rule::Users(1))?;
    // The parser's message would show the contents of the file.
    let users: BTreeMap<String, Password> = toml::from_str(text).map_err(|why| {
        let before = why.span().and_then(|place| content.get(..place.start)).unwrap_or_default();
        Rule::Users(before.iter().filter(|&&byte| byte == b'\n').count() + 1)
    })?;
    let shown = |name: &str| name.chars().take(64).flat_map(char::escape_debug).collect();
    // Names that differ only in case are one person's, with the same addresses and devices.
    let mut written = BTreeMap::new();
    for name in users.keys() {
        if let Some(other) = written.insert(name.to_ascii_lowercase(), name) {
            return Err(Rule::SameUser(shown(other), shown(name)));
        }
    }
    match users.iter().find(|(_, password)| password.0.is_empty()) {
        _ if users.is_empty() => Err(Rule::NoSecret),
        Some((name, _)) => Err(Rule::NoPassword(shown(name))),
        None => Ok(users.into_iter().collect()),
    }
}

/// A text whose memory is zeroised when it is dropped.
pub(super) struct Password(pub Zeroizing<String>);

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// Reads a file that only its owner should read.
fn read(file: &Path, longest: usize) -> Result<Secret, Rule> {
    let unreadable = |e: std::io::Error| Rule::KeyUnreadable(e.kind());
    let opened = secrets::open(file).map_err(unreadable)?.ok_or(Rule::KeyNotAFile)?;
    // With this capacity the vector never grows: a reallocation would leave a copy of the secret
    // behind.
    let mut content = Zeroizing::new(Vec::with_capacity(longest + 2));
    opened.take(longest as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() > longest { Err(Rule::LongSecret(longest)) } else { Ok(content) }
}

fn secret_of(content: &[u8]) -> Result<Secret, Rule> {
    let text = content.strip_suffix(b"\n").unwrap_or(content);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let Some(digits) = text.strip_prefix(b"0x") else {
        return if text.is_empty() { Err(Rule::NoSecret) } else { Ok(Zeroizing::new(text.to_vec())) };
    };
    let mut secret = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    let digit = |c: &u8| char::from(*c).to_digit(16).map(|digit| digit as u8);
    for pair in digits.chunks(2) {
        let [high, low] = pair else { return Err(Rule::SecretNotHex) };
        secret
            .push(digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low).ok_or(Rule::SecretNotHex)?);
    }
    if secret.is_empty() { Err(Rule::NoSecret) } else { Ok(secret) }
}

fn decode(content: &[u8], wanted: usize) -> Result<Secret, Rule> {
    let text = content.trim_ascii_start();
    let text = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")).unwrap_or(text);
    let digits = || text.iter().filter(|c| !c.is_ascii_whitespace()).map(|&c| char::from(c).to_digit(16));
    let count = digits().count();
    if digits().any(|digit| digit.is_none()) {
        return match content.len() == wanted {
            true => Ok(Zeroizing::new(content.to_vec())),
            false => Err(Rule::KeyNotHex(wanted, content.len())),
        };
    }
    if count != 2 * wanted {
        return Err(Rule::KeyLength(wanted, count));
    }
    let mut key = Zeroizing::new(vec![0; wanted]);
    for (i, digit) in digits().flatten().enumerate() {
        key[i / 2] = key[i / 2] << 4 | digit as u8;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_raw_keys_are_taken_and_other_lengths_refused() {
        let key = |content: &[u8]| decode(content, 3).map(|key| key.to_vec());
        for content in [&b"0a1Bff"[..], b"0x0a1bff\n", b" 0a 1b\r\n ff ", b"\x0a\x1b\xff"] {
            assert_eq!(key(content), Ok(vec![0x0a, 0x1b, 0xff]), "{content:?}");
        }
        // Three hexadecimal digits are part of a hexadecimal key, not a raw key.
        assert_eq!(key(b"0a1"), Err(Rule::KeyLength(3, 3)));
        assert_eq!(key(b""), Err(Rule::KeyLength(3, 0)));
        assert_eq!(key(b"0a1bff00"), Err(Rule::KeyLength(3, 8)));
        assert_eq!(key(b"secret"), Err(Rule::KeyNotHex(3, 6)));
    }

    #[test]
    fn secrets_are_text_or_hexadecimal() {
        let secret = |content: &[u8]| secret_of(content).map(|secret| secret.to_vec());
        for (content, wanted) in [
            (&b"lab-psk\n"[..], &b"lab-psk"[..]),
            (b"lab-psk\r\n", b"lab-psk"),
            (b" two words\n\n", b" two words\n"),
            (b"\xff\n", b"\xff"),
            (b"0x0a1B\n", b"\x0a\x1b"),
        ] {
            assert_eq!(secret(content), Ok(wanted.to_vec()), "{content:?}");
        }
        for (content, why) in [
            (&b""[..], Rule::NoSecret),
            (b"\n", Rule::NoSecret),
            (b"0x\n", Rule::NoSecret),
            (b"0x123", Rule::SecretNotHex),
            (b"0x12 34", Rule::SecretNotHex),
            (b"0xgg", Rule::SecretNotHex),
        ] {
            assert_eq!(secret(content), Err(why), "{content:?}");
        }
    }
}
