//! Checks the identities of both sides and the ways in which they authenticate.

use super::{
    raw::{ADVISED_PSK, RawConnection},
    remote::default_identities,
};
use crate::{
    config::{
        error::{ConfigError, ConfigResult, Rule},
        file::{self, Auth, Key, Method},
        keys, value,
    },
    credentials::{Authorities, CertificateSigner, CredentialError, CrlPolicy, EapTlsServer, certificate},
    primitives::OsRandom,
};
use std::{
    net::IpAddr,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use toml::Spanned;
use wayfarer_mobility::{
    aaa::{
        eap::mschapv2::{Mschapv2Client, Mschapv2Server, NtHash},
        radius::{
            Radius,
            question::{Realm, Server},
        },
    },
    crypto::Signer,
    identity::Identity,
    ike::connection::{IdentityPattern, LocalAuth, Remote, RemoteAuth, SharedKey},
};

/// The default for the gateway's own name for RADIUS servers.
const NAS_IDENTIFIER: &str = "wayfarer";

/// The word for the subject of the gateway's certificate.
const SUBJECT: &str = "certificate-subject";

/// The identities and credentials of both sides of a connection.
pub(super) struct Proofs {
    pub local_id: Identity,
    pub other_local_ids: Vec<Identity>,
    pub remote_id: IdentityPattern,
    pub local_auth: LocalAuth,
    pub remote_auth: RemoteAuth,
}

/// The authentication methods of both sides of a connection.
#[derive(Clone, Copy)]
pub(super) struct Methods {
    local: Method,
    pub(super) remote: Method,
}

impl Methods {
    fn has(self, method: Method) -> bool {
        self.local == method || self.remote == method
    }

    fn needs_certificate(self) -> bool {
        self.local == Method::Certificate || self.has(Method::EapTls)
    }

    fn needs_authorities(self) -> bool {
        self.remote == Method::Certificate || self.has(Method::EapTls)
    }
}

impl RawConnection<'_> {
    pub(super) fn proofs(&self, remote: &[Remote], local: &[IpAddr]) -> ConfigResult<Proofs> {
        let methods = self.methods(remote)?;
        self.refuse_unused(methods)?;
        let psk = match methods.has(Method::Psk) {
            true => Some(self.psk()?),
            false => None,
        };
        let signer = match methods.needs_certificate() {
            true => Some(self.signer()?),
            false => None,
        };
        let authorities = match methods.needs_authorities() {
            true => Some(Arc::new(self.authorities()?)),
            false => None,
        };
        let staple = |signer| self.staple(signer, authorities.as_deref());
        let signer = signer.map(staple).transpose()?.map(Arc::new);
        let no =
            |what: &'static str| self.source.bad("connection.auth", self.raw.auth.span(), Rule::Auth(what));
        let local_auth = match methods.local {
            Method::Psk => psk.clone().map(LocalAuth::Psk),
            Method::Certificate => signer.clone().map(|signer| LocalAuth::Key(signer)),
            Method::EapMschapv2 => {
                let (user, password) = self.password()?;
                let client = Mschapv2Client::new(Arc::new(OsRandom), user.as_bytes(), password);
                Some(LocalAuth::Eap(Arc::new(client)))
            }
            Method::EapTls | Method::EapRadius => None,
        };
        let remote_auth = match methods.remote {
            Method::Psk => psk.map(RemoteAuth::Psk),
            Method::Certificate => authorities.map(|authorities| RemoteAuth::Key(authorities)),
            Method::EapMschapv2 => {
                let users = self.users()?.into_iter();
                let users = users.map(|(user, password)| (user.into_bytes(), NtHash::of(&password.0)));
                let server = Mschapv2Server::new(Arc::new(OsRandom), b"wayfarer", users);
                Some(RemoteAuth::Eap(Arc::new(server)))
            }
            Method::EapTls => Some(RemoteAuth::Eap(Arc::new(self.eap_tls()?))),
            Method::EapRadius => {
                let realm = Realm::new(self.radius()?, &self.nas_identifier()?);
                Some(RemoteAuth::Eap(Arc::new(Radius::new(realm))))
            }
        };
        let (local_id, other_local_ids) = self.local_ids(methods, signer.as_deref(), local)?;
        Ok(Proofs {
            local_id,
            other_local_ids,
            remote_id: self.remote_id(methods, remote)?,
            local_auth: local_auth.ok_or_else(|| no("only a peer can authenticate by EAP-TLS or RADIUS"))?,
            remote_auth: remote_auth.ok_or_else(|| no("has no method for the peer"))?,
        })
    }

    /// Returns the methods of both sides. One word holds for both sides. With EAP, the side with a
    /// `user` is the EAP client, and the other side authenticates by certificate (RFC 7296 §2.16).
    pub(super) fn methods(&self, remote: &[Remote]) -> ConfigResult<Methods> {
        let Self { source, raw, .. } = self;
        let methods = match *raw.auth.get_ref() {
            Auth::Each { local, remote } => Methods { local, remote },
            Auth::One(eap) if eap.is_eap() && raw.user.is_some() => {
                Methods { local: eap, remote: Method::Certificate }
            }
            Auth::One(eap) if eap.is_eap() => Methods { local: Method::Certificate, remote: eap },
            Auth::One(both) => Methods { local: both, remote: both },
        };
        let bad = |why| Err(source.bad("connection.auth", raw.auth.span(), Rule::Auth(why)));
        match (methods.local, methods.remote) {
            (Method::EapTls | Method::EapRadius, _) => {
                bad("only a peer can authenticate by EAP-TLS or RADIUS")
            }
            (local, other) if local.is_eap() && other != Method::Certificate => bad(
                "if the gateway authenticates by EAP, the peer must authenticate by certificate (RFC 7296 §2.16)",
            ),
            (other, remote) if remote.is_eap() && other != Method::Certificate => bad(
                "if the peer authenticates by EAP, the gateway must authenticate by certificate (RFC 7296 §2.16)",
            ),
            (local, _) if local.is_eap() && remote.is_empty() => bad(
                "the side that authenticates by EAP must initiate: remote must be an address or a host name",
            ),
            (_, peer) if peer.is_eap() && !remote.is_empty() => {
                bad("the side that authenticates by EAP must initiate: remote must be \"any\"")
            }
            _ => Ok(methods),
        }
    }

    /// Refuses keys that these methods do not use: they would suggest a protection that does not
    /// exist.
    fn refuse_unused(&self, methods: Methods) -> ConfigResult<()> {
        let raw = self.raw;
        let text = |key: &Key<String>| key.as_ref().map(Spanned::span);
        let certificate = methods.needs_certificate();
        let authorities = methods.needs_authorities();
        let client = methods.local == Method::EapMschapv2;
        let unused = [
            ("connection.psk_file", text(&raw.psk_file), methods.has(Method::Psk)),
            ("connection.certificate", text(&raw.certificate), certificate),
            ("connection.private_key", text(&raw.private_key), certificate),
            ("connection.authorities", raw.authorities.as_ref().map(Spanned::span), authorities),
            ("connection.crls", raw.crls.as_ref().map(Spanned::span), authorities),
            ("connection.crl_policy", raw.crl_policy.as_ref().map(Spanned::span), authorities),
            ("connection.revocation", raw.revocation.as_ref().map(Spanned::span), authorities),
            (
                "connection.ocsp_stapling",
                raw.ocsp_stapling.as_ref().map(Spanned::span),
                methods.local == Method::Certificate,
            ),
            (
                "connection.legacy_signatures",
                raw.legacy_signatures.as_ref().map(Spanned::span),
                methods.has(Method::Certificate),
            ),
            ("connection.users_file", text(&raw.users_file), methods.remote == Method::EapMschapv2),
            ("connection.user", text(&raw.user), client || methods.local == Method::EapTls),
            ("connection.password_file", text(&raw.password_file), client),
            ("connection.nas_identifier", text(&raw.nas_identifier), methods.remote == Method::EapRadius),
            (
                "connection.accounting_interval",
                text(&raw.accounting_interval),
                methods.remote == Method::EapRadius,
            ),
            ("connection.radius", raw.radius.first().map(Spanned::span), methods.remote == Method::EapRadius),
        ];
        let found = unused.into_iter().find_map(|(key, place, used)| Some((key, place.filter(|_| !used)?)));
        found.map_or(Ok(()), |(key, place)| {
            let because = format!("auth = {}", raw.auth.get_ref());
            Err(self.source.bad(key, place, Rule::Pointless(because.into())))
        })
    }

    fn eap_tls(&self) -> ConfigResult<EapTlsServer> {
        let (own, secret) = self.credentials()?;
        let authorities = Arc::new(self.authorities()?);
        EapTlsServer::load(&own, &secret, authorities).map_err(|why| self.of_credentials(&secret, why))
    }

    /// Returns the value of a key that the methods need.
    fn needed<'a, T>(&self, key: &'static str, value: &'a Option<T>) -> ConfigResult<&'a T> {
        let because = || format!("auth = {}", self.raw.auth.get_ref());
        value.as_ref().ok_or_else(|| self.missing(key, &because()))
    }

    fn psk(&self) -> ConfigResult<SharedKey> {
        let file = self.needed("psk_file", &self.raw.psk_file)?;
        self.secret("connection.psk_file", file, ADVISED_PSK)
    }

    fn signer(&self) -> ConfigResult<CertificateSigner> {
        let (own, secret) = self.credentials()?;
        let signer = CertificateSigner::load(&own, &secret);
        let signer = match self.allows_sha1() {
            true => signer.and_then(|signer| signer.allow_sha1(&secret)),
            false => signer,
        };
        signer.map_err(|why| self.of_credentials(&secret, why))
    }

    /// Has peers get what OCSP responders say of our certificates, if that is configured.
    fn staple(
        &self,
        signer: CertificateSigner,
        authorities: Option<&Authorities>,
    ) -> ConfigResult<CertificateSigner> {
        if !self.raw.ocsp_stapling.as_ref().is_some_and(|wanted| *wanted.get_ref()) {
            return Ok(signer);
        }
        let (own, secret) = self.credentials()?;
        let others = authorities.map_or(&[][..], Authorities::certificates);
        signer.staple(others).map_err(|problem| self.of_credentials(&secret, problem.of(&own)))
    }

    /// Returns the paths of the gateway's certificate and private key.
    fn credentials(&self) -> ConfigResult<(PathBuf, PathBuf)> {
        let Self { source, raw, .. } = self;
        let certificate = self.needed("certificate", &raw.certificate)?;
        let key = self.needed("private_key", &raw.private_key)?;
        let path = |name, text: &Spanned<String>| source.value(name, text, |text| source.path(text));
        Ok((path("connection.certificate", certificate)?, path("connection.private_key", key)?))
    }

    /// Returns an error about one of the files of [`RawConnection::credentials`], at the place of
    /// its key.
    fn of_credentials(&self, secret: &Path, why: CredentialError) -> ConfigError {
        let place = |key: &Key<String>| key.as_ref().map_or(0..0, Spanned::span);
        match *why.file == *secret {
            true => self.credential("connection.private_key", place(&self.raw.private_key), why),
            false => self.credential("connection.certificate", place(&self.raw.certificate), why),
        }
    }

    fn authorities(&self) -> ConfigResult<Authorities> {
        let Self { source, raw, .. } = self;
        let list = self.needed("authorities", &raw.authorities)?;
        let paths =
            |list: &[String]| list.iter().map(|text| source.path(text)).collect::<Result<Vec<_>, _>>();
        let files: Vec<PathBuf> = source.value("connection.authorities", list, |list| match &list.0[..] {
            [] => Err(Rule::Empty),
            list => paths(list),
        })?;
        let crls = source.optional("connection.crls", &raw.crls, |list| paths(&list.0))?.unwrap_or_default();
        let policy = match raw.crl_policy.as_ref().map(Spanned::get_ref) {
            Some(file::CrlPolicy::Strict) => CrlPolicy::Strict,
            Some(file::CrlPolicy::Relaxed) | None => CrlPolicy::Relaxed,
        };
        let loaded = Authorities::load(&files, &crls, policy, SystemTime::now);
        let set = |all: Authorities| all.allow_sha1(self.allows_sha1()).fetch(self.revocation());
        loaded.map(set).map_err(|why| {
            let place = raw.crls.as_ref().map_or(0..0, Spanned::span);
            match crls.iter().any(|file| **file == *why.file) {
                true => self.credential("connection.crls", place, why),
                false => self.credential("connection.authorities", list.span(), why),
            }
        })
    }

    fn credential(&self, key: &str, place: Range<usize>, why: CredentialError) -> ConfigError {
        self.source.bad(key, place, Rule::Credential(why))
    }

    fn password(&self) -> ConfigResult<(&str, NtHash)> {
        let user = self.needed("user", &self.raw.user)?;
        let file = self.needed("password_file", &self.raw.password_file)?;
        let password = self.secret("connection.password_file", file, 0)?;
        let text = str::from_utf8(&password.0).map_err(|_| {
            self.source.bad("connection.password_file", file.span(), Rule::Auth("the password must be UTF-8"))
        })?;
        Ok((user.get_ref(), NtHash::of(text)))
    }

    fn users(&self) -> ConfigResult<Vec<(String, keys::Password)>> {
        let file = self.needed("users_file", &self.raw.users_file)?;
        let load = |path: &String| keys::users(&self.source.path(path)?);
        self.source.value("connection.users_file", file, load)
    }

    /// Returns the gateway's own name for RADIUS servers.
    pub(super) fn nas_identifier(&self) -> ConfigResult<String> {
        let own = &self.raw.nas_identifier;
        let own = self.source.optional("connection.nas_identifier", own, |text| value::name(text))?;
        Ok(own.unwrap_or_else(|| NAS_IDENTIFIER.into()))
    }

    pub(super) fn radius(&self) -> ConfigResult<Vec<Server>> {
        self.needed("radius", &self.raw.radius.first())?;
        let server = |raw: &Spanned<file::Radius>| {
            let raw = raw.get_ref();
            let server =
                self.source.value("connection.radius.server", &raw.server, |text| value::server(text))?;
            let secret = self.secret("connection.radius.secret_file", &raw.secret_file, ADVISED_PSK)?;
            let timeout = self
                .source
                .optional("connection.radius.timeout", &raw.timeout, |text| value::duration(text))?;
            let tries = self
                .source
                .optional("connection.radius.tries", &raw.tries, |n| value::integer(*n, 1..=100u32))?;
            Ok(Server {
                tries: tries.unwrap_or(Server::TRIES),
                timeout: timeout.unwrap_or(Server::TIMEOUT),
                trust_identity: raw.trust_identity,
                ..Server::new(server, secret.0)
            })
        };
        self.raw.radius.iter().map(server).collect()
    }

    /// Returns the gateway's identity, and others that a peer may ask for: as configured, else those
    /// of its certificate, else its EAP user name, else its address.
    fn local_ids(
        &self,
        methods: Methods,
        signer: Option<&CertificateSigner>,
        local: &[IpAddr],
    ) -> ConfigResult<(Identity, Vec<Identity>)> {
        let Self { source, raw, .. } = self;
        let signer = signer.filter(|_| matches!(methods.local, Method::Certificate | Method::EapTls));
        let own = signer.and_then(|signer| signer.certificates().first());
        let vouched = own.map(|own| certificate::identities(own));
        let identity = |text: &String| match (&text[..], own) {
            (SUBJECT, Some(own)) => certificate::subject(own).ok_or(Rule::NoSubject),
            (SUBJECT, None) => Err(Rule::Auth("needs the key \"certificate\"")),
            (text, _) => {
                let id = value::identity(text)?;
                let Some(vouched) = &vouched else { return Ok(id) };
                let other_order = id.reversed();
                let is_it = |own: &&Identity| {
                    own.is_same(&id) || other_order.as_ref().is_some_and(|other| own.is_same(other))
                };
                let own = vouched.iter().find(is_it).ok_or(Rule::OtherIdentity)?;
                // Peers may compare distinguished names byte by byte.
                Ok(if other_order.is_some() { own.clone() } else { id })
            }
        };
        let written = source.optional("connection.local_id", &raw.local_id, |list| match &list.0[..] {
            [] => Err(Rule::Empty),
            list => list.iter().map(identity).collect::<Result<Vec<_>, _>>(),
        })?;
        let ids = written.or_else(|| vouched.clone()).unwrap_or_default();
        if let Some((first, others)) = ids.split_first() {
            return Ok((first.clone(), others.to_vec()));
        }
        let user = source.optional("connection.user", &raw.user, |user| value::identity(user))?;
        let only = user.or_else(|| local.first().copied().map(Identity::from_address));
        only.map(|only| (only, vec![]))
            .ok_or_else(|| self.missing("local_id", "a connection without local addresses"))
    }

    fn remote_id(&self, methods: Methods, remote: &[Remote]) -> ConfigResult<IdentityPattern> {
        let list = &self.raw.remote_id;
        match self.source.optional("connection.remote_id", list, |list| value::identities(&list.0))? {
            Some(pattern) => Ok(pattern),
            None if methods.remote == Method::Psk => Err(self.missing("remote_id", "auth = \"psk\"")),
            None => Ok(default_identities(remote)),
        }
    }
}
