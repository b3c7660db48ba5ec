//! All peers behind one interface: messages in, messages and events out.
//!
//! Call order: any `handle_*`, then [`Endpoint::poll_task`], [`Endpoint::poll_transmit`] and
//! [`Endpoint::poll_event`] until `None`, then [`Endpoint::poll_timeout`]. Time is counted from any
//! fixed point.

use super::{
    admission::Admission,
    connection::Connection,
    context::{Context, Environment, Shared},
    counter::Counter,
    dial::{Dials, Step},
    event::{ChildId, Event, Found, LookUpId, PeerId},
    exchange::init::message::InitMessage,
    peer::{Peer, Phase},
    pool::Pool,
    reason::Reason,
    settings::Settings,
    sizes::StateSizes,
    wire::{self, ExchangeType, Header, notify},
};
use crate::{
    crypto::{Crypto, Random},
    path::{Addresses, OtherFamily, Path},
    path_mtu::PacketsSent,
    task::{Outcome, Task, TaskId},
    transmit::Transmit,
};
use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

/// Most bytes of a first message, which is kept until its sender is authenticated.
const MAX_INIT_LEN: usize = 4096;

/// All peers.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) environment: Environment,
    pub(super) shared: Shared,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) next_peer: u64,
    pub(super) admission: Admission,
    timers: BTreeSet<(Duration, PeerId)>,
    /// Peers that have ended and are not forgotten yet, the oldest first.
    ended: VecDeque<PeerId>,
    pub(super) dials: Dials,
    pub(super) is_shutting_down: bool,
}

impl Endpoint {
    /// Creates an endpoint without peers. All its secrets, SPIs and jitter come from `random`.
    pub fn new(
        crypto: Arc<dyn Crypto>,
        random: Arc<dyn Random>,
        connections: Vec<Connection>,
        pools: Vec<Pool>,
        settings: Settings,
    ) -> Self {
        Self {
            environment: Environment::new(crypto, random, connections, settings),
            shared: Shared::new(pools),
            peers: BTreeMap::new(),
            next_peer: 0,
            admission: Admission::default(),
            timers: BTreeSet::new(),
            ended: VecDeque::new(),
            dials: Dials::default(),
            is_shutting_down: false,
        }
    }

    /// Returns the connections of the configuration with their indices, in the operator's order.
    pub fn connections(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.environment.connections.current()
    }

    /// Returns the connection with this index, which may be an earlier one that peers still use.
    pub fn connection(&self, index: usize) -> Option<&Connection> {
        self.environment.connections.get(index)
    }

    /// Returns the value of a counter.
    pub fn count(&self, counter: Counter) -> u64 {
        self.shared.counts[counter as usize]
    }

    /// Returns the number of peers that are not authenticated.
    pub fn half_open(&self) -> usize {
        self.admission.half_open()
    }

    /// Returns the sizes of all state that is kept for peers.
    pub fn state_sizes(&self) -> StateSizes {
        StateSizes {
            peers: self.peers.len(),
            half_open: self.half_open(),
            earlier_connections: self.environment.connections.earlier(),
            ..self.shared.state_sizes()
        }
    }

    /// Runs `act` on a peer and updates everything that depends on the peer's state.
    pub(super) fn with(&mut self, now: Duration, id: PeerId, act: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.connection;
        let mut cx = self.environment.context(now, &mut self.shared);
        act(peer, &mut cx);
        self.settle(now, id, before);
        self.settle_new_peers(now);
        self.settle_succession(now, id);
        self.renew_due(now);
    }

    /// Updates what the endpoint stores about a peer from the peer's state. `before` is the index
    /// of the connection that it had.
    pub(super) fn settle(&mut self, now: Duration, id: PeerId, before: Option<usize>) {
        let left = self.leave_succession(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.is_half_open() {
            self.admission.remove(id);
        }
        if matches!(peer.phase, Phase::Ended) {
            match self.shared.connected.remove(id) {
                true => self.shared.count(Counter::Ended),
                false if !peer.was_counted => self.shared.count(Counter::Failed),
                false => {}
            }
            if !core::mem::replace(&mut peer.was_counted, true) {
                self.ended.push_back(id);
            }
            self.dials.peer_ended(now, id);
        }
        let outer = peer.outer_only();
        let outer_before = core::mem::replace(&mut peer.outer, outer);
        self.shared.leases.follow_outer(outer_before, outer);
        let over = peer.is_over(now);
        let device = peer.device();
        if self.shared.devices.address_of(id) != device {
            let cx = self.environment.context(now, &mut self.shared);
            let owner = peer.owner(&cx);
            self.shared.devices.follow(id, owner.zip(device), &peer.leases);
        }
        let connection = peer.connection.filter(|_| !over);
        let old = peer.timer;
        let cx = self.environment.context(now, &mut self.shared);
        let new = peer.poll_timeout(&cx);
        peer.timer = new;
        if old != new || over {
            old.map(|at| self.timers.remove(&(at, id)));
        }
        if over {
            let gone = self.peers.remove(&id);
            let mut cx = self.environment.context(now, &mut self.shared);
            for spi in gone.iter().flat_map(Peer::all_spis) {
                cx.forget_spi(spi);
            }
        } else if old != new {
            self.timers.extend(new.map(|at| (at, id)));
        }
        self.environment.connections.move_peer(before, connection);
        if let Some(new) = left.successor {
            self.with(now, new, |peer, cx| peer.lose_predecessor(cx, id));
        }
        if let (Some(old), Some(reason)) = (left.predecessor, left.ended_for) {
            self.with(now, old, |peer, cx| peer.lose_successor(cx, id, reason));
        }
        // Ended peers linger to answer repeated requests, but their number is bounded.
        while self.ended.len() > self.environment.settings.half_open_limit.max(1) {
            let Some(oldest) = self.ended.pop_front() else { break };
            self.with(now, oldest, |peer, _| peer.forget());
        }
    }

    /// Handles a message, without the non-ESP marker.
    pub fn handle_datagram(&mut self, now: Duration, addresses: Addresses, message: &[u8]) {
        self.shared.count(Counter::Messages);
        let Ok(header) = Header::parse(message) else {
            self.shared.count(Counter::Malformed);
            return;
        };
        if header.version >> 4 != wire::VERSION >> 4 {
            self.shared.count(Counter::Version);
            // Whoever speaks a higher one is told ours (RFC 7296 §2.5).
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
                self.shared.count(Counter::Malformed);
            }
            return;
        }
        let ours = if header.is_from_initiator() { header.spi_r } else { header.spi_i };
        match self.shared.spis.get(&ours).copied() {
            Some((id, _)) => {
                self.with(now, id, |peer, cx| peer.handle_message(cx, &header, message, addresses))
            }
            None => {
                self.shared.count(Counter::UnknownSpi);
                self.answer_unknown_spi(now, addresses, &header);
            }
        }
    }

    /// Handles a peer's first message, before we have given it an SPI (RFC 7296 §2.2, §3.1).
    fn handle_init(&mut self, now: Duration, addresses: Addresses, header: &Header, message: &[u8]) {
        if let Some(known) = self.admission.find(addresses.remote, header.spi_i) {
            return self.with(now, known, |peer, cx| peer.repeat_init(cx, message, addresses));
        }
        if self.is_shutting_down {
            return self.shared.count(Counter::Busy);
        }
        if message.len() > MAX_INIT_LEN {
            self.shared.count(Counter::Malformed);
            return;
        }
        self.shared.count(Counter::Init);
        let request = InitMessage::parse(header, message);
        if self.admission.wants_cookie(now, &self.environment.settings) {
            match &request {
                Ok(request) if self.has_cookie(now, addresses, header, request) => {}
                Ok(_) => return,
                Err(_) => return self.shared.count(Counter::Malformed),
            }
        }
        let request = match request {
            Ok(request) => request,
            Err(why) => return self.refuse_init(now, addresses, header, &why.into()),
        };
        while self.shared.queue.unauthenticated() >= self.environment.settings.task_limit.max(1) {
            let Some(other) = self.shared.queue.crowded_out_by(addresses.remote.ip()) else {
                self.shared.count(Counter::Busy);
                return;
            };
            self.evict(now, other);
        }
        self.next_peer += 1;
        let id = PeerId(self.next_peer);
        let mut cx = self.environment.context(now, &mut self.shared);
        match Peer::answer_init(&mut cx, id, header, message, request, addresses) {
            Ok(peer) => {
                while self.admission.half_open() >= self.environment.settings.half_open_limit.max(1) {
                    let Some(oldest) = self.admission.most_crowded() else { break };
                    self.evict(now, oldest);
                }
                self.peers.insert(id, peer);
                self.admission.insert(id, addresses.remote, header.spi_i);
                self.settle(now, id, None);
            }
            Err(why) => self.refuse_init(now, addresses, header, &why),
        }
    }

    /// Drops an unauthenticated peer to make room for others.
    fn evict(&mut self, now: Duration, peer: PeerId) {
        self.shared.count(Counter::Crowded);
        self.with(now, peer, |peer, cx| {
            peer.fail(cx, Reason::Overload);
            peer.forget();
        });
    }

    /// Connects by `connection`, now and whenever the connection ends: from `local`, or from the
    /// first address of the other family that the connection has.
    pub fn dial(&mut self, now: Duration, connection: usize, local: IpAddr) {
        if let Some(dialled) = self.environment.connections.get(connection) {
            self.dials.push(now, connection, dialled, local);
            self.redial(now);
        }
    }

    /// Handles the answer to [`Event::LookUp`]: the addresses of the host name, best first, or none.
    /// Returns what becomes of them.
    pub fn handle_addresses(&mut self, now: Duration, id: LookUpId, addresses: &[IpAddr]) -> Found {
        let found = self.dials.found(now, id, addresses);
        self.redial(now);
        found
    }

    fn redial(&mut self, now: Duration) {
        while let Some((dial, look_up)) = self.dials.take_due(now) {
            let connections = &self.environment.connections;
            let number = connections.number(dial.connection);
            if number.is_some_and(|number| self.shared.connected.has_peer_of(number)) {
                dial.postpone(now);
                continue;
            }
            if let Some(until) = number.and_then(|number| self.shared.bars.until(now, number)) {
                dial.wait_until(until);
                continue;
            }
            let Some(connection) = connections.get(dial.connection) else { continue };
            let mut cx = self.environment.context(now, &mut self.shared);
            if let Some(name) = dial.give_up() {
                cx.tell(Event::LookUpTimedOut { name });
            }
            let addresses = match dial.next_step(now, connection, look_up) {
                Step::Connect(addresses) => addresses,
                Step::LookUp(id, name) => {
                    cx.tell(Event::LookUp { id, name });
                    continue;
                }
                Step::Wait => continue,
            };
            self.next_peer += 1;
            let id = PeerId(self.next_peer);
            let Some(peer) = Peer::initiate(&mut cx, id, dial.connection, connection, addresses) else {
                continue;
            };
            cx.tell(Event::Dialled { peer: id });
            dial.peer = Some(id);
            self.peers.insert(id, peer);
            self.settle(now, id, None);
        }
    }

    /// Handles the answer to [`Event::Dialled`]: packets to the peer leave from `local`. Does nothing if
    /// `local` cannot reach the peer's address, or once anything was sent.
    pub fn handle_source(&mut self, now: Duration, peer: PeerId, local: IpAddr) {
        self.with(now, peer, |peer, _| peer.begin_from(local));
    }

    /// Handles all timers due at `now`.
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

    /// Returns when [`Endpoint::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.dials.poll_timeout()).min()
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// Returns the next task with its peer's address. Call it when a thread is free to run the
    /// task: until then, waiting tasks take turns by network and address, those of established
    /// peers first.
    pub fn poll_task(&mut self) -> Option<(TaskId, IpAddr, Task)> {
        self.shared.queue.pop()
    }

    /// Returns true if the outcome of a task is still needed: its peer has not ended.
    pub fn needs(&self, task: TaskId) -> bool {
        self.shared.queue.owner(task).is_some()
    }

    /// Returns until when a task may wait for what others publish, so that its peer still hears the
    /// result: until five sixths of the peer's time to authenticate are over. Returns zero if nobody
    /// needs the task.
    pub fn waits_until(&self, task: TaskId) -> Duration {
        let peer = self.shared.queue.owner(task).and_then(|id| self.peers.get(&id));
        peer.map(|peer| peer.waits_until(&self.environment.settings)).unwrap_or_default()
    }

    /// Handles the outcome of a task.
    pub fn handle_outcome(&mut self, now: Duration, task: TaskId, outcome: Outcome) {
        let queue = &mut self.shared.queue;
        let is_over = !matches!(outcome, Outcome::Asking);
        if let Some(peer) = if is_over { queue.done(task) } else { queue.owner(task) } {
            self.with(now, peer, |peer, cx| peer.handle_outcome(cx, task, outcome));
        }
    }

    /// Handles a report of the data plane: an authentic packet of the peer, the newest so far of
    /// one of its child SAs, came by another path.
    pub fn handle_path(&mut self, now: Duration, peer: PeerId, path: Path) {
        self.with(now, peer, |peer, cx| peer.handle_path(cx, path));
    }

    /// Handles a report of the data plane: the first packet of this child SA arrived.
    pub fn handle_child_used(&mut self, now: Duration, peer: PeerId, child: ChildId) {
        self.with(now, peer, |peer, cx| peer.handle_child_used(cx, child));
    }

    /// Handles a report of the data plane: this child SA has carried so much that it must be
    /// rekeyed.
    pub fn handle_child_due(&mut self, now: Duration, peer: PeerId, child: ChildId) {
        self.with(now, peer, |peer, cx| peer.handle_child_due(cx, child));
    }

    /// Handles a report of the data plane: one of this child SA's two SAs may carry nothing more.
    pub fn handle_child_expired(&mut self, now: Duration, peer: PeerId, child: ChildId) {
        self.with(now, peer, |peer, cx| peer.handle_child_expired(cx, child));
    }

    /// Handles the answer to [`Event::LivenessDue`]: `alive` says whether the data plane received
    /// anything from the peer since the last one.
    pub fn handle_liveness(&mut self, now: Duration, peer: PeerId, alive: bool) {
        self.with(now, peer, |peer, cx| peer.handle_liveness(cx, alive));
    }

    /// Handles the answer to [`Event::TrafficDue`]: the number of packets that the data plane has sent to
    /// the peer and received from it so far.
    pub fn handle_traffic(&mut self, now: Duration, peer: PeerId, sent: u64, received: u64) {
        self.with(now, peer, |peer, cx| peer.handle_traffic(cx, sent, received));
    }

    /// Handles the answer to [`Event::PathProbeDue`]: `most` is the length in bytes of the longest outer
    /// packet that is sent to the peer, if that is known, and `sent` says what the data plane has sent
    /// since the last answer.
    pub fn handle_path_probe_due(
        &mut self,
        now: Duration,
        peer: PeerId,
        most: Option<u16>,
        sent: PacketsSent,
    ) {
        self.with(now, peer, |peer, cx| peer.begin_path_probes(cx, most, sent));
    }

    /// Handles a router's report that the peer's path takes packets of at most `mtu` bytes, which anybody
    /// can have sent unless it is `certain`. Probes find out what is true.
    pub fn handle_path_report(&mut self, now: Duration, peer: PeerId, mtu: u16, certain: bool) {
        self.with(now, peer, |peer, cx| peer.handle_path_report(cx, mtu, certain));
    }

    /// Handles a report that enough was sent on a path that the peer has not confirmed. The peer's
    /// path goes back to the confirmed one.
    pub fn handle_unconfirmed(&mut self, now: Duration, peer: PeerId) {
        self.with(now, peer, |peer, cx| peer.handle_unconfirmed(cx));
    }

    /// Handles a report of the data plane: the peer's path takes packets of at most `mtu` bytes, or of the
    /// port's length again. Messages of IKE are fragmented for it.
    pub fn handle_path_mtu(&mut self, now: Duration, peer: PeerId, mtu: Option<u16>) {
        self.with(now, peer, |peer, _| peer.ike_sas.iter_mut().for_each(|ike_sa| ike_sa.path_mtu = mtu));
    }

    /// Changes our address towards a peer that we connected to, and the peer's address if `remote`
    /// is given. A peer that is not connected yet, or not by MOBIKE, ends; its connection is made anew from
    /// `local`.
    ///
    /// # Errors
    /// [`OtherFamily`] if `local` cannot reach the peer's address; nothing changes then.
    pub fn handle_local(
        &mut self,
        now: Duration,
        peer: PeerId,
        local: IpAddr,
        remote: Option<IpAddr>,
    ) -> Result<(), OtherFamily> {
        let Some(known) = self.peers.get(&peer) else { return Ok(()) };
        if local.is_ipv4() != remote.unwrap_or(known.addresses.remote.ip()).is_ipv4() {
            return Err(OtherFamily);
        }
        self.dials.set_local(peer, local);
        self.with(now, peer, |peer, cx| peer.handle_local(cx, local, remote));
        Ok(())
    }

    /// Closes a peer.
    pub fn close(&mut self, now: Duration, peer: PeerId) {
        self.with(now, peer, |peer, cx| peer.close(cx, Reason::Closed));
    }

    /// Deletes a child SA. If we connect to the peer, it is asked for again after a while.
    pub fn delete_child(&mut self, now: Duration, peer: PeerId, child: ChildId) {
        self.with(now, peer, |peer, cx| peer.delete_child(cx, child));
    }

    /// Rekeys a peer's IKE SA, or all its child SAs.
    pub fn rekey(&mut self, now: Duration, peer: PeerId, ike_sa: bool) {
        self.with(now, peer, |peer, cx| peer.rekey(cx, ike_sa));
    }
}
