//! Apple's configuration profiles (.mobileconfig), after Apple's device management documentation.

use super::{
    algorithms::{Choice, Hash, Known, choose},
    plist::{self, Value},
    request::ProfileError,
    terms::Terms,
};
use crate::{config::model::PeerMethod, credentials::KeyType};
use wayfarer_mobility::crypto::{Encr, Kex};

const KNOWN: Known = Known {
    encr: &[
        (Encr::AesGcm(256), "AES-256-GCM"),
        (Encr::AesGcm(128), "AES-128-GCM"),
        (Encr::AesCbc(256), "AES-256"),
        (Encr::AesCbc(128), "AES-128"),
        (Encr::ChaCha20Poly1305, "ChaCha20Poly1305"),
    ],
    hash: &[(Hash::Sha256, "SHA2-256"), (Hash::Sha384, "SHA2-384"), (Hash::Sha512, "SHA2-512")],
    kex: &[
        (Kex::Ecp256, "19"),
        (Kex::Ecp384, "20"),
        (Kex::X25519, "31"),
        (Kex::Ecp521, "21"),
        (Kex::Modp2048, "14"),
        (Kex::Modp3072, "15"),
        (Kex::Modp4096, "16"),
    ],
};

pub(super) fn profile(terms: &Terms<'_>) -> Result<String, ProfileError> {
    let Some(authority) = &terms.authority else {
        return Err(terms.refuse(
            "with a shared key, each phone could pose as the gateway: set auth to \"certificate\", \
             or to \"eap-mschapv2\" for names and passwords",
        ));
    };
    let server = &terms.server;
    let mut payloads = vec![payload(
        terms,
        "com.apple.security.root",
        "authority",
        &authority.name,
        [("PayloadContent", Value::Data(authority.der.clone()))],
    )];
    if let Some(own) = &terms.own {
        // Without a Password, the device asks for it.
        payloads.push(payload(
            terms,
            "com.apple.security.pkcs12",
            "certificate",
            terms.named_user()?,
            [("PayloadContent", Value::Data(own.bundle.clone()))],
        ));
    }
    payloads.push(payload(
        terms,
        "com.apple.vpn.managed",
        "vpn",
        server,
        [
            ("UserDefinedName", Value::from(&**server)),
            ("VPNType", "IKEv2".into()),
            ("IKEv2", Value::Table(ikev2(terms, &authority.name)?)),
        ],
    ));
    Ok(plist::document(&payload(
        terms,
        "Configuration",
        "profile",
        &format!("{server} VPN"),
        [("PayloadRemovalDisallowed", Value::Flag(false)), ("PayloadContent", Value::List(payloads))],
    )))
}

/// Returns a payload with the keys that all payloads have, and its own.
fn payload<const N: usize>(
    terms: &Terms<'_>,
    kind: &str,
    part: &str,
    shown: &str,
    own: [(&'static str, Value); N],
) -> Value {
    let base = format!("wayfarer.{}.{}", terms.server, terms.connection.protocol.name);
    let identifier = if part == "profile" { base } else { format!("{base}.{part}") };
    let common = [
        ("PayloadType", Value::from(kind)),
        ("PayloadVersion", Value::Number(1)),
        ("PayloadIdentifier", Value::Text(identifier)),
        ("PayloadUUID", Value::Text(terms.uuid(part))),
        ("PayloadDisplayName", shown.into()),
    ];
    Value::Table(common.into_iter().chain(own).collect())
}

fn ikev2(terms: &Terms<'_>, issuer: &str) -> Result<Vec<(&'static str, Value)>, ProfileError> {
    let protocol = &terms.connection.protocol;
    let ike = choose(&protocol.ike, &KNOWN)
        .ok_or_else(|| terms.no_algorithms("proposals", "aes256gcm16-prfsha256-ecp256"))?;
    let esp = choose(&protocol.esp, &KNOWN).ok_or_else(|| terms.no_algorithms("esp", "aes256gcm16"))?;
    let mut keys = vec![
        ("RemoteAddress", Value::from(&*terms.server)),
        ("RemoteIdentifier", Value::from(&*terms.gateway)),
        ("LocalIdentifier", terms.user.unwrap_or_default().into()),
        // The device asks for this issuer, which it needs for certificates with ECDSA keys.
        ("ServerCertificateIssuerCommonName", issuer.into()),
        ("DeadPeerDetectionRate", "Medium".into()),
        ("DisableMOBIKE", Value::Number(u32::from(!protocol.mobike))),
        ("EnablePFS", Value::Number(u32::from(esp.kex.is_some()))),
        ("UseConfigurationAttributeInternalIPSubnet", Value::Number(0)),
        ("IKESecurityAssociationParameters", algorithms(&ike, protocol.lifetimes.ike_sa.as_secs())),
        ("ChildSecurityAssociationParameters", algorithms(&esp, protocol.lifetimes.child.as_secs())),
    ];
    if terms.connection.peer_method == PeerMethod::Certificate {
        keys.push(("AuthenticationMethod", "Certificate".into()));
    } else {
        keys.push(("AuthenticationMethod", "None".into()));
        keys.push(("ExtendedAuthEnabled", Value::Number(1)));
    }
    if let Some(own) = &terms.own {
        keys.push(("PayloadCertificateUUID", Value::Text(terms.uuid("certificate"))));
        let kind = match own.facts.key {
            KeyType::Ecdsa256 => "ECDSA256",
            KeyType::Ecdsa384 => "ECDSA384",
            KeyType::Ecdsa521 => "ECDSA521",
            KeyType::Rsa | KeyType::Other => "RSA",
        };
        keys.push(("CertificateType", kind.into()));
    } else if let Some(user) = terms.user {
        keys.push(("AuthName", user.into()));
    }
    Ok(keys)
}

/// Returns one algorithm of each kind. The device rekeys after the time; it takes 10 to 1440
/// minutes.
fn algorithms(choice: &Choice, seconds: u64) -> Value {
    let minutes = u32::try_from(seconds / 60).unwrap_or(u32::MAX).clamp(10, 1440);
    let mut keys = vec![
        ("EncryptionAlgorithm", Value::from(choice.encr)),
        ("IntegrityAlgorithm", choice.hash.into()),
        ("LifeTimeInMinutes", Value::Number(minutes)),
    ];
    let group = choice.kex.and_then(|group| group.parse().ok());
    keys.extend(group.map(|group| ("DiffieHellmanGroup", Value::Number(group))));
    Value::Table(keys)
}
