//! All peers behind one pair of functions: messages in, messages and news out.
//!
//! Call order: any `handle_*`, then [`Endpoint::poll_task`], [`Endpoint::poll_transmit`] and [`Endpoint::poll_event`] until
//! `None`, then [`Endpoint::poll_timeout`]. Time is counted from any fixed point.

use super::{
    bounds,
    connected::{Connected, Newcomer},
    connection::Connection,
    cookie::{Cookies, Initiator},
    counter::Counter,
    doubt::Doubts,
    event::{ChildId, Event, PeerId, Reason},
    nat::IKE_PORT,
    peer::{InitRefused, Peer, Phase},
    pool::{self, Owner, Pool},
    quota::Quotas,
    schedule::SessionKeys,
    settings::Settings,
    suite::IkeSuite,
    wire::{self, ExchangeType, Header, Notify, flags, notify},
};
use crate::{
    crowd::Crowd,
    crypto::{Crypto, Random},
    path::{Addresses, Path},
    rate::Rate,
    task::{Outcome, Task, TaskId},
    task_queue::TaskQueue,
    transmit::{Payload, Transmit},
};
use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// What all peers share.
#[derive(Debug)]
struct Shared {
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    queue: TaskQueue<PeerId>,
    next_child: u64,
    /// Our SPIs, whose they are, and whether the driver knows them.
    spis: BTreeMap<u64, (PeerId, bool)>,
    child_spis: BTreeSet<u32>,
    children: BTreeMap<ChildId, PeerId>,
    pools: Vec<Pool>,
    connected: Connected,
    counts: [u64; Counter::ALL.len()],
    newcomers: Vec<Newcomer>,
    doubts: Doubts,
    quotas: Quotas,
}

/// What a peer works with, for one call.
pub(super) struct Context<'a> {
    pub(super) now: Duration,
    pub(super) crypto: &'a dyn Crypto,
    pub(super) random: &'a dyn Random,
    pub(super) connections: &'a [Connection],
    pub(super) settings: &'a Settings,
    shared: &'a mut Shared,
}

impl Context<'_> {
    /// `duration`, or up to a tenth less.
    pub(super) fn jittered(&self, duration: Duration) -> Duration {
        let mut random = [0; 4];
        self.random.fill(&mut random);
        duration - duration / 10 * (u32::from_ne_bytes(random) >> 16) / 65_536
    }

    /// An SPI of ours for an IKE SA.
    pub(super) fn draw_spi(&mut self, peer: PeerId) -> u64 {
        loop {
            let mut random = [0; 8];
            self.random.fill(&mut random);
            let spi = u64::from_ne_bytes(random);
            if spi != 0 && !self.shared.spis.contains_key(&spi) {
                self.shared.spis.insert(spi, (peer, false));
                return spi;
            }
        }
    }

    /// Messages with this SPI are a known peer's from now on.
    pub(super) fn know_spi(&mut self, spi: u64) {
        let Some((_, known)) = self.shared.spis.get_mut(&spi) else { return };
        if !core::mem::replace(known, true) {
            self.tell(Event::Spi { spi, known: true });
        }
    }

    pub(super) fn forget_spi(&mut self, spi: u64) {
        if let Some((_, true)) = self.shared.spis.remove(&spi) {
            self.tell(Event::Spi { spi, known: false });
        }
    }

    /// An SPI of ours for a child SA; 1 to 255 are reserved (RFC 4303 §2.1).
    pub(super) fn draw_child_spi(&mut self) -> u32 {
        loop {
            let mut random = [0; 4];
            self.random.fill(&mut random);
            let spi = u32::from_ne_bytes(random);
            if spi > 255 && self.shared.child_spis.insert(spi) {
                return spi;
            }
        }
    }

    pub(super) fn forget_child_spi(&mut self, spi: u32) {
        self.shared.child_spis.remove(&spi);
    }

    pub(super) fn next_child(&mut self, peer: PeerId) -> ChildId {
        self.shared.next_child += 1;
        let child = ChildId(self.shared.next_child);
        self.shared.children.insert(child, peer);
        self.count(Counter::Rekeyed);
        child
    }

    /// Number of child SAs of all peers.
    pub(super) fn children(&self) -> usize {
        self.shared.children.len()
    }

    pub(super) fn end_child(&mut self, child: ChildId, spi: u32) {
        self.forget_child_spi(spi);
        self.shared.children.remove(&child);
        self.tell(Event::ChildDown { child });
    }

    /// Has a task done for a peer that is at `from`.
    pub(super) fn start(&mut self, peer: PeerId, is_established: bool, from: IpAddr, task: Task) -> TaskId {
        self.shared.queue.push(peer, is_established, from, task)
    }

    /// Nobody wants a task's outcome any more.
    pub(super) fn cancel(&mut self, task: TaskId) {
        self.shared.queue.cancel(task);
    }

    pub(super) fn transmit(&mut self, transmit: Transmit) {
        self.shared.transmits.push_back(transmit);
    }

    pub(super) fn send(&mut self, addresses: Addresses, message: &[u8]) {
        self.transmit(Transmit { addresses, payload: Payload::Message(message.to_vec()) });
    }

    pub(super) fn send_all(&mut self, addresses: Addresses, messages: &[Vec<u8>]) {
        messages.iter().for_each(|message| self.send(addresses, message));
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.shared.events.push_back(event);
    }

    pub(super) fn count(&mut self, counter: Counter) {
        self.shared.counts[counter as usize] += 1;
    }

    pub(super) fn lease(
        &mut self,
        pools: &[usize],
        is_v4: bool,
        owner: &Owner,
        wish: Option<IpAddr>,
        takes_over: bool,
    ) -> Option<(usize, IpAddr)> {
        pool::lease(&mut self.shared.pools, pools, is_v4, owner, wish, takes_over)
    }

    pub(super) fn release(&mut self, pool: usize, address: IpAddr) {
        if let Some(pool) = self.shared.pools.get_mut(pool) {
            pool.release(address);
        }
    }

    pub(super) fn established(&mut self, newcomer: Newcomer) {
        self.count(Counter::Established);
        self.shared.newcomers.push(newcomer);
    }

    /// Whether a move of a peer for whom `principal` answers is followed before it is confirmed.
    pub(super) fn is_trusted(&self, principal: &Owner) -> bool {
        self.shared.doubts.is_trusted(self.now, principal, self.shared.connected.principals())
    }

    /// When this peer may be asked where it is.
    pub(super) fn may_ask_at(&self, owner: Option<&Owner>) -> Duration {
        owner.map_or(self.now, |owner| self.shared.doubts.ask_at(self.now, owner))
    }

    /// A move was not confirmed; `followed`: and had been followed.
    pub(super) fn doubt(&mut self, name: Owner, followed: bool) {
        self.shared.doubts.fail(self.now, name, followed);
    }

    /// A move is followed before it is confirmed.
    pub(super) fn follow(&mut self, principal: Owner) {
        self.shared.doubts.follow(principal);
    }

    /// A move was confirmed; `followed`: and had been followed.
    pub(super) fn confirm(&mut self, name: &Owner, followed: bool) {
        self.shared.doubts.confirm(name, followed);
    }

    /// Whether a peer for whom `principal` answers may have another SA made or keys changed. Who answers for many may
    /// ask for as much as all of them that are connected.
    pub(super) fn admits_create(&mut self, principal: &Owner) -> bool {
        let peers =
            if principal.1.is_unnamed() { self.shared.connected.answered_for_by(principal).len() } else { 1 };
        self.shared.quotas.admits(self.now, principal, peers as u32)
    }

    pub(super) fn log_keys(&mut self, spis: [u64; 2], suite: &IkeSuite, keys: &SessionKeys) {
        if self.settings.log_keys {
            self.tell(Event::SessionKeys {
                spis,
                suite: suite.clone(),
                encr: [keys.ei.clone(), keys.er.clone()],
                integ: [keys.ai.clone(), keys.ar.clone()],
            });
        }
    }
}

/// A connection that we make, and make again.
#[derive(Debug)]
struct Dial {
    connection: usize,
    addresses: Addresses,
    peer: Option<PeerId>,
    failures: u32,
    at: Option<Duration>,
}

/// Longest first message, in bytes: it is kept until its sender has proved who it is.
const LONGEST_INIT: usize = 4096;
/// Longest wait before a connection is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// All peers.
#[derive(Debug)]
pub struct Endpoint {
    crypto: Arc<dyn Crypto>,
    random: Arc<dyn Random>,
    connections: Vec<Connection>,
    settings: Settings,
    shared: Shared,
    peers: BTreeMap<PeerId, Peer>,
    next_peer: u64,
    /// Half-open peers by where their first message came from, and its SPI.
    inits: BTreeMap<(SocketAddr, u64), PeerId>,
    init_of: BTreeMap<PeerId, (SocketAddr, u64)>,
    crowd: Crowd<PeerId>,
    cookies: Cookies,
    timers: BTreeSet<(Duration, PeerId)>,
    /// Peers that have ended and are not forgotten yet, the oldest first.
    ended: VecDeque<PeerId>,
    dials: Vec<Dial>,
    /// Hints about unknown SPIs and versions.
    hints: Rate,
    /// First messages refused without a cookie.
    refusals: Rate,
}

/// Answers in one second to messages of SPIs and versions that are not known.
const HINTS: u32 = 100;
/// First messages in one second that are refused before a cookie is asked for.
const REFUSALS: u32 = 256;

impl Endpoint {
    /// Returns an endpoint without peers. All its secrets, SPIs and jitter come from `random`.
    pub fn new(
        crypto: Arc<dyn Crypto>,
        random: Arc<dyn Random>,
        connections: Vec<Connection>,
        pools: Vec<Pool>,
        settings: Settings,
    ) -> Self {
        Self {
            crypto,
            random,
            connections,
            settings,
            shared: Shared {
                transmits: VecDeque::new(),
                events: VecDeque::new(),
                queue: TaskQueue::default(),
                next_child: 0,
                spis: BTreeMap::new(),
                child_spis: BTreeSet::new(),
                children: BTreeMap::new(),
                pools,
                connected: Connected::default(),
                counts: [0; _],
                newcomers: Vec::new(),
                doubts: Doubts::default(),
                quotas: Quotas::default(),
            },
            peers: BTreeMap::new(),
            next_peer: 0,
            inits: BTreeMap::new(),
            init_of: BTreeMap::new(),
            crowd: Crowd::default(),
            cookies: Cookies::default(),
            timers: BTreeSet::new(),
            ended: VecDeque::new(),
            dials: Vec::new(),
            hints: Rate::default(),
            refusals: Rate::default(),
        }
    }

    /// These SPIs are taken by others: none of ours will be one of them.
    pub fn reserve_child_spis(&mut self, spis: impl IntoIterator<Item = u32>) {
        self.shared.child_spis.extend(spis);
    }

    /// The connections, by index.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// What was counted.
    pub fn count(&self, counter: Counter) -> u64 {
        self.shared.counts[counter as usize]
    }

    /// Peers that have not proved who they are.
    pub fn half_open(&self) -> usize {
        self.crowd.len()
    }

    fn context<'a>(
        now: Duration,
        crypto: &'a dyn Crypto,
        random: &'a dyn Random,
        connections: &'a [Connection],
        settings: &'a Settings,
        shared: &'a mut Shared,
    ) -> Context<'a> {
        Context { now, crypto, random, connections, settings, shared }
    }

    /// Lets a peer do something, and sees to what follows from it.
    fn with(&mut self, now: Duration, id: PeerId, act: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut cx = Self::context(
            now,
            &*self.crypto,
            &*self.random,
            &self.connections,
            &self.settings,
            &mut self.shared,
        );
        act(peer, &mut cx);
        self.settle(now, id);
        self.welcome(now);
    }

    /// Brings what is kept about a peer in line with what it has become.
    fn settle(&mut self, now: Duration, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.is_half_open() {
            self.crowd.remove(id);
            if let Some(key) = self.init_of.remove(&id) {
                self.inits.remove(&key);
            }
        }
        if matches!(peer.phase, Phase::Ended) {
            match self.shared.connected.remove(id) {
                true => self.shared.counts[Counter::Ended as usize] += 1,
                false if !peer.was_counted => self.shared.counts[Counter::Failed as usize] += 1,
                false => {}
            }
            if !core::mem::replace(&mut peer.was_counted, true) {
                self.ended.push_back(id);
            }
            if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == Some(id)) {
                let wait = Duration::from_secs(1) * 2u32.saturating_pow(dial.failures.min(8));
                dial.peer = None;
                dial.at = Some(now + wait.min(LONGEST_WAIT));
                dial.failures += 1;
            }
        }
        let old = peer.timer;
        let cx = Self::context(
            now,
            &*self.crypto,
            &*self.random,
            &self.connections,
            &self.settings,
            &mut self.shared,
        );
        let new = peer.poll_timeout(&cx);
        peer.timer = new;
        let over = peer.is_over(now);
        if old != new || over {
            old.map(|at| self.timers.remove(&(at, id)));
        }
        if over {
            let gone = self.peers.remove(&id);
            let mut cx = Self::context(
                now,
                &*self.crypto,
                &*self.random,
                &self.connections,
                &self.settings,
                &mut self.shared,
            );
            for spi in gone.iter().flat_map(Peer::all_spis) {
                cx.forget_spi(spi);
            }
        } else if old != new {
            self.timers.extend(new.map(|at| (at, id)));
        }
        // Who ends lingers, for what may be repeated, but not in any number.
        while self.ended.len() > self.settings.half_open_limit.max(1) {
            let Some(oldest) = self.ended.pop_front() else { break };
            self.with(now, oldest, |peer, _| peer.forget());
        }
    }

    /// Peers that have just proved who they are: what they were before is over, where it should be.
    fn welcome(&mut self, now: Duration) {
        while let Some(newcomer) = self.shared.newcomers.pop() {
            let id = newcomer.peer;
            if !self.peers.get(&id).is_some_and(Peer::is_established) {
                continue;
            }
            self.shared.connected.insert(&newcomer);
            if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == Some(id)) {
                dial.failures = 0;
            }
            self.make_way(now, &newcomer);
            self.bound_peers(now, &newcomer);
        }
    }

    /// Keeps those of one owner, those without a name, and all, to their number: of all the newcomer goes, else the
    /// oldest.
    fn bound_peers(&mut self, now: Duration, newcomer: &Newcomer) {
        let (Newcomer { owner, principal, .. }, connected) = (newcomer, &self.shared.connected);
        let (peers, most) = match owner.1.is_unnamed() {
            true => (connected.answered_for_by(principal), self.settings.peer_limit / bounds::NAMELESS),
            false => (connected.of(owner), self.settings.device_limit),
        };
        if peers.len() > most.max(1)
            && let Some(oldest) = peers.first().copied()
        {
            self.with(now, oldest, |peer, cx| peer.close(cx, Reason::Replaced));
        } else if self.shared.connected.len() > self.settings.peer_limit {
            self.shared.counts[Counter::NoRoom as usize] += 1;
            self.with(now, newcomer.peer, |peer, cx| peer.close(cx, Reason::Overload));
        }
    }

    /// Ends what a newcomer takes the place of, and tells it so.
    fn make_way(&mut self, now: Duration, newcomer: &Newcomer) {
        let others = self.shared.connected.of(&newcomer.owner).iter().copied();
        let others: Vec<PeerId> = match (newcomer.takes_over, newcomer.initial_contact) {
            (false, false) => return,
            _ => others.filter(|id| *id != newcomer.peer).collect(),
        };
        for id in others {
            let new = self.peers.get(&newcomer.peer).filter(|new| new.is_established());
            let (Some(new), Some(old)) = (new, self.peers.get(&id)) else { return };
            // Several may have this name: what comes from the same socket is the same device, and of the others only who
            // does not answer is gone.
            let is_over = newcomer.takes_over || new.is_at_the_place_of(old);
            let over = match is_over {
                true if new.gives_way_to(old) => newcomer.peer,
                true => id,
                false => {
                    self.with(now, id, Peer::check_life);
                    continue;
                }
            };
            self.with(now, over, |peer, cx| peer.close(cx, Reason::Replaced));
        }
    }

    /// A message, without the non-ESP marker.
    pub fn handle_datagram(&mut self, now: Duration, addresses: Addresses, message: &[u8]) {
        self.shared.counts[Counter::Messages as usize] += 1;
        let Ok(header) = Header::parse(message) else {
            self.shared.counts[Counter::Malformed as usize] += 1;
            return;
        };
        if header.version >> 4 != wire::VERSION >> 4 {
            self.shared.counts[Counter::Version as usize] += 1;
            if header.version >> 4 > wire::VERSION >> 4 {
                self.hint(now, addresses, &header, notify::INVALID_MAJOR_VERSION);
            }
            return;
        }
        let is_init = header.exchange == ExchangeType::SaInit.number();
        if is_init && !header.is_response() {
            if header.spi_r == 0 && header.spi_i != 0 && header.is_from_initiator() && header.message_id == 0
            {
                self.handle_init(now, addresses, &header, message);
            } else {
                self.shared.counts[Counter::Malformed as usize] += 1;
            }
            return;
        }
        let ours = if header.is_from_initiator() { header.spi_r } else { header.spi_i };
        match self.shared.spis.get(&ours).copied() {
            Some((id, _)) => {
                self.with(now, id, |peer, cx| peer.handle_message(cx, &header, message, addresses))
            }
            None => {
                self.shared.counts[Counter::UnknownSpi as usize] += 1;
                self.hint(now, addresses, &header, notify::INVALID_IKE_SPI);
            }
        }
    }

    /// Who sends to an SPI that we do not know may want to hear so: it proves nothing (RFC 7296 §2.21.4).
    fn hint(&mut self, now: Duration, addresses: Addresses, header: &Header, kind: u16) {
        if header.is_response() {
            return;
        }
        if self.hints.admits(now, HINTS, Duration::from_secs(1) / HINTS) {
            self.refuse(addresses, header, &Notify::new(kind, &[]));
        } else {
            self.shared.counts[Counter::TooOften as usize] += 1;
        }
    }

    /// An answer in clear: nothing is kept of what it answers.
    fn refuse(&mut self, addresses: Addresses, header: &Header, notify: &Notify<'_>) {
        let from_initiator = header.flags & flags::INITIATOR;
        let flags = flags::RESPONSE | (from_initiator ^ flags::INITIATOR);
        let header = Header { next: 0, version: wire::VERSION, flags, length: 0, ..*header };
        let message = wire::emit_message(header, &[wire::Payload::Notify(*notify)]);
        self.shared.transmits.push_back(Transmit { addresses, payload: Payload::Message(message) });
    }

    /// A peer's first message.
    fn handle_init(&mut self, now: Duration, addresses: Addresses, header: &Header, message: &[u8]) {
        let key = (addresses.remote, header.spi_i);
        if let Some(known) = self.inits.get(&key).copied() {
            return self.with(now, known, |peer, cx| peer.repeat_init(cx, message, addresses));
        }
        if message.len() > LONGEST_INIT {
            self.shared.counts[Counter::Malformed as usize] += 1;
            return;
        }
        self.shared.counts[Counter::Init as usize] += 1;
        // Who is refused leaves nothing behind: many of them must show where they are, as many who begin.
        let is_pressed = self.crowd.len() >= self.settings.cookie_threshold
            || self.refusals.is_empty(now, REFUSALS, Duration::from_secs(1) / REFUSALS);
        if is_pressed && !self.has_cookie(now, addresses, header, message) {
            return;
        }
        while self.shared.queue.unauthenticated() >= self.settings.task_limit.max(1) {
            let Some(other) = self.shared.queue.crowded_out_by(addresses.remote.ip()) else {
                self.shared.counts[Counter::Busy as usize] += 1;
                return;
            };
            self.crowd_out(now, other);
        }
        self.next_peer += 1;
        let id = PeerId(self.next_peer);
        let mut cx = Self::context(
            now,
            &*self.crypto,
            &*self.random,
            &self.connections,
            &self.settings,
            &mut self.shared,
        );
        match Peer::answer_init(&mut cx, id, header, message, addresses) {
            Ok(peer) => {
                while self.crowd.len() >= self.settings.half_open_limit.max(1) {
                    let Some(oldest) = self.crowd.most_crowded() else { break };
                    self.crowd_out(now, oldest);
                }
                self.peers.insert(id, peer);
                self.inits.insert(key, id);
                self.init_of.insert(id, key);
                self.crowd.insert(id, addresses.remote.ip());
                self.settle(now, id);
            }
            Err(InitRefused { kind, data }) => {
                self.shared.counts[Counter::InitRefused as usize] += 1;
                self.refusals.admits(now, REFUSALS, Duration::from_secs(1) / REFUSALS);
                self.refuse(addresses, header, &Notify::new(kind, &data));
            }
        }
    }

    /// A peer that is not established makes room for others.
    fn crowd_out(&mut self, now: Duration, peer: PeerId) {
        self.shared.counts[Counter::Crowded as usize] += 1;
        self.with(now, peer, |peer, cx| {
            peer.fail(cx, Reason::Overload);
            peer.forget();
        });
    }

    /// Whether a first message shows a cookie of ours; if not, it is asked to.
    fn has_cookie(&mut self, now: Duration, addresses: Addresses, header: &Header, message: &[u8]) -> bool {
        let payloads = wire::parse(header.next, message.get(wire::HEADER..).unwrap_or_default());
        let payloads = payloads.unwrap_or_default();
        let nonce = payloads.iter().find_map(|p| match p {
            wire::Payload::Nonce(nonce) => Some(*nonce),
            _ => None,
        });
        let Some(nonce) = nonce else {
            self.shared.counts[Counter::Malformed as usize] += 1;
            return false;
        };
        let shown = payloads.iter().find_map(|p| match p {
            wire::Payload::Notify(n) if n.kind == notify::COOKIE => Some(n.data),
            _ => None,
        });
        let initiator = Initiator { nonce, from: addresses.remote.ip(), spi: header.spi_i };
        let (crypto, random) = (&*self.crypto, &*self.random);
        if shown.is_some_and(|shown| self.cookies.is_ours(now, crypto, random, shown, initiator)) {
            return true;
        }
        let cookie = self.cookies.make(now, crypto, random, initiator);
        self.shared.counts[Counter::Cookie as usize] += 1;
        self.refuse(addresses, header, &Notify::new(notify::COOKIE, &cookie));
        false
    }

    /// Connects by `connection` from `local`, now and whenever it ends.
    pub fn dial(&mut self, now: Duration, connection: usize, local: IpAddr) {
        let Some(remote) = self.connections.get(connection).and_then(|c| c.remote) else { return };
        let addresses = Addresses { local: SocketAddr::new(local, IKE_PORT), remote };
        self.dials.push(Dial { connection, addresses, peer: None, failures: 0, at: Some(now) });
        self.redial(now);
    }

    fn redial(&mut self, now: Duration) {
        for at in 0..self.dials.len() {
            let Some(dial) = self.dials.get_mut(at).filter(|dial| dial.at.is_some_and(|at| at <= now)) else {
                continue;
            };
            if self.shared.connected.has_peer_of(dial.connection) {
                // The peer has connected to us meanwhile.
                dial.at = Some(now + LONGEST_WAIT);
                continue;
            }
            dial.at = None;
            self.next_peer += 1;
            let id = PeerId(self.next_peer);
            let Some(connection) = self.connections.get(dial.connection) else { continue };
            let mut cx = Self::context(
                now,
                &*self.crypto,
                &*self.random,
                &self.connections,
                &self.settings,
                &mut self.shared,
            );
            let Some(peer) = Peer::initiate(&mut cx, id, dial.connection, connection, dial.addresses) else {
                continue;
            };
            dial.peer = Some(id);
            self.peers.insert(id, peer);
            self.settle(now, id);
        }
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.timer = None;
            }
            self.with(now, id, Peer::handle_timeout);
        }
        self.redial(now);
    }

    /// When [`Endpoint::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let dial = self.dials.iter().filter_map(|dial| dial.at).min();
        timer.into_iter().chain(dial).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// The next news.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// The next task, and where the peer is that it is for. Take it when somebody is free to do it: those that wait here take
    /// turns by network and address, and established peers' come first.
    pub fn poll_task(&mut self) -> Option<(TaskId, IpAddr, Task)> {
        self.shared.queue.pop()
    }

    /// A task is done.
    pub fn handle_outcome(&mut self, now: Duration, task: TaskId, outcome: Outcome) {
        if let Some(peer) = self.shared.queue.done(task) {
            self.with(now, peer, |peer, cx| peer.handle_outcome(cx, task, outcome));
        }
    }

    /// The data plane saw an authentic packet of this pair, the newest so far, come by another path.
    pub fn handle_path(&mut self, now: Duration, child: ChildId, path: Path) {
        if let Some(peer) = self.peer_of(child) {
            self.with(now, peer, |peer, cx| peer.handle_path(cx, path));
        }
    }

    /// The data plane saw the first packet of this pair.
    pub fn handle_child_used(&mut self, now: Duration, child: ChildId) {
        if let Some(peer) = self.peer_of(child) {
            self.with(now, peer, |peer, cx| peer.handle_child_used(cx, child));
        }
    }

    /// A pair has carried so much that it is to get new keys.
    pub fn handle_child_due(&mut self, now: Duration, child: ChildId) {
        if let Some(peer) = self.peer_of(child) {
            self.with(now, peer, |peer, cx| peer.handle_child_due(cx, child));
        }
    }

    /// Whose pair it is.
    pub fn peer_of(&self, child: ChildId) -> Option<PeerId> {
        self.shared.children.get(&child).copied()
    }

    /// The answer to [`Event::LivenessDue`]: whether the data plane heard from the peer since the last time.
    pub fn handle_liveness(&mut self, now: Duration, peer: PeerId, alive: bool) {
        self.with(now, peer, |peer, cx| peer.handle_liveness(cx, alive));
    }

    /// What was sent on a path that the peer has not confirmed is enough: it is back where it was.
    pub fn handle_unconfirmed(&mut self, now: Duration, peer: PeerId) {
        self.with(now, peer, |peer, cx| peer.handle_unconfirmed(cx));
    }

    /// A peer that we connected to is reached from `local` from now on, and at `remote` where that is another address of its.
    pub fn handle_local(&mut self, now: Duration, peer: PeerId, local: IpAddr, remote: Option<IpAddr>) {
        if let Some(dial) = self.dials.iter_mut().find(|dial| dial.peer == Some(peer)) {
            dial.addresses.local.set_ip(local);
        }
        self.with(now, peer, |peer, cx| peer.handle_local(cx, local, remote));
    }

    /// Ends a peer.
    pub fn close(&mut self, now: Duration, peer: PeerId) {
        self.with(now, peer, |peer, cx| peer.close(cx, Reason::Closed));
    }

    /// Changes the keys of a peer's IKE SA, or of all its child SAs.
    pub fn rekey(&mut self, now: Duration, peer: PeerId, session: bool) {
        self.with(now, peer, |peer, cx| peer.rekey(cx, session));
    }

    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = View<'_>> {
        self.peers.values().map(|peer| View { peer })
    }
}

/// What may be seen of a peer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) peer: &'a Peer,
}
