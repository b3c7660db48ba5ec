//! Key files. What they hold is in zeroised memory only, and in no message.

use super::error::Rule;
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
};
use wayfarer_dataplane::crypto::Suite;
use zeroize::Zeroizing;

/// Longest key file, in bytes: the longest key is 96 bytes.
const LONGEST: usize = 4096;

/// The keying material in `file`: hexadecimal digits (white space and a leading `0x` do not count), or the raw bytes.
pub(super) fn load(file: &Path, cipher: Suite) -> Result<Zeroizing<Vec<u8>>, Rule> {
    let unreadable = |e: std::io::Error| Rule::KeyUnreadable(e.kind());
    let about = fs::metadata(file).map_err(unreadable)?;
    if !about.is_file() {
        return Err(Rule::KeyNotAFile);
    }
    if about.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "others than its owner may use this key file; try chmod 600");
    }
    // The vector never grows: a reallocation would leave a copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    File::open(file)
        .map_err(unreadable)?
        .take(LONGEST as u64)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    decode(&content, cipher.key_len())
}

fn decode(content: &[u8], wanted: usize) -> Result<Zeroizing<Vec<u8>>, Rule> {
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
        // Three characters that are digits are half of a hexadecimal key, not a raw one.
        assert_eq!(key(b"0a1"), Err(Rule::KeyLength(3, 3)));
        assert_eq!(key(b""), Err(Rule::KeyLength(3, 0)));
        assert_eq!(key(b"0a1bff00"), Err(Rule::KeyLength(3, 8)));
        assert_eq!(key(b"secret"), Err(Rule::KeyNotHex(3, 6)));
    }
}
