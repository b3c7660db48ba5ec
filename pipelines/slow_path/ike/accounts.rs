//! Accounts of the peers that RADIUS servers accepted: records of when they came and went, and of
//! what they used.

use super::peers::{Ended, Traffic};
use crate::{config::model, credentials::AccountingSockets, primitives::OsRandom};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tracing::{info, warn};
use wayfarer_mobility::{
    aaa::{
        origin::Origin,
        radius::{
            account::Account,
            accounting::Silence,
            dynamic::{ErrorCause, Named},
            record::{Cause, Happening, Usage},
        },
    },
    crypto::Random,
    ike::{event::PeerId, reason::Reason, view::View},
    timers::Timers,
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
    /// How the peers of each connection are accounted for, by its index.
    connections: BTreeMap<usize, Terms>,
    accounts: BTreeMap<PeerId, PeerAccount>,
    /// When interim records are due.
    due: Timers<PeerId>,
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
    /// True if the configuration still has the connection.
    is_current: bool,
    /// Number of its peers with an account.
    peers: usize,
}

#[derive(Debug)]
struct PeerAccount {
    account: Account,
    /// Index of its connection in the configuration.
    connection: usize,
    interval: Option<Duration>,
    /// Where servers were told that the peer comes from: when it was authenticated, by the first
    /// record and by the last interim one.
    told: [Option<Origin>; 3],
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
            connections: BTreeMap::new(),
            accounts: BTreeMap::new(),
            due: Timers::default(),
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
        self.connections.values_mut().for_each(|terms| terms.is_current = false);
        for (index, connection) in connections {
            let accounting = connection.accounting.as_ref();
            let terms = Terms {
                name: connection.protocol.name.clone(),
                local: connection.protocol.local.clone(),
                nas_identifier: connection.nas_identifier.clone(),
                servers: connection.servers.clone(),
                realm: accounting.map(|accounting| self.sockets.add(&accounting.realm)),
                interval: accounting.and_then(|accounting| accounting.interval),
                is_current: true,
                peers: 0,
            };
            self.connections.insert(index, terms);
        }
        self.remove_unused();
        self.sockets.begin(now, &self.run, &self.places());
    }

    /// Removes earlier connections without peers, and realms that only they had.
    fn remove_unused(&mut self) {
        self.connections.retain(|_, terms| terms.is_current || terms.peers > 0);
        let realms: BTreeSet<_> = self.connections.values().filter_map(|terms| terms.realm).collect();
        self.sockets.retain(|realm| realms.contains(&realm));
    }

    /// Returns the realms, each with the addresses of the gateway at which its peers may connect.
    fn places(&self) -> BTreeSet<(usize, IpAddr)> {
        let terms = self.connections.values();
        let place = |terms: &Terms| Some((terms.realm?, terms.local.clone()));
        let all = terms.filter_map(place);
        all.flat_map(|(realm, local)| local.into_iter().map(move |local| (realm, local))).collect()
    }

    /// Records what has just happened to a peer of a connection.
    fn record(&mut self, now: Duration, connection: usize, happening: Happening<'_>) {
        if let Some(realm) = self.connections.get(&connection).and_then(|terms| terms.realm) {
            self.sockets.record(now, realm, happening);
        }
    }

    /// Opens the account of a peer that has connected, if a RADIUS server accepted it.
    pub(super) fn open(&mut self, now: Duration, view: View<'_>) {
        let (Some(grant), Some(index)) = (view.grant(), view.connection()) else { return };
        let Some(terms) = self.connections.get_mut(&index) else { return };
        terms.peers += 1;
        let has_records = terms.realm.is_some();
        let addresses = view.addresses();
        let (local, remote) = (addresses.local.ip(), addresses.remote.ip());
        let origin = Origin { connection: terms.name.clone(), local, remote };
        let account = Account {
            id: format!("{}-{}", self.run, view.id().0),
            user_name: grant.user_name.clone(),
            origin: origin.clone(),
            inner: view.inner().collect(),
            class: grant.class.clone(),
        };
        let granted = grant.interim_interval.map(|seconds| Duration::from_secs(seconds.into()));
        let interval = granted.or(terms.interval).map(|interval| interval.max(MIN_INTERVAL));
        let interval = interval.filter(|_| has_records);
        self.record(now, index, Happening::Start(&account));
        if let Some(interval) = interval {
            self.due.set(view.id(), now + interval);
        }
        let told = [grant.origin.clone(), has_records.then_some(origin), None];
        self.accounts.insert(view.id(), PeerAccount { account, connection: index, interval, told });
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
        let Some(PeerAccount { mut account, connection, .. }) = self.accounts.remove(&peer) else { return };
        self.due.remove(peer);
        account.origin.remote = remote;
        let usage = usage(now, ended.since, ended.traffic);
        self.record(now, connection, Happening::Stop(&account, usage, self.cause(reason)));
        let Some(terms) = self.connections.get_mut(&connection) else { return };
        terms.peers -= 1;
        if terms.peers == 0 && !terms.is_current {
            self.remove_unused();
        }
    }

    fn cause(&self, reason: &Reason) -> Cause {
        match reason {
            Reason::Deleted => Cause::UserRequest,
            Reason::Timeout => Cause::LostCarrier,
            Reason::Replaced => Cause::PortPreempted,
            Reason::SessionOver | Reason::AuthenticationOver => Cause::SessionTimeout,
            Reason::Disconnected | Reason::Barred => Cause::AdminReset,
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
            terms.is_some_and(concerns) && named.fits(&open.account, open.told.iter().flatten())
        };
        let found = self.accounts.iter().filter(|(_, open)| fits(open));
        let found: Vec<PeerId> = found.map(|(peer, _)| *peer).collect();
        if found.is_empty() { Err(ErrorCause::SessionNotFound) } else { Ok(found) }
    }

    /// Returns the next peers whose interim records are due; call [`Accounts::interim`] for each.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<PeerId> {
        std::iter::from_fn(|| self.due.take_due(now)).take(MAX_INTERIMS).collect()
    }

    /// Records what a peer has used since it connected at time `since`.
    pub(super) fn interim(&mut self, now: Duration, peer: PeerId, since: Duration, traffic: Traffic) {
        let Some(open) = self.accounts.get_mut(&peer) else { return };
        if let Some(interval) = open.interval {
            self.due.set(peer, now + interval);
        }
        let (account, connection) = (open.account.clone(), open.connection);
        let [.., last] = &mut open.told;
        *last = Some(account.origin.clone());
        self.record(now, connection, Happening::Interim(&account, usage(now, since, traffic)));
    }

    /// Sends and receives records, and logs how many were lost, and whether servers are silent.
    pub(super) fn turn(&mut self, now: Duration) {
        self.sockets.turn(now);
        while let Some((realm, silence)) = self.sockets.poll_silence() {
            let servers: Vec<SocketAddr> = realm.servers.iter().map(|server| server.address).collect();
            match silence {
                Silence::Begins => {
                    warn!(name: "accounting_silent", ?servers, "no RADIUS server confirms accounting records: they wait");
                }
                Silence::Ends => {
                    info!(name: "accounting_resumed", ?servers, "accounting records are confirmed again");
                }
            }
        }
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
            self.sockets.end(now, &self.run, &self.places());
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
