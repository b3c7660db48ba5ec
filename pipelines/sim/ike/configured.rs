//! Connections read from configuration files.

use crate::{
    config::{self, model::Ike},
    sim::files::with_file,
};

/// Reads the pools and connections of a gateway or a terminal at `address` from the sections
/// `[[pool]]` and `[[connection]]`. `$PSK` stands for the file of a shared key.
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
    with_file(b"a secret of both", |key| {
        let text = format!("{ports}{}", text.replace("$PSK", &key.display().to_string()));
        config::parse(&text, &key.with_file_name("gateway.toml")).unwrap_or_else(|why| panic!("{why}")).ike
    })
}

/// Reads a gateway's configuration for terminals with a shared key: a pool of these addresses, and
/// a connection with these additional `keys`.
///
/// # Panics
/// As [`ike`].
pub fn for_terminals(pool: &str, keys: &str) -> Ike {
    let text = format!(
        r#"
[[pool]]
name = "terminals"
addresses = "{pool}"
[[connection]]
name = "terminals"
local = "203.0.113.1"
local_id = "gw.test"
remote_id = "*.test"
auth = "psk"
psk_file = "$PSK"
{keys}
"#
    );
    ike(&text, "203.0.113.1")
}
