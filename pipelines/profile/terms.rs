//! What every profile of a connection says.

use super::request::{Client, ProfileError, Request};
use crate::{
    config::{
        algorithms,
        model::{Config, Connection, PeerMethod},
    },
    credentials::{CertificateFacts, KeyType, certificate},
    pki::is_file_name,
};
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    fmt::Write,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};
use wayfarer_mobility::{
    identity::{Identity, kind},
    ike::{connection::LocalAuth, proposal::Offer, wire::TrafficSelector},
};

/// Name of the authority's certificate beside the gateway's.
const AUTHORITY: &str = "ca.crt";

/// What every profile of a connection says.
pub(super) struct Terms<'a> {
    client: Client,
    /// The connection.
    pub connection: &'a Connection,
    /// The name or address that the client connects to.
    pub server: String,
    /// The gateway's identity.
    pub gateway: String,
    /// The certificate of the gateway's authority; `None` with a shared key.
    pub authority: Option<Authority>,
    /// The user's name.
    pub user: Option<&'a str>,
    /// The user's certificate and key, if it needs one.
    pub own: Option<OwnFiles>,
    /// The networks behind the gateway.
    pub networks: Vec<String>,
    /// Families of the inner addresses that the client gets: IPv4, IPv6.
    pub families: [bool; 2],
}

/// The authority that issued the gateway's certificate.
pub(super) struct Authority {
    /// Its certificate in DER.
    pub der: Vec<u8>,
    /// Its common name.
    pub name: String,
    /// Name of the file.
    pub file: String,
}

/// The files of a user that authenticates by certificate.
pub(super) struct OwnFiles {
    /// About the certificate.
    pub facts: CertificateFacts,
    /// The PKCS#12 file.
    pub bundle: Vec<u8>,
}

impl<'a> Terms<'a> {
    pub(super) fn of(config: &'a Config, request: &Request<'a>) -> Result<Self, ProfileError> {
        let connection = connection(config, request.connection)?;
        let protocol = &connection.protocol;
        let refuse = |why: String| Err(refusal(&protocol.name, &why));
        // They would begin another line of some profiles, and no profile can have them.
        let given = [request.user, request.server];
        if given.into_iter().flatten().any(|text| text.contains(char::is_control)) {
            return refuse("the user and the server must not have control characters".into());
        }
        let mut own = std::iter::once(&protocol.local_id).chain(&protocol.other_local_ids);
        let Some((id, gateway)) = own.find_map(|id| Some((id, text(id)?))) else {
            return refuse("clients know the gateway by a name or address: set local_id to one".into());
        };
        let first = protocol.local.first().map_or_else(String::new, IpAddr::to_string);
        let is_name = id.kind != kind::RFC822_ADDR;
        let server =
            request.server.map_or_else(|| if is_name { gateway.clone() } else { first }, str::to_owned);
        let networks = protocol.children.first().map_or(&[][..], |child| &child.local);
        let mut terms = Self {
            client: request.client,
            connection,
            server,
            gateway,
            authority: None,
            user: request.user,
            own: None,
            networks: networks.iter().map(network).collect(),
            families: families(config, connection),
        };
        terms.refuse_modes()?;
        if let LocalAuth::Key(signer) = &protocol.local_auth {
            let chain = signer.certificates();
            let path = request.authority.map(Path::to_owned).or_else(|| beside(connection, AUTHORITY));
            let path = path.unwrap_or_else(|| AUTHORITY.into());
            terms.authority = Some(terms.read_authority(&path, chain)?);
            terms.check_gateway(chain)?;
            if matches!(connection.peer_method, PeerMethod::Certificate | PeerMethod::EapTls) {
                terms.own = Some(terms.read_own(&path)?);
            }
        }
        Ok(terms)
    }

    /// Refuses what only another gateway can do.
    fn refuse_modes(&self) -> Result<(), ProfileError> {
        let protocol = &self.connection.protocol;
        let has_transport = protocol.children.iter().any(|child| child.transport);
        let why = if protocol.is_dialled() {
            "it calls a gateway; profiles are for connections without remote, or with remote = \"any\""
        } else if has_transport {
            "clients use tunnel mode: remove mode = \"transport\""
        } else if protocol.pools.is_empty() && self.connection.peer_method != PeerMethod::Radius {
            "clients ask for an inner address: name a [[pool]] in pool"
        } else if protocol.ppk.as_ref().is_some_and(|ppk| ppk.required) {
            "profiles have no post-quantum keys: set required = false in ppk"
        } else {
            return Ok(());
        };
        Err(self.refuse(why))
    }

    /// Checks that the client will accept the gateway's certificate.
    fn check_gateway(&self, chain: &[Vec<u8>]) -> Result<(), ProfileError> {
        let Some(own) = chain.first() else { return Ok(()) };
        let mut names = vec![&*self.server, &*self.gateway];
        names.dedup();
        let again = format!("make one by `wayfarer pki gateway {}`", names.join(" "));
        let is_strict = matches!(self.client, Client::Apple | Client::Windows);
        if is_strict && !CertificateFacts::of(own).is_some_and(|facts| facts.is_server) {
            return Err(self.refuse(&format!("the gateway's certificate lacks serverAuth: {again}")));
        }
        let is_rsa = CertificateFacts::of(own).is_some_and(|facts| facts.key == KeyType::Rsa);
        if is_strict && is_rsa && !self.connection.legacy_signatures {
            let why = "the gateway's key is RSA, with which this client may know only SHA-1";
            return Err(self.refuse(&format!("{why}: {again}, or set legacy_signatures = true")));
        }
        let names = certificate::identities(own);
        let has =
            |name: &str| Identity::from_text(name).is_some_and(|id| names.iter().any(|n| n.is_same(&id)));
        // Windows compares the certificate with what it connected to, others with the identity.
        let needed = if self.client == Client::Windows { &self.server } else { &self.gateway };
        match has(needed) {
            true => Ok(()),
            false => Err(self.refuse(&format!("the gateway's certificate is not for {needed}: {again}"))),
        }
    }

    fn read_authority(&self, path: &Path, chain: &[Vec<u8>]) -> Result<Authority, ProfileError> {
        let der = read_certificate(path)
            .map_err(|why| self.refuse(&format!("{why}; --ca names the file of the gateway's authority")))?;
        let facts = CertificateFacts::of(&der);
        let facts = facts.ok_or_else(|| self.refuse(&format!("{}: cannot be parsed", path.display())))?;
        let has_issued =
            chain.iter().filter_map(|der| CertificateFacts::of(der)).any(|c| c.issuer == facts.subject);
        if !has_issued {
            let why = format!(
                "{}: did not issue the gateway's certificate; --ca names the right one",
                path.display()
            );
            return Err(self.refuse(&why));
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Authority { der, name: facts.common_name.unwrap_or_default(), file })
    }

    /// Reads the user's files, which are beside the authority's.
    fn read_own(&self, authority: &Path) -> Result<OwnFiles, ProfileError> {
        let user =
            self.user.ok_or_else(|| self.refuse("each user needs a certificate: give its name by --user"))?;
        if !is_file_name(user) {
            let why = "--user names a certificate's file, so it may only have letters, digits and . _ - + @";
            return Err(self.refuse(why));
        }
        let beside = |ending: &str| authority.with_file_name(format!("{user}.{ending}"));
        let again = format!("; `wayfarer pki user {user}` makes it");
        let der = read_certificate(&beside("crt")).map_err(|why| self.refuse(&format!("{why}{again}")))?;
        let facts = CertificateFacts::of(&der)
            .ok_or_else(|| self.refuse("the user's certificate cannot be parsed"))?;
        let path = beside("p12");
        let bundle = fs::read(&path);
        let bundle = bundle.map_err(|why| self.refuse(&format!("{}: {why}{again}", path.display())))?;
        Ok(OwnFiles { facts, bundle })
    }

    /// Returns the error that the client cannot use the connection, for this reason.
    pub(super) fn refuse(&self, why: &str) -> ProfileError {
        refusal(&self.connection.protocol.name, why)
    }

    /// Returns the error that the client shares no algorithms with the connection.
    pub(super) fn no_algorithms(&self, key: &str, example: &str) -> ProfileError {
        self.refuse(&format!("{} knows none of these algorithms: add \"{example}\" to {key}", self.client))
    }

    /// Returns the user's name, which this client does not ask for.
    pub(super) fn named_user(&self) -> Result<&'a str, ProfileError> {
        self.user.ok_or_else(|| self.refuse(&format!("{} needs --user", self.client)))
    }

    /// Returns whether all traffic goes through the gateway.
    pub(super) fn is_everything(&self) -> bool {
        self.networks.iter().any(|network| network == "0.0.0.0/0")
    }

    /// Returns the proposals of these offers, as strongSwan writes them. Those with additional key
    /// exchanges, which only its version 6 reads, come only if there are no others.
    pub(super) fn proposals(&self, offers: &[Offer]) -> Vec<String> {
        let plain: Vec<_> = offers.iter().filter(|offer| offer.more_kex.is_empty()).collect();
        match plain.is_empty() {
            true => offers.iter().map(algorithms::proposal).collect(),
            false => plain.into_iter().map(algorithms::proposal).collect(),
        }
    }

    /// Returns a UUID for a part of the profile. It is the same whenever the profile is made, so
    /// that a client replaces the profile that it has (RFC 9562 §5.8).
    pub(super) fn uuid(&self, part: &str) -> String {
        let mut text = format!("wayfarer {part}");
        for word in [&self.server, &self.connection.protocol.name, self.user.unwrap_or_default()] {
            let _ = write!(text, "\0{word}");
        }
        let hash = digest(&SHA256, text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut uuid = String::new();
        for (at, byte) in bytes.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            let _ = write!(uuid, "{dash}{byte:02x}");
        }
        uuid
    }
}

fn refusal(connection: &str, why: &str) -> ProfileError {
    ProfileError(format!("connection {connection:?}: {why}"))
}

/// Returns the connection of this name, or the only one that terminals may use.
fn connection<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Connection, ProfileError> {
    let all = || config.ike.connections.iter();
    let names = |list: &[&Connection]| {
        list.iter().map(|c| format!("{:?}", c.protocol.name)).collect::<Vec<_>>().join(", ")
    };
    if let Some(name) = name {
        return all().find(|c| c.protocol.name == name).ok_or_else(|| {
            ProfileError(format!(
                "no [[connection]] is called {name:?}, only {}",
                names(&all().collect::<Vec<_>>())
            ))
        });
    }
    let waiting: Vec<_> = all().filter(|c| !c.protocol.is_dialled()).collect();
    match &waiting[..] {
        [only] => Ok(only),
        [] => Err(ProfileError("the configuration has no [[connection]] for terminals".into())),
        several => Err(ProfileError(format!("--connection must choose one of {}", names(several)))),
    }
}

fn text(identity: &Identity) -> Option<String> {
    let is_text = matches!(identity.kind, kind::IPV4_ADDR | kind::IPV6_ADDR | kind::FQDN | kind::RFC822_ADDR);
    is_text.then(|| identity.to_string())
}

fn beside(connection: &Connection, file: &str) -> Option<PathBuf> {
    connection.certificate.as_ref().map(|path| path.with_file_name(file))
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, String> {
    let pem = fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
    let der = CertificateDer::from_pem_slice(&pem);
    der.map(|der| der.to_vec()).map_err(|_| format!("{}: must be a certificate in PEM", path.display()))
}

/// Returns a selector of the configuration, which was made of a prefix, as a prefix.
fn network(selector: &TrafficSelector) -> String {
    let length = match (selector.start, selector.end) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    format!("{}/{length}", selector.start)
}

fn families(config: &Config, connection: &Connection) -> [bool; 2] {
    let pools: Vec<_> = connection.protocol.pools.iter().filter_map(|at| config.ike.pools.get(*at)).collect();
    let has = |v4| pools.is_empty() || pools.iter().any(|pool| pool.first.is_ipv4() == v4);
    [has(true), has(false)]
}
