//! The configuration of the measured gateway and its terminals.
//!
//! ```text
//! terminals 100.64.0.0/10 ═ OUTSIDE ═ gateway 203.0.113.1 ═ INSIDE ═ server 10.0.0.2
//! ```
//!
//! Each terminal has four outer addresses of its own. Inner addresses come from a pool.

use super::BenchError;
use crate::{
    config::model::{self, Config, Gateway, Ike, PoolRange},
    credentials::{Authorities, CertificateSigner, CredentialProblem},
    sim::{
        addresses,
        fixtures::{SERVER, gateway_settings, two_port_config},
        ike::connections,
    },
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use wayfarer_dataplane::sa::Limits;
use wayfarer_mobility::{
    crypto::{Kex, Prf},
    identity::Identity,
    ike::{
        connection::{ChildPolicy, Connection, IdentityPattern, Lifetimes, LocalAuth, RemoteAuth, SharedKey},
        proposal::Offer,
        wire::TrafficSelector,
    },
};
use zeroize::Zeroizing;

const GATEWAY_NAME: &str = "gateway.test";
const TERMINAL_NAME: &str = "terminal.test";

/// The method by which both sides prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// By a shared key.
    Psk,
    /// By certificates with ECDSA on P-256.
    Certificates,
}

/// Templates of connections.
pub(super) struct World {
    /// The gateway's connection.
    gateway: Connection,
    /// The connection of each terminal, but for its identity.
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
            local_id: ids[0].clone(),
            other_local_ids: vec![],
            local_auth: gateway,
            remote_auth: for_gateway,
            ike: vec![offer()],
            esp: vec![offer()],
            children: vec![child.clone()],
            dns: vec![],
            domains: vec![],
            lifetimes: Lifetimes {
                ike_sa: Duration::from_secs(24 * 3600),
                child: Duration::from_secs(12 * 3600),
                grace: Duration::from_secs(3600),
                authentication: None,
            },
            liveness: None,
            fragment: None,
            // Terminals with certificates share one identity.
            unique: proof == Proof::Psk,
            ..connections::gateway()
        };
        let terminal = Connection {
            local_id: ids[1].clone(),
            other_local_ids: vec![],
            remote_id: IdentityPattern::of(vec![ids[0].clone()]),
            local_auth: terminal,
            remote_auth: for_terminal,
            children: vec![ChildPolicy { local: vec![], remote: child.local, ..child }],
            pools: vec![],
            ask_address: true,
            remote: connections::terminal().remote,
            local: vec![],
            ..gateway.clone()
        };
        Ok(Self { gateway, terminal, proof })
    }

    /// Returns the gateway's connections. The liveness of peers with an odd index is checked after
    /// `liveness`.
    pub(super) fn connections(&self, liveness: Option<Duration>) -> Vec<Connection> {
        let watched = Connection {
            name: "watched".into(),
            remote_id: IdentityPattern::Suffix(b".1.test".to_vec()),
            liveness,
            ..self.gateway.clone()
        };
        vec![watched, self.gateway.clone()]
    }

    /// Returns the connection of terminal `index`.
    pub(super) fn terminal(&self, index: u32) -> Connection {
        let local_id = match self.proof {
            Proof::Psk => identity(&format!("{index}.{}.test", index % 2)),
            Proof::Certificates => self.terminal.local_id.clone(),
        };
        Connection { local_id, ..self.terminal.clone() }
    }

    /// Returns the first and the last address of the pool of inner addresses.
    pub(super) fn pool() -> [IpAddr; 2] {
        [addresses::inner(0), addresses::inner(4 * addresses::MOST - 1)]
    }

    /// Configures a gateway with room for `tunnels` tunnels.
    pub(super) fn config(&self, tunnels: u32, liveness: Option<Duration>) -> Config {
        let [first, last] = Self::pool();
        let connection = |protocol| model::Connection {
            protocol,
            peer_method: model::PeerMethod::SharedKey,
            certificate: None,
            legacy_signatures: false,
            window: 1024,
            mtu: None,
            outer_fragments: false,
            limits: Limits::NONE,
            nas_identifier: "wayfarer".into(),
            servers: vec![],
            accounting: None,
        };
        let gateway = Gateway { frames: 4096, ..gateway_settings(tunnels as usize) };
        let ike = Ike {
            connections: self.connections(liveness).into_iter().map(connection).collect(),
            pools: vec![PoolRange { name: "inner".into(), first, last }],
            ..Ike::default()
        };
        Config { ike, ..two_port_config(gateway, addresses::all_outer(), vec![]) }
    }
}

fn identity(name: &str) -> Identity {
    Identity { kind: wayfarer_mobility::identity::kind::FQDN, data: name.into() }
}

/// Offers AES-GCM with X25519 only.
fn offer() -> Offer {
    Offer { prf: vec![Prf::HmacSha256], kex: vec![Kex::X25519], ..connections::offer() }
}

/// Makes an authority and a certificate for each name; returns how each side proves itself and whom
/// it trusts.
fn certified(names: [&str; 2]) -> Result<[(LocalAuth, RemoteAuth); 2], BenchError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // The default of `rcgen` is ECDSA on P-256.
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
