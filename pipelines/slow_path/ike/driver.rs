//! Drives IKE's endpoint and carries out its decisions.

use super::{
    accounts::Accounts,
    child::{self, ConnectionParts},
    crash_secret::CrashSecret,
    datagram,
    guard::Guards,
    helpers::Helpers,
    inner::InnerAddresses,
    key_log::KeyLog,
    log::{self, About, PeerLog},
    moves::Moves,
    peers::Peers,
    resolver::Resolver,
    unconfirmed::UnconfirmedPaths,
};
use crate::{
    clock::Moment,
    config::model,
    credentials::DynamicSocket,
    gateway::share::Share,
    primitives::{OsRandom, Primitives},
    slow_path::{
        links::{FoundMtu, IkeEvent, LinkId, Links},
        network::Network,
        parts::Holder,
        table_writer::TableWriter,
    },
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tracing::debug;
use wayfarer_dataplane::{drop::DropReason, sa::Spi};
use wayfarer_mobility::ike::{
    connection::Connection,
    endpoint::Endpoint,
    event::{ChildId, ChildSa, Event, PeerId},
    pool::Pool,
    settings::Settings,
};

/// Most outcomes of tasks that are handled in one turn.
const MAX_OUTCOMES: usize = 64;

/// Most peers that are closed in one turn, so that the workers can send all messages.
const MAX_CLOSED: usize = 128;

/// The IKE endpoint, and what is installed for its peers.
#[derive(Debug)]
pub(in crate::slow_path) struct Ike {
    pub(super) endpoint: Endpoint,
    pub(super) peers: Peers,
    helpers: Helpers,
    pub(super) resolver: Resolver,
    /// The data plane's parameters of each connection, by index.
    connections: BTreeMap<usize, ConnectionParts>,
    guards: Guards,
    unconfirmed: UnconfirmedPaths,
    pub(super) inner: InnerAddresses,
    key_log: Option<KeyLog>,
    /// Keeps other gateways from using the same secret.
    _crash_secret: Option<CrashSecret>,
    pub(super) log: PeerLog,
    pub(super) moves: Moves,
    pub(super) accounts: Accounts,
    /// Where RADIUS servers send requests.
    pub(super) dynamic: Option<DynamicSocket>,
}

/// Listens for requests of RADIUS servers.
fn listen(coa: &model::Coa) -> io::Result<DynamicSocket> {
    let clients = coa.clients.iter().map(|client| (client.address, client.secret.0.clone()));
    DynamicSocket::listen(coa.listen, clients, coa.needs_time)
}

fn name_of(endpoint: &Endpoint, index: usize) -> &str {
    endpoint.connection(index).map_or("?", |connection| &connection.name)
}

/// Returns the protocol's limits and times.
fn settings(config: &model::Ike) -> Settings {
    Settings {
        cookie_threshold: config.cookie_threshold,
        half_open_limit: config.half_open,
        half_open: config.half_open_time,
        peer_limit: config.peers,
        device_limit: config.devices,
        child_limit: config.children,
        ..Settings::default()
    }
}

fn pools(config: &model::Ike) -> Vec<Pool> {
    config.pools.iter().map(|pool| Pool::new(pool.first, pool.last).named(&pool.name)).collect()
}

/// Returns the protocol's part of each connection. Fragments of IKE messages (RFC 7383) fit each port,
/// so that IP does not cut them once more.
fn protocol(config: &model::Ike, network: &Network) -> Vec<Connection> {
    let longest = network.ports.iter().map(|port| port.mtu).min().unwrap_or(usize::MAX);
    let fitting = |connection: &Connection| {
        let fragment = connection.fragment.map(|fragment| fragment.min(longest));
        Connection { fragment, ..connection.clone() }
    };
    config.connections.iter().map(|connection| fitting(&connection.protocol)).collect()
}

/// Returns the data plane's parameters of each connection.
fn parts(config: &model::Ike) -> impl Iterator<Item = ConnectionParts> {
    config.connections.iter().map(|connection| ConnectionParts::new(connection, &config.pools))
}

impl Ike {
    /// Starts IKE, and connects to the peers that the configuration has addresses of. `workers` are
    /// the cores of the workers.
    ///
    /// # Errors
    /// The system's error for a thread, for the key log's folder or for the secret's file.
    pub(in crate::slow_path) fn start(
        config: &model::Ike,
        workers: &[usize],
        now: Duration,
        links: &mut Links,
        network: &Network,
    ) -> io::Result<Self> {
        let secret = config.crash_secret_file.as_deref();
        let secret = secret.map(|path| CrashSecret::open(path, &OsRandom)).transpose()?;
        let (crash_file, crash_secret) = secret.unzip();
        let settings = Settings { crash_secret, log_keys: config.key_log.is_some(), ..settings(config) };
        let protocol = protocol(config, network);
        let mut endpoint =
            Endpoint::new(Arc::new(Primitives), Arc::new(OsRandom), protocol, pools(config), settings);
        endpoint.reserve_addresses(network.routes.taken().collect());
        endpoint.reserve_child_spis(links.tunnels().iter().map(|(_, tunnel)| tunnel.inbound.spi.0));
        let mut guards = Guards::default();
        guards.add(config, &mut links.tables);
        let host = links
            .tables
            .tables
            .settings
            .host
            .as_ref()
            .and_then(|host| network.ports.get(usize::from(host.port)));
        let mut this = Self {
            endpoint,
            peers: Peers::default(),
            helpers: Helpers::start(workers, config.devices)?,
            resolver: Resolver::default(),
            connections: (0..).zip(parts(config)).collect(),
            guards,
            unconfirmed: UnconfirmedPaths::default(),
            inner: InnerAddresses::new(host),
            key_log: config.key_log.as_deref().map(KeyLog::open).transpose()?,
            _crash_secret: crash_file,
            log: PeerLog::default(),
            moves: Moves::default(),
            accounts: Accounts::start(now, &config.connections),
            dynamic: config.coa.as_ref().map(listen).transpose()?,
        };
        this.dial(now, 0..this.connections.len());
        Ok(this)
    }

    /// Uses another configuration from now on. Connected peers stay.
    pub(in crate::slow_path) fn reload(
        &mut self,
        now: Duration,
        config: &model::Ike,
        links: &mut Links,
        network: &mut Network,
    ) {
        // The connections of its events may be gone afterwards.
        self.carry_out(now, links, network);
        let protocol = protocol(config, network);
        let indices = self.endpoint.reconfigure(now, protocol, pools(config), settings(config));
        self.connections.retain(|index, _| self.endpoint.connection(*index).is_some());
        self.connections.extend(indices.clone().zip(parts(config)));
        self.helpers.set_devices(config.devices);
        self.accounts.replace(now, indices.clone().zip(&config.connections));
        self.guards.add(config, &mut links.tables);
        self.endpoint.reserve_addresses(network.routes.taken().collect());
        let new = indices.filter(|index| !self.endpoint.is_dialled(*index));
        self.dial(now, new.collect::<Vec<_>>());
    }

    /// Handles an IKE message in an IP packet.
    ///
    /// # Errors
    /// The reason to drop it.
    pub(in crate::slow_path) fn handle_message(
        &mut self,
        now: Duration,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let (addresses, message) = datagram::parse(packet).ok_or(DropReason::ControlFormat)?;
        self.endpoint.handle_datagram(now, addresses, message);
        Ok(())
    }

    /// Handles an event of the link of `peer`.
    pub(in crate::slow_path) fn handle_link_event(&mut self, now: Duration, peer: PeerId, event: IkeEvent) {
        match event {
            IkeEvent::FirstPacket(child) => self.endpoint.handle_child_used(now, peer, child),
            IkeEvent::Path(path) => self.endpoint.handle_path(now, peer, child::ike_path(path)),
            IkeEvent::NotFollowed(path) => {
                if let Some(left_out) = self.peers.admits_line(now, peer) {
                    log::not_followed(About::of(&self.endpoint, peer), path, left_out);
                }
            }
            IkeEvent::PathReport { mtu, certain } => {
                self.endpoint.handle_path_report(now, peer, mtu, certain);
            }
            IkeEvent::PathMtu(mtu) => self.endpoint.handle_path_mtu(now, peer, mtu),
            IkeEvent::Due(child) => self.endpoint.handle_child_due(now, peer, child),
            IkeEvent::Expired(child) => self.endpoint.handle_child_expired(now, peer, child),
        }
    }

    /// Closes some of the peers, and connects to no new ones. Returns true once all have answered or
    /// were given up, and RADIUS servers have confirmed all records.
    pub(in crate::slow_path) fn shut_down(&mut self, now: Duration) -> bool {
        self.accounts.begin_to_close();
        let is_over = self.endpoint.shut_down(now, MAX_CLOSED);
        self.accounts.finish(now) && is_over
    }

    /// Handles tasks and timers, and carries out the endpoint's decisions. Returns true if there
    /// was anything to do.
    pub(in crate::slow_path) fn turn(
        &mut self,
        now: Duration,
        links: &mut Links,
        network: &mut Network,
    ) -> bool {
        let mut busy = false;
        for _ in 0..MAX_OUTCOMES {
            let Some((id, outcome)) = self.helpers.poll(now) else { break };
            self.endpoint.handle_outcome(now, id, outcome);
            busy = true;
        }
        self.helpers.turn(now, |task| self.endpoint.needs(task));
        busy |= self.handle_addresses(now, network);
        if self.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
            busy = true;
        }
        busy |= self.handle_demands(now);
        self.log.turn(now);
        self.account(now, links);
        self.moves.handle_timeout(now);
        let sent = |peer| self.peers.traffic(peer, links).sent_bytes;
        for peer in self.unconfirmed.take_exceeding(now, sent) {
            self.endpoint.handle_unconfirmed(now, peer);
        }
        busy | self.carry_out(now, links, network)
    }

    /// Records what peers use, and sends records to RADIUS servers.
    fn account(&mut self, now: Duration, links: &Links) {
        for peer in self.accounts.take_due(now) {
            let Some(since) = self.peers.since(peer) else { continue };
            self.accounts.interim(now, peer, since, self.peers.traffic(peer, links));
        }
        self.accounts.turn(now);
    }

    /// Carries out the endpoint's decisions, except sending its messages. Those follow later: the
    /// tables come first, so that the SA is there when the peer's next packet arrives.
    fn carry_out(&mut self, now: Duration, links: &mut Links, network: &mut Network) -> bool {
        let mut busy = false;
        loop {
            while self.helpers.has_room()
                && let Some((id, from, task)) = self.endpoint.poll_task()
            {
                self.helpers.submit(id, from, self.endpoint.waits_until(id), task);
                busy = true;
            }
            let Some(event) = self.endpoint.poll_event() else { return busy };
            self.handle_event(now, event, links, network);
            busy = true;
        }
    }

    fn handle_event(&mut self, now: Duration, event: Event, links: &mut Links, network: &mut Network) {
        match event {
            Event::LookUp { id, name } => self.look_up(now, id, name),
            Event::Dialled { peer } => self.choose_source(now, peer, network),
            Event::LookUpTimedOut { name } => self.look_up_timed_out(now, &name),
            Event::Spi { spi, known } => {
                let TableWriter { tables, writer, .. } = &mut links.tables;
                match known {
                    true => tables.ike.insert(writer, spi, Share::new(Moment::now())),
                    false => _ = tables.ike.remove(writer, &spi),
                }
            }
            Event::ChildSpi { spi, awaited } => links.await_tunnel(Spi(spi), awaited),
            Event::PeerUp { peer, connection, identity, principal, claimed, method, addresses } => {
                let names = (claimed.as_ref().or(Some(&identity)), Some(&identity));
                let of = name_of(&self.endpoint, connection);
                log::connected(About::new(addresses.remote, names, Some(of), method), &identity);
                let holder = Holder::peer(of, identity.canonical(), principal);
                self.peers.insert(now, peer, identity.to_string(), connection, holder);
                if let Some(view) = self.endpoint.peer(peer) {
                    self.accounts.open(now, view);
                }
            }
            Event::PeerDown { peer, connection, claimed, proved, method, remote, is_renewal, reason } => {
                self.unconfirmed.remove(peer);
                self.inner.remove(peer, network, &mut links.tables);
                self.moves.ended(peer, &reason);
                let ended = self.peers.remove(peer, links);
                let connection = ended.as_ref().map(|ended| ended.connection).or(connection);
                let connection = connection.map(|connection| name_of(&self.endpoint, connection));
                let about = About::new(remote, (claimed.as_ref(), proved.as_ref()), connection, method);
                match ended {
                    Some(ended) => {
                        self.accounts.close(now, peer, &ended, remote.ip(), &reason);
                        log::ended(now, about, &ended, reason);
                    }
                    // The link goes on, and has its own line.
                    None if is_renewal => {}
                    None => self.log.failed(now, remote, about, reason),
                }
            }
            Event::InitRefused { remote, reason } => {
                self.log.failed(now, remote, About::new(remote, (None, None), None, None), reason);
            }
            Event::GrantRefused { peer, reason } => {
                log::grant_refused(About::of(&self.endpoint, peer), reason);
            }
            Event::PrefixIgnored { peer, prefix } => {
                log::prefix_ignored(About::of(&self.endpoint, peer), prefix);
            }
            Event::SelectorsRefused { peer, local, remote } => {
                if let Some(left_out) = self.peers.admits_line(now, peer) {
                    log::selectors_refused(About::of(&self.endpoint, peer), local, remote, left_out);
                }
            }
            Event::ChildRefused { peer, refusal, local, remote } => {
                if let Some(left_out) = self.peers.admits_line(now, peer) {
                    log::child_refused(About::of(&self.endpoint, peer), refusal, [local, remote], left_out);
                }
                if let Some(view) = self.endpoint.peer(peer).filter(|view| view.children().next().is_none()) {
                    let (remote, about) = (view.addresses().remote, About::of(&self.endpoint, peer));
                    self.log.got_no_child(now, remote, about, refusal);
                }
            }
            Event::ChildNarrowed { peer, name, left_out: prefixes } => {
                if let Some(left_out) = self.peers.admits_line(now, peer) {
                    log::child_narrowed(About::of(&self.endpoint, peer), &name, prefixes, left_out);
                }
            }
            Event::ChildWidened { peer, name } => {
                if self.peers.note_widened(peer) {
                    log::child_widened(About::of(&self.endpoint, peer), &name);
                }
            }
            Event::ChildUp { peer, child, sa } => self.child_up(now, peer, child, sa, links, network),
            Event::ChildMissing { peer, name, wait } => {
                log::child_missing(About::of(&self.endpoint, peer), &name, wait);
            }
            Event::CreateFailed { peer, child, refusal } => {
                log::create_failed(About::of(&self.endpoint, peer), child.as_deref(), refusal);
            }
            Event::RenewalFailed { peer, reason, wait } => {
                log::renewal_failed(About::of(&self.endpoint, peer), &reason, wait);
            }
            Event::ChildFollows { child, old } => self.peers.replace_child(child, old),
            Event::ChildUse { child } => self.peers.use_child(now, child, links),
            Event::ChildDown { child } => self.peers.remove_child(now, child, links),
            Event::PeerMoved { peer, from, path, cause, confirmed, .. } => {
                if confirmed {
                    self.unconfirmed.remove(peer);
                } else {
                    self.unconfirmed.insert(peer, self.peers.traffic(peer, links).sent_bytes);
                }
                self.accounts.follow(peer, path.remote);
                let [from, to] = [from, path].map(child::path);
                let problem = links.move_to(now, LinkId::Ike(peer), to).err();
                if from != to
                    && let Some(left_out) = self.peers.admits_line(now, peer)
                {
                    log::moved(About::of(&self.endpoint, peer), cause, [from, to], problem, left_out);
                }
            }
            Event::MoveAnswered { peer, refusal } => {
                if let Some(view) = self.endpoint.peer(peer) {
                    self.moves.answered(peer, view.addresses().local.ip(), refusal.as_ref());
                }
            }
            Event::PathConfirmed { peer } => {
                debug!(peer = peer.0, "path confirmed");
                self.unconfirmed.remove(peer);
            }
            Event::TrafficDue { peer } => {
                let traffic = self.peers.traffic(peer, links);
                self.endpoint.handle_traffic(now, peer, traffic.sent_packets, traffic.received_packets);
            }
            Event::EspSilent { peer } => log::esp_silent(About::of(&self.endpoint, peer)),
            Event::MappingChanged { peer } => {
                if let Some(left_out) = self.peers.admits_line(now, peer) {
                    log::mapping_changed(About::of(&self.endpoint, peer), left_out);
                }
            }
            Event::PathProbeDue { peer } => self.path_probe_due(now, peer, links),
            Event::PathMtu { peer, path, mtu, is_limit, is_over } => {
                let found = FoundMtu { path: child::path(path), mtu, is_limit };
                self.path_mtu_found(now, peer, found, is_over, links);
            }
            Event::LivenessDue { peer } => {
                if let Some(was_heard) = self.peers.was_heard(peer, links) {
                    self.endpoint.handle_liveness(now, peer, was_heard);
                }
            }
            Event::Configured { peer, addresses, dns, domains } => {
                if let Some(address) =
                    addresses.iter().find(|address| self.inner.is_in_use(**address, network))
                {
                    log::address_in_use(About::of(&self.endpoint, peer), *address);
                    // Nothing more may be installed for it.
                    self.peers.remove(peer, links);
                    return self.endpoint.close(now, peer);
                }
                log::configured(About::of(&self.endpoint, peer), &addresses, &dns, &domains);
                self.inner.insert(peer, addresses, network, &mut links.tables);
            }
            Event::IkeSaKeys { spis, suite, encr, integ } => {
                if let Some(log) = &self.key_log {
                    let encr = [&encr[0][..], &encr[1]];
                    let integ = [&integ[0][..], &integ[1]];
                    log.ike_sa(spis, &suite, encr, integ);
                }
            }
        }
    }

    fn child_up(
        &mut self,
        now: Duration,
        peer: PeerId,
        child: ChildId,
        sa: ChildSa,
        links: &mut Links,
        network: &Network,
    ) {
        if let Some(log) = &self.key_log {
            log.child_sas(&sa);
        }
        let Some((identity, connection, holder)) = self.peers.get(peer) else { return };
        let Some(connection) = self.connections.get(&connection) else { return };
        let (identity, holder) = (identity.to_owned(), holder.clone());
        let (of, replaces) = (sa.name.clone(), sa.replaces);
        let name = self.peers.name_tunnel(&identity, &of);
        let Some(parts) = connection.tunnel(name, (peer, child), holder, sa) else {
            let why = "the data plane does not support what was negotiated";
            log::child_not_installed(About::of(&self.endpoint, peer), &of, why);
            return self.endpoint.close(now, peer);
        };
        let starts_sending = parts.send;
        let mtu = network.mtu_towards(parts.local, parts.path.map(|path| path.remote));
        let old = replaces.map(|old| self.peers.line_of(old)).unwrap_or_default();
        match links.install(now, parts, mtu, &old) {
            Ok(tunnel) => {
                self.peers.add_child(peer, child, tunnel, replaces);
                if let Some(tunnel) = links.tunnels().get(tunnel) {
                    self.inner.route(peer, &tunnel.inbound.selectors);
                }
                if starts_sending {
                    self.peers.use_child(now, child, links);
                }
            }
            Err(why) => {
                log::child_not_installed(About::of(&self.endpoint, peer), &of, why);
                self.endpoint.close(now, peer);
            }
        }
    }
}
