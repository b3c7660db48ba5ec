//! Writes keys for a protocol analyser, in the two tables that Wireshark reads:
//! `ikev2_decryption_table` and `esp_sa`. Whoever reads them can decrypt all traffic.

use crate::{config::model::KEY_LOG_WARNING, folder::Folder};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};
use tracing::warn;
use wayfarer_mobility::{
    crypto::{Encr, Integ},
    ike::{
        event::ChildSa,
        suite::{EspSuite, IkeSuite},
    },
};
use zeroize::Zeroizing;

const IKE_SAS: &str = "ikev2_decryption_table";
const ESP_SAS: &str = "esp_sa";

/// The two tables, in a folder that belongs to the gateway's user alone.
#[derive(Debug)]
pub(super) struct KeyLog {
    ike_sas: File,
    esp_sas: File,
}

impl KeyLog {
    /// Opens the log in this folder, which is created if it does not exist.
    ///
    /// # Errors
    /// The system's error, or why keys would not be safe in this folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let failed = |why: io::Error| io::Error::new(why.kind(), format!("key_log: {why}"));
        let opened = Folder::open(folder).map_err(failed)?;
        // The files are new each time and created by us, so nobody else has them open or redirects
        // us by them.
        let create = |table| opened.create(table).map_err(failed);
        let this = Self { ike_sas: create(IKE_SAS)?, esp_sas: create(ESP_SAS)? };
        warn!(folder = %folder.display(), "{KEY_LOG_WARNING}");
        Ok(this)
    }

    /// Logs the keys of an IKE SA.
    pub(super) fn ike_sa(&self, spis: [u64; 2], suite: &IkeSuite, encr: [&[u8]; 2], integ: [&[u8]; 2]) {
        let [spi_i, spi_r] = spis.map(|spi| format!("{spi:016x}"));
        let [ei, er] = encr.map(hex);
        let [ai, ar] = integ.map(hex);
        let (cipher, integrity) = (ike_cipher(suite.encr), integrity(suite.integ, true));
        let line = Zeroizing::new(format!(
            "{spi_i},{spi_r},{},{},\"{cipher}\",{},{},\"{integrity}\"\n",
            *ei, *er, *ai, *ar
        ));
        append(&self.ike_sas, IKE_SAS, &line);
    }

    /// Logs the keys of a child SA. Addresses are wildcards because they may change.
    pub(super) fn child_sas(&self, sa: &ChildSa) {
        let family = if sa.path.local.is_ipv4() { "IPv4" } else { "IPv6" };
        for (spi, key) in [(sa.spi_in, &sa.key_in), (sa.spi_out, &sa.key_out)] {
            let (encr, integ) = key.split_at(sa.suite.encr.key_len().min(key.len()));
            let (encr, integ) = (hex(encr), hex(integ));
            let (cipher, integrity) = (esp_cipher(&sa.suite), integrity(sa.suite.integ, false));
            let quoted = |key: &str| if key.is_empty() { String::new() } else { format!("0x{key}") };
            let line = Zeroizing::new(format!(
                "\"{family}\",\"*\",\"*\",\"0x{spi:08x}\",\"{cipher}\",\"0x{}\",\"{integrity}\",\"{}\"\n",
                *encr,
                quoted(&integ),
            ));
            append(&self.esp_sas, ESP_SAS, &line);
        }
    }
}

fn append(mut file: &File, table: &str, line: &str) {
    if let Err(why) = file.write_all(line.as_bytes()) {
        warn!(table, "cannot log a key: {why}");
    }
}

fn hex(key: &[u8]) -> Zeroizing<String> {
    let mut text = String::with_capacity(2 * key.len());
    for byte in key {
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(half.into(), 16));
        }
    }
    Zeroizing::new(text)
}

fn ike_cipher(encr: Encr) -> String {
    match encr {
        Encr::AesCbc(bits) => format!("AES-CBC-{bits} [RFC3602]"),
        Encr::AesGcm(bits) => format!("AES-GCM-{bits} with 16 octet ICV [RFC5282]"),
        Encr::ChaCha20Poly1305 => "ChaCha20-Poly1305 [RFC7634]".to_owned(),
    }
}

fn esp_cipher(suite: &EspSuite) -> &'static str {
    match suite.encr {
        Encr::AesCbc(_) => "AES-CBC [RFC3602]",
        Encr::AesGcm(_) => "AES-GCM with 16 octet ICV [RFC4106]",
        Encr::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
    }
}

/// Returns the name of an integrity algorithm, which differs between the two tables.
fn integrity(integ: Option<Integ>, ike: bool) -> &'static str {
    match (integ, ike) {
        (None, true) => "NONE [RFC4306]",
        (None, false) => "NULL",
        (Some(Integ::HmacSha256), true) => "HMAC_SHA2_256_128 [RFC4868]",
        (Some(Integ::HmacSha384), true) => "HMAC_SHA2_384_192 [RFC4868]",
        (Some(Integ::HmacSha512), true) => "HMAC_SHA2_512_256 [RFC4868]",
        (Some(Integ::HmacSha256), false) => "HMAC-SHA-256-128 [RFC4868]",
        (Some(Integ::HmacSha384), false) => "HMAC-SHA-384-192 [RFC4868]",
        (Some(Integ::HmacSha512), false) => "HMAC-SHA-512-256 [RFC4868]",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};
    use wayfarer_mobility::crypto::{Kex, Prf};

    #[test]
    fn keys_go_to_the_folder_that_was_opened_even_if_its_name_is_reused() {
        let home = tempfile::tempdir().unwrap();
        let (folder, moved, other) =
            (home.path().join("log"), home.path().join("moved"), home.path().join("other"));
        let log = KeyLog::open(&folder).unwrap();
        fs::rename(&folder, &moved).unwrap();
        fs::create_dir(&folder).unwrap();
        symlink(&other, folder.join(IKE_SAS)).unwrap();
        let suite = IkeSuite {
            encr: Encr::AesGcm(128),
            integ: None,
            prf: Prf::HmacSha256,
            kex: Kex::X25519,
            more_kex: vec![],
        };
        log.ike_sa([1, 2], &suite, [&[3; 20], &[4; 20]], [&[], &[]]);
        let line = fs::read_to_string(moved.join(IKE_SAS)).unwrap();
        assert!(line.starts_with("0000000000000001,0000000000000002,0303"), "{line}");
        assert!(!other.exists());
        drop(log);
        let why = KeyLog::open(&home.path().join("log").join(IKE_SAS)).unwrap_err().to_string();
        assert!(why.starts_with("key_log: ") && why.contains("is a symbolic link"), "{why}");
    }
}
