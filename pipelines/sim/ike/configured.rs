//! Connections as a configuration file says them.

use crate::config::{self, model::Ike};
use nix::unistd::{mkstemp, write};
use std::{env, fs};

/// Reads `[[pool]]` and `[[connection]]` of a gateway or a terminal at `address`; `$PSK` is the file of a shared key.
///
/// # Panics
/// If the text is refused, or there is no folder for temporary files.
pub fn ike(text: &str, address: &str) -> Ike {
    let ports = format!(
        r#"
[[port]]
name = "outside"
kind = "sink"
addresses = ["{address}/24"]
[[port]]
name = "inside"
kind = "sink"
addresses = ["10.99.0.1/24"]
"#
    );
    // Readable by its owner alone, as the file of a key must be.
    let (file, key) = mkstemp(&env::temp_dir().join("wayfarer-psk-XXXXXX")).expect("a temporary file");
    write(&file, b"a secret of both").expect("room for a key");
    let text = format!("{ports}{}", text.replace("$PSK", &key.display().to_string()));
    let config = config::parse(&text, &key.with_file_name("gateway.toml"));
    let _ = fs::remove_file(&key);
    config.unwrap_or_else(|why| panic!("{why}")).ike
}
