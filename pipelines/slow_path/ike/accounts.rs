//! Accounts of the peers that RADIUS servers accepted: records of when they came and went, and of
//! what they used.

use super::peers::{Ended, Traffic};
use crate::{config::model, credentials::AccountingSockets, primitives::OsRandom};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tracing::warn;
use wayfarer_mobility::{
    aaa::{
        origin::Origin,
        radius::{
            dynamic::{ErrorCause, Named},
            question::Realm,
            record::{Account, Cause, Gateway, Happening, Record, Usage},
        },
    },
    crypto::Random,
    ike::{
        event::{PeerId, Reason},
        view::View,
    },
};

/// Shortest time from one interim record to the next (RFC 2869 §5.16).
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Most interim records that are made in one turn.
const MAX_INTERIMS: usize = 32;
/// Time from one line about lost records to the next.
const LOSS_INTERVAL: Duration = Duration::from_secs(60);

/// The accounts of all connected peers that a RADIUS server accepted.
#[derive(Debug)]
pub(super) struct Accounts {
    sockets: AccountingSockets,
    /// A name for this run, which no other has.
    run: String,
    realms: Vec<Arc<Realm>>,
    /// How the peers of each connection are accounted for, by its index.
    connections: BTreeMap<usize, Terms>,
    accounts: BTreeMap<PeerId, PeerAccount>,
    /// When interim records are due.
    due: BTreeSet<(Duration, PeerId)>,
    /// Number of lost records that the log tells of, and when it may tell more.
    reported: (u64, Duration),
    stage: Stage,
}

/// How the peers of a connection are accounted for.
#[derive(Debug)]
struct Terms {
    name: String,
    local: Vec<IpAddr>,
    /// Our name for RADIUS servers.
    nas_identifier: String,
    /// The servers that may send requests about its peers.
    servers: Vec<IpAddr>,
    /// The number of the realm of accounting servers, if there is one.
    realm: Option<usize>,
    /// Time from one interim record to the next, if no server says another.
    interval: Option<Duration>,
}

#[derive(Debug)]
struct PeerAccount {
    account: Account,
    /// Index of its connection in the configuration.
    connection: usize,
    realm: Option<usize>,
    interval: Option<Duration>,
    /// When its next interim record is due, if there will be one.
    due: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Peers are being closed, because the gateway stops.
    Closing,
    /// The servers are being told that the gateway stops.
    Closed,
}

impl Accounts {
    /// Creates the accounts of these connections, and tells their servers that the gateway starts.
    pub(super) fn start(now: Duration, connections: &[model::Connection]) -> Self {
        let mut random = [0; 8];
        OsRandom.fill(&mut random);
        let mut this = Self {
            sockets: AccountingSockets::default(),
            run: format!("{:016x}", u64::from_ne_bytes(random)),
            realms: vec![],
            connections: BTreeMap::new(),
            accounts: BTreeMap::new(),
            due: BTreeSet::new(),
            reported: (0, Duration::ZERO),
            stage: Stage::Running,
        };
        this.replace(now, (0..).zip(connections));
        this
    }

    /// Uses other connections, given with their indices, for peers that connect from now on. Servers
    /// that were not told yet are told that the gateway starts. Connected peers stay with theirs.
    pub(super) fn replace<'a>(
        &mut self,
        now: Duration,
        connections: impl Iterator<Item = (usize, &'a model::Connection)>,
    ) {
        let in_use: BTreeSet<_> = self.accounts.values().map(|open| open.connection).collect();
        self.connections.retain(|index, _| in_use.contains(index));
        let told = self.realms.len();
        for (index, connection) in connections {
            let accounting = connection.accounting.as_ref();
            let terms = Terms {
                name: connection.protocol.name.clone(),
                local: connection.protocol.local.clone(),
                nas_identifier: connection.nas_identifier.clone(),
                servers: connection.servers.clone(),
                realm: accounting.map(|accounting| self.realm(&accounting.realm)),
                interval: accounting.and_then(|accounting| accounting.interval),
            };
            self.connections.insert(index, terms);
        }
        self.record_gateway(now, true, told);
    }

    /// Returns the number of a realm.
    fn realm(&mut self, realm: &Arc<Realm>) -> usize {
        let known = self.realms.iter().position(|known| known.is_same(realm));
        known.unwrap_or_else(|| {
            self.realms.push(realm.clone());
            self.sockets.add(realm.clone());
            self.realms.len() - 1
        })
    }

    /// Tells the servers of all realms from number `first` on that the gateway starts or stops, at
    /// each of its addresses.
    fn record_gateway(&mut self, now: Duration, starts: bool, first: usize) {
        let of = |terms: &Terms| Some((terms.realm.filter(|realm| *realm >= first)?, terms.local.clone()));
        let all = self.connections.values().filter_map(of);
        let all: BTreeSet<_> =
            all.flat_map(|(realm, local)| local.into_iter().map(move |local| (realm, local))).collect();
        for (realm, local) in all {
            let Some(servers) = self.realms.get(realm) else { continue };
            let gateway = Gateway { id: &self.run, local };
            let happening = if starts { Happening::On(gateway) } else { Happening::Off(gateway) };
            self.sockets.record(now, realm, Record::new(happening, &servers.nas_identifier));
        }
    }

    fn record(&mut self, now: Duration, realm: usize, happening: Happening<'_>) {
        let Some(servers) = self.realms.get(realm) else { return };
        self.sockets.record(now, realm, Record::new(happening, &servers.nas_identifier));
    }

    /// Opens the account of a peer that has connected, if a RADIUS server accepted it.
    pub(super) fn open(&mut self, now: Duration, view: View<'_>) {
        let (Some(grant), Some(terms)) = (view.grant(), view.connection()) else { return };
        let Some(Terms { name, realm, interval, .. }) = self.connections.get(&terms) else { return };
        let addresses = view.addresses();
        let origin =
            Origin { connection: name.clone(), local: addresses.local.ip(), remote: addresses.remote.ip() };
        let account = Account {
            id: format!("{}-{}", self.run, view.id().0),
            user_name: grant.user_name.clone(),
            origin,
            inner: view.inner().collect(),
            class: grant.class.clone(),
        };
        let granted = grant.interim_interval.map(|seconds| Duration::from_secs(seconds.into()));
        let (realm, interval) = (*realm, granted.or(*interval).map(|interval| interval.max(MIN_INTERVAL)));
        if let Some(realm) = realm {
            self.record(now, realm, Happening::Start(&account));
            self.due.extend(interval.map(|interval| (now + interval, view.id())));
        }
        let due = now + interval.unwrap_or_default();
        self.accounts.insert(view.id(), PeerAccount { account, connection: terms, realm, interval, due });
    }

    /// Closes the account of a peer whose link has ended at address `remote`.
    pub(super) fn close(
        &mut self,
        now: Duration,
        peer: PeerId,
        ended: &Ended,
        remote: IpAddr,
        reason: &Reason,
    ) {
        let Some(PeerAccount { mut account, realm, due, .. }) = self.accounts.remove(&peer) else { return };
        self.due.remove(&(due, peer));
        account.origin.remote = remote;
        if let Some(realm) = realm {
            let cause = self.cause(reason);
            self.record(now, realm, Happening::Stop(&account, usage(now, ended.since, ended.traffic), cause));
        }
    }

    fn cause(&self, reason: &Reason) -> Cause {
        match reason {
            Reason::Deleted => Cause::UserRequest,
            Reason::Timeout => Cause::LostCarrier,
            Reason::Replaced => Cause::PortPreempted,
            Reason::SessionOver => Cause::SessionTimeout,
            Reason::Disconnected => Cause::AdminReset,
            Reason::Closed if self.stage == Stage::Running => Cause::AdminReset,
            Reason::Closed => Cause::NasReboot,
            _ => Cause::NasError,
        }
    }

    /// Notes that a peer is at another address.
    pub(super) fn follow(&mut self, peer: PeerId, remote: IpAddr) {
        if let Some(peer) = self.accounts.get_mut(&peer) {
            peer.account.origin.remote = remote;
        }
    }

    /// Returns the peers that a request of `server` is about, at least one. It has no say about peers of
    /// connections that name other servers.
    ///
    /// # Errors
    /// [`ErrorCause::NasMismatch`] if the request is for another gateway, and
    /// [`ErrorCause::SessionNotFound`] if there is no such peer.
    pub(super) fn find(&self, server: IpAddr, named: &Named) -> Result<Vec<PeerId>, ErrorCause> {
        let is_ours =
            |terms: &Terms| terms.local.iter().any(|local| named.is_for(&terms.nas_identifier, *local));
        if !self.connections.values().any(is_ours) {
            return Err(ErrorCause::NasMismatch);
        }
        let fits = |open: &PeerAccount| {
            let terms = self.connections.get(&open.connection);
            let concerns = |terms: &Terms| {
                terms.servers.contains(&server)
                    && named.is_for(&terms.nas_identifier, open.account.origin.local)
            };
            terms.is_some_and(concerns) && named.fits(&open.account)
        };
        let found = self.accounts.iter().filter(|(_, open)| fits(open));
        let found: Vec<PeerId> = found.map(|(peer, _)| *peer).collect();
        if found.is_empty() { Err(ErrorCause::SessionNotFound) } else { Ok(found) }
    }

    /// Returns the next peers whose interim records are due; call [`Accounts::interim`] for each.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<PeerId> {
        let mut peers = Vec::new();
        while peers.len() < MAX_INTERIMS
            && let Some(&(at, peer)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            peers.extend(self.accounts.contains_key(&peer).then_some(peer));
        }
        peers
    }

    /// Records what a peer has used since it connected at time `since`.
    pub(super) fn interim(&mut self, now: Duration, peer: PeerId, since: Duration, traffic: Traffic) {
        let Some(open) = self.accounts.get_mut(&peer) else { return };
        open.due = now + open.interval.unwrap_or_default();
        let (account, realm) = (open.account.clone(), open.realm);
        self.due.extend(open.interval.map(|_| (open.due, peer)));
        if let Some(realm) = realm {
            self.record(now, realm, Happening::Interim(&account, usage(now, since, traffic)));
        }
    }

    /// Sends and receives records, and logs how many were lost.
    pub(super) fn turn(&mut self, now: Duration) {
        self.sockets.turn(now);
        let (told, next) = self.reported;
        let lost = self.sockets.lost();
        if lost > told && next <= now {
            warn!(name: "accounting_lost", records = lost - told, "accounting records are lost: no RADIUS server confirmed them");
            self.reported = (lost, now + LOSS_INTERVAL);
        }
    }

    /// Returns the number of records that no server confirmed.
    pub(super) fn lost(&self) -> u64 {
        self.sockets.lost()
    }

    /// Notes that the gateway stops, which is why peers are closed from now on.
    pub(super) fn begin_to_close(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::Closing;
        }
    }

    /// Tells the servers that the gateway stops, once all peers are gone. Returns true once they
    /// have confirmed all records.
    pub(super) fn finish(&mut self, now: Duration) -> bool {
        if self.stage == Stage::Closing && self.accounts.is_empty() {
            self.stage = Stage::Closed;
            self.record_gateway(now, false, 0);
        }
        self.stage == Stage::Closed && self.sockets.is_idle()
    }
}

fn usage(now: Duration, since: Duration, traffic: Traffic) -> Usage {
    Usage {
        time: now.saturating_sub(since),
        received: (traffic.received_packets, traffic.received_bytes),
        sent: (traffic.sent_packets, traffic.sent_bytes),
    }
}
