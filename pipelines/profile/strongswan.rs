//! swanctl.conf, for strongSwan 5.8 and newer.

use super::{request::ProfileError, terms::Terms};
use crate::config::model::PeerMethod;
use std::fmt::Write;

pub(super) fn profile(terms: &Terms<'_>) -> Result<String, ProfileError> {
    let protocol = &terms.connection.protocol;
    let user = terms.named_user()?;
    let name = section(&protocol.name);
    let id = quoted(user);
    let (method, secret) = match terms.connection.peer_method {
        PeerMethod::SharedKey => ("auth = psk".to_owned(), Some("ike")),
        PeerMethod::Certificate => {
            (format!("auth = pubkey\n      certs = {}", quoted(&format!("{user}.crt"))), None)
        }
        PeerMethod::EapTls => (
            format!("auth = eap-tls\n      certs = {}\n      eap_id = {id}", quoted(&format!("{user}.crt"))),
            None,
        ),
        PeerMethod::Password | PeerMethod::Radius => {
            (format!("auth = eap\n      eap_id = {id}"), Some("eap"))
        }
    };
    let mut text =
        String::from("# Parts of /etc/swanctl. Connect by: swanctl --load-all; swanctl --initiate --child ");
    // Writing to a String does not fail.
    let _ = writeln!(text, "{name}");
    if let Some(authority) = &terms.authority {
        let _ = writeln!(text, "# {} belongs in x509ca/.", authority.file);
    }
    if terms.own.is_some() {
        let _ = writeln!(text, "# {user}.crt belongs in x509/, {user}.key in private/.");
    }
    let remote = match &terms.authority {
        Some(authority) => format!("auth = pubkey\n      cacerts = {}", quoted(&authority.file)),
        None => "auth = psk".to_owned(),
    };
    let [v4, v6] = terms.families;
    let vips = [(v4, "0.0.0.0"), (v6, "::")].into_iter().filter_map(|(has, any)| has.then_some(any));
    let yes = if protocol.mobike { "yes" } else { "no" };
    let _ = write!(
        text,
        "\
connections {{
  {name} {{
    version = 2
    remote_addrs = {server}
    vips = {vips}
    mobike = {yes}
    fragmentation = yes
    dpd_delay = 30s
    proposals = {ike}
    local {{
      {method}
      id = {id}
    }}
    remote {{
      {remote}
      id = {gateway}
    }}
    children {{
      {name} {{
        remote_ts = {networks}
        esp_proposals = {esp}
        dpd_action = restart
      }}
    }}
  }}
}}
",
        server = quoted(&terms.server),
        vips = vips.collect::<Vec<_>>().join(","),
        ike = terms.proposals(&protocol.ike).join(","),
        gateway = quoted(&terms.gateway),
        networks = terms.networks.join(","),
        esp = terms.proposals(&protocol.esp).join(","),
    );
    if let Some(kind) = secret {
        let owner = if kind == "eap" { format!("id = {id}\n    ") } else { String::new() };
        let _ = write!(
            text,
            "secrets {{\n  {kind}-{name} {{\n    {owner}secret = \"PASSWORD\"    # put the real one here, chmod 600\n  }}\n}}\n"
        );
    }
    Ok(text)
}

/// Returns a name of a section, in which some characters have a meaning.
fn section(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(plain).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
