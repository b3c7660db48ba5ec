//! Connections of a gateway and its terminals, with defaults.

use std::{net::SocketAddr, time::Duration};
use wayfarer_mobility::{
    crypto::{Encr, Kex, Prf},
    identity::Identity,
    ike::{
        connection::{
            ChildPolicy, Connection, IdentityPattern, Lifetimes, LocalAuth, Remote, RemoteAuth, SharedKey,
        },
        proposal::Offer,
        wire::TrafficSelector,
    },
    path_mtu::PathProbing,
    roaming::Policy,
};
use zeroize::Zeroizing;

/// The gateway's address.
pub const GATEWAY: [u8; 4] = [203, 0, 113, 1];
/// The terminal's address.
pub const TERMINAL: [u8; 4] = [192, 0, 2, 7];

/// Makes a selector of IPv4 addresses.
pub fn prefix(first: [u8; 4], last: [u8; 4]) -> TrafficSelector {
    TrafficSelector::range(first.into(), last.into())
}

/// Makes an offer of AES-GCM with X25519.
pub fn offer() -> Offer {
    Offer {
        encr: vec![Encr::AesGcm(256)],
        integ: vec![],
        prf: vec![Prf::HmacSha384],
        kex: vec![Kex::X25519, Kex::Ecp256],
        more_kex: vec![],
    }
}

/// Parses an identity.
///
/// # Panics
/// If the text is not an identity.
pub fn identity(text: &str) -> Identity {
    Identity::from_text(text).unwrap_or_else(|| panic!("{text} is not an identity"))
}

fn key(text: &str) -> SharedKey {
    SharedKey(Zeroizing::new(text.into()))
}

/// Makes a gateway's connection for terminals with a shared key.
pub fn gateway() -> Connection {
    Connection {
        name: "terminals".into(),
        remote: vec![],
        local: vec![GATEWAY.into()],
        local_id: identity("gw.test"),
        other_local_ids: vec![],
        remote_id: IdentityPattern::Any,
        local_auth: LocalAuth::Psk(key("a secret of both")),
        remote_auth: RemoteAuth::Psk(key("a secret of both")),
        ike: vec![offer()],
        esp: vec![offer()],
        children: vec![ChildPolicy {
            name: "net".into(),
            local: vec![prefix([10, 99, 0, 0], [10, 99, 0, 255])],
            remote: vec![],
            transport: false,
        }],
        pools: vec![0],
        ask_address: false,
        dns: vec![[10, 99, 0, 53].into()],
        domains: vec!["example.org".into()],
        lifetimes: Lifetimes {
            ike_sa: Duration::from_secs(4 * 3600),
            child: Duration::from_secs(3600),
            grace: Duration::from_secs(300),
            authentication: None,
        },
        liveness: Some(Duration::from_secs(30)),
        mobike: true,
        roam: Policy::Follow,
        no_nats: false,
        force_udp: false,
        fragment: Some(1280),
        path_probing: PathProbing::Off,
        ppk: None,
        unique: true,
    }
}

/// Makes a terminal's connection to that gateway.
pub fn terminal() -> Connection {
    Connection {
        name: "home".into(),
        remote: vec![Remote::At(SocketAddr::from((GATEWAY, 500)))],
        local: vec![],
        local_id: identity("cl.test"),
        other_local_ids: vec![],
        remote_id: IdentityPattern::of(vec![identity("gw.test")]),
        children: vec![ChildPolicy {
            name: "net".into(),
            local: vec![],
            remote: vec![prefix([10, 99, 0, 0], [10, 99, 0, 255])],
            transport: false,
        }],
        pools: vec![],
        ask_address: true,
        ..gateway()
    }
}
