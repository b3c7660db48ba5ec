//! A key file of NetworkManager, for strongSwan's plugin.

use super::{request::ProfileError, terms::Terms};
use crate::config::model::PeerMethod;
use std::fmt::Write;

/// The folder that the comment proposes for certificates.
const FOLDER: &str = "/etc/NetworkManager/certs";

/// Returns a value as a key file has it: a backslash begins an escape sequence there, and blanks at the
/// start do not count.
fn escape(value: &str) -> String {
    let value = value.replace('\\', "\\\\");
    value.strip_prefix(' ').map_or(value.clone(), |rest| format!("\\s{rest}"))
}

pub(super) fn profile(terms: &Terms<'_>) -> Result<String, ProfileError> {
    let protocol = &terms.connection.protocol;
    let user = terms.named_user()?;
    let mut text = String::from(
        "# For the plugin network-manager-strongswan. Put this in /etc/NetworkManager/system-connections/, with the\n\
         # ending .nmconnection and mode 0600, then run: nmcli connection reload\n",
    );
    let file = |name: &str| format!("{FOLDER}/{name}");
    let mut vpn = vec![
        ("service-type", "org.freedesktop.NetworkManager.strongswan".to_owned()),
        ("address", terms.server.clone()),
        ("remote-identity", terms.gateway.clone()),
        ("virtual", "yes".to_owned()),
        ("proposal", "yes".to_owned()),
        ("ike", terms.proposals(&protocol.ike).join(";")),
        ("esp", terms.proposals(&protocol.esp).join(";")),
        ("remote-ts", terms.networks.join(";")),
    ];
    // Writing to a String does not fail.
    if let Some(authority) = &terms.authority {
        let _ = writeln!(text, "# Copy {} to {FOLDER}/.", authority.file);
        vpn.push(("certificate", file(&authority.file)));
    }
    // Flag 1: the user's own keyring keeps the password.
    let password = [("user", user.to_owned()), ("password-flags", "1".to_owned())];
    match terms.connection.peer_method {
        PeerMethod::SharedKey => vpn.extend([("method", "psk".to_owned())].into_iter().chain(password)),
        PeerMethod::Password | PeerMethod::Radius => {
            vpn.extend([("method", "eap".to_owned())].into_iter().chain(password));
        }
        PeerMethod::Certificate | PeerMethod::EapTls => {
            let is_eap = terms.connection.peer_method == PeerMethod::EapTls;
            let _ = writeln!(
                text,
                "# Copy {user}.crt and {user}.key to {FOLDER}/, and keep them from other users."
            );
            vpn.extend([
                ("method", if is_eap { "eap-tls" } else { "cert" }.to_owned()),
                ("cert-source", "file".to_owned()),
                ("usercert", file(&format!("{user}.crt"))),
                ("userkey", file(&format!("{user}.key"))),
                ("local-identity", user.to_owned()),
            ]);
        }
    }
    let never_default = if terms.is_everything() { "" } else { "never-default=true\n" };
    let _ = write!(
        text,
        "\n[connection]\nid={} VPN\nuuid={}\ntype=vpn\n\n[vpn]\n",
        terms.server,
        terms.uuid("profile")
    );
    for (key, value) in vpn {
        let _ = writeln!(text, "{key}={}", escape(&value));
    }
    let _ = write!(text, "\n[ipv4]\nmethod=auto\n{never_default}\n[ipv6]\nmethod=auto\n{never_default}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were() {
        assert_eq!(escape("CORP\\sam"), "CORP\\\\sam");
        assert_eq!(escape(" sam "), "\\ssam ");
        assert_eq!(escape("sam@example.org"), "sam@example.org");
    }
}
