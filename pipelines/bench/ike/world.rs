//! Who there is, and what they agree on.
//!
//! ```text
//! terminals 100.64.0.0/10 ═ OUTSIDE ═ gateway 203.0.113.1 ═ INSIDE ═ server 10.0.0.2
//! ```
//!
//! Each terminal has four places that are its own. Inner addresses come from a pool.

use super::BenchError;
use crate::{
    config::model::{self, Config, Ike, PoolRange, Route},
    credentials::{Authorities, CertificateSigner, CredentialProblem},
    launch::OpenPort,
    slow_path::neighbours::Stations,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use wayfarer_dataplane::{
    port::{Mac, Port},
    sa::Limits,
    table::Prefix,
};
use wayfarer_mobility::{
    crypto::{Encr, Kex, Prf},
    identity::Identity,
    ike::{
        connection::{ChildPolicy, Connection, IdentityPattern, Lifetimes, LocalAuth, RemoteAuth, SharedKey},
        nat::IKE_PORT,
        proposal::Offer,
        wire::TrafficSelector,
    },
    roaming::Policy,
};
use zeroize::Zeroizing;

pub(super) const OUTSIDE: usize = 0;
pub(super) const INSIDE: usize = 1;
/// The gateway's outer address.
pub(super) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// Who all terminals talk to.
pub(super) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// The gateway's MAC addresses, by port.
pub(super) const GATEWAY_MAC: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// MAC addresses at the other end of each port.
pub(super) const STATION_MAC: [Mac; 2] = [[2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]];
/// Places of a terminal.
const PLACES: u32 = 4;

const OUTER: u32 = 0x6440_0000;
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 128, 0, 0), Ipv4Addr::new(10, 191, 255, 255)];
const GATEWAY_NAME: &str = "gateway.test";
const TERMINAL_NAME: &str = "terminal.test";

/// Where terminal `index` is after a number of moves.
pub(super) fn place(index: u32, moves: u32) -> IpAddr {
    Ipv4Addr::from_bits(OUTER + moves % PLACES * super::Options::MOST + index).into()
}

/// Whose place it is.
pub(super) fn terminal_at(address: IpAddr) -> Option<u32> {
    let IpAddr::V4(address) = address else { return None };
    let at = address.to_bits().checked_sub(OUTER)?;
    (at < PLACES * super::Options::MOST).then_some(at % super::Options::MOST)
}

/// How both sides prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// By a key that they share.
    Psk,
    /// By certificates: ECDSA on P-256.
    Certificates,
}

/// What connections are made of.
pub(super) struct World {
    /// What the gateway has.
    gateway: Connection,
    /// What terminals have.
    terminal: Connection,
    proof: Proof,
}

impl World {
    /// Makes keys and certificates.
    ///
    /// # Errors
    /// [`BenchError::Certificates`] and [`BenchError::Keys`].
    pub(super) fn new(proof: Proof) -> Result<Self, BenchError> {
        let (names, ids) = ([GATEWAY_NAME, TERMINAL_NAME], [GATEWAY_NAME, TERMINAL_NAME].map(identity));
        let [(gateway, for_gateway), (terminal, for_terminal)] = match proof {
            Proof::Psk => {
                let key = || SharedKey(Zeroizing::new(b"a secret of all of them".to_vec()));
                [(); 2].map(|()| (LocalAuth::Psk(key()), RemoteAuth::Psk(key())))
            }
            Proof::Certificates => certified(names)?,
        };
        let net = TrafficSelector::range(SERVER, SERVER);
        let child = ChildPolicy { name: "net".into(), local: vec![net], remote: vec![], transport: false };
        let gateway = Connection {
            name: "terminals".into(),
            remote: None,
            local: vec![GATEWAY],
            local_id: ids[0].clone(),
            remote_id: IdentityPattern::Any,
            local_auth: gateway,
            remote_auth: for_gateway,
            ike: vec![offer()],
            esp: vec![offer()],
            children: vec![child.clone()],
            pools: vec![0],
            ask_address: false,
            dns: vec![],
            domains: vec![],
            lifetimes: Lifetimes {
                ike_sa: Duration::from_secs(24 * 3600),
                child: Duration::from_secs(12 * 3600),
                grace: Duration::from_secs(3600),
            },
            liveness: None,
            mobike: true,
            roam: Policy::Follow,
            no_nats: false,
            force_udp: false,
            fragment: None,
            ppk: None,
            // Terminals with certificates share one.
            unique: proof == Proof::Psk,
        };
        let terminal = Connection {
            remote: Some(SocketAddr::new(GATEWAY, IKE_PORT)),
            local: vec![],
            local_id: ids[1].clone(),
            remote_id: IdentityPattern::Of(vec![ids[0].clone()]),
            local_auth: terminal,
            remote_auth: for_terminal,
            children: vec![ChildPolicy { local: vec![], remote: child.local, ..child }],
            pools: vec![],
            ask_address: true,
            ..gateway.clone()
        };
        Ok(Self { gateway, terminal, proof })
    }

    /// The gateway's connections. Peers with an odd number are asked whether they are there after `liveness`.
    pub(super) fn connections(&self, liveness: Option<Duration>) -> Vec<Connection> {
        let watched = Connection {
            name: "watched".into(),
            remote_id: IdentityPattern::Suffix(b".1.test".to_vec()),
            liveness,
            ..self.gateway.clone()
        };
        vec![watched, self.gateway.clone()]
    }

    /// The connection of terminal `index`.
    pub(super) fn terminal(&self, index: u32) -> Connection {
        let local_id = match self.proof {
            Proof::Psk => identity(&format!("{index}.{}.test", index % 2)),
            Proof::Certificates => self.terminal.local_id.clone(),
        };
        Connection { local_id, ..self.terminal.clone() }
    }

    /// The pool of inner addresses.
    pub(super) fn pool() -> [IpAddr; 2] {
        INNER.map(IpAddr::V4)
    }

    /// A gateway for so many tunnels.
    pub(super) fn config(&self, tunnels: u32, liveness: Option<Duration>) -> Config {
        let [first, last] = Self::pool();
        let connection =
            |protocol| model::Connection { protocol, window: 1024, mtu: None, limits: Limits::NONE };
        let terminals = Prefix::new(place(0, 0), 10).unwrap_or(Prefix::host(place(0, 0)));
        let gateway = model::Gateway {
            workers: None,
            control: None,
            idle_sleep: None,
            encap_ports: vec![4500],
            kernel_routes: false,
            mss_clamp: true,
            frames: 4096,
            frame_size: 2048,
            // Two at a time while keys change.
            tunnels: tunnels as usize,
        };
        let ike = Ike {
            connections: self.connections(liveness).into_iter().map(connection).collect(),
            pools: vec![PoolRange { name: "inner".into(), first, last }],
            ..Ike::default()
        };
        let routes = vec![
            Route { to: terminals, via: None, port: OUTSIDE },
            Route { to: Prefix::host(SERVER), via: None, port: INSIDE },
        ];
        Config { gateway, ports: vec![], dpdk: None, routes, tunnels: vec![], policies: vec![], ike }
    }
}

/// The gateway's ports, by their queues.
pub(super) fn ports(queues: [Box<dyn Port>; 2]) -> Vec<OpenPort> {
    let mut index = 0..2;
    queues
        .into_iter()
        .zip(&mut index)
        .map(|(queue, index)| OpenPort {
            name: ["outside", "inside"][index].to_owned(),
            kind: "memory".to_owned(),
            mac: GATEWAY_MAC[index],
            mtu: 1500,
            fills_checksums: false,
            addresses: if index == OUTSIDE { vec![(GATEWAY, Prefix::host(GATEWAY))] } else { vec![] },
            stations: Stations::Only(STATION_MAC[index]),
            is_host: false,
            device: None,
            shared: None,
            exception: None,
            monitor: None,
            queues: vec![queue],
        })
        .collect()
}

fn identity(name: &str) -> Identity {
    Identity { kind: wayfarer_mobility::identity::kind::FQDN, data: name.into() }
}

/// AES-GCM with X25519.
fn offer() -> Offer {
    Offer {
        encr: vec![Encr::AesGcm(256)],
        integ: vec![],
        prf: vec![Prf::HmacSha256],
        kex: vec![Kex::X25519],
        more_kex: vec![],
    }
}

/// An authority, and for each name a certificate of its own: how it proves itself and whom it trusts.
fn certified(names: [&str; 2]) -> Result<[(LocalAuth, RemoteAuth); 2], BenchError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // What `rcgen` draws by default is ECDSA on P-256.
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let side = |name: &str| -> Result<_, BenchError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| CredentialProblem::BadKey)?;
        let own: &[CertificateDer<'_>] = &[certificate.der().clone()];
        let signer = CertificateSigner::new(own, &private)?;
        let trusted = Authorities::new(&[authority.der().clone()], SystemTime::now)?;
        Ok((LocalAuth::Key(Arc::new(signer)), RemoteAuth::Key(Arc::new(trusted))))
    };
    let [gateway, terminal] = names;
    Ok([side(gateway)?, side(terminal)?])
}
