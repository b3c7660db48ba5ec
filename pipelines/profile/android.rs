//! Profiles of strongSwan's app for Android (.sswan).

use super::{request::ProfileError, terms::Terms};
use crate::config::model::PeerMethod;
use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};

pub(super) fn profile(terms: &Terms<'_>) -> Result<String, ProfileError> {
    let Some(authority) = &terms.authority else {
        return Err(terms.refuse(
            "strongSwan's app has no shared keys: set auth to \"certificate\", or to \"eap-mschapv2\" for names \
             and passwords",
        ));
    };
    let kind = match terms.connection.peer_method {
        PeerMethod::Certificate => "ikev2-cert",
        PeerMethod::EapTls => "ikev2-eap-tls",
        _ => "ikev2-eap",
    };
    let mut local = Map::new();
    if let Some(own) = &terms.own {
        local.insert("p12".into(), Base64::encode_string(&own.bundle).into());
        local.insert("id".into(), terms.named_user()?.into());
    } else if let Some(user) = terms.user {
        local.insert("eap_id".into(), user.into());
    }
    let mut profile = json!({
        "uuid": terms.uuid("profile"),
        "name": format!("{} VPN", terms.server),
        "type": kind,
        "remote": {
            "addr": terms.server,
            "id": terms.gateway,
            "cert": Base64::encode_string(&authority.der),
        },
        "local": local,
    });
    let protocol = &terms.connection.protocol;
    for (key, offers) in [("ike-proposal", &protocol.ike), ("esp-proposal", &protocol.esp)] {
        // The app takes one proposal.
        if let Some(first) = terms.proposals(offers).into_iter().next() {
            profile[key] = first.into();
        }
    }
    if !terms.is_everything() {
        profile["split-tunneling"] = json!({ "subnets": terms.networks });
    }
    Ok(pretty(&profile))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
