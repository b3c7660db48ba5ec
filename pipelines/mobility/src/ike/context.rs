//! State that peers share, and the context in which a peer handles a message, a timer or a finished
//! task.

use super::{
    bars::{Bars, NameHash},
    connected::{ConnectedPeers, NewPeer},
    connection::Connection,
    connections::Connections,
    counter::Counter,
    devices::Devices,
    doubt::Doubts,
    event::{ChildId, Event, PeerId},
    leases::Leases,
    pool::{Owner, Pool},
    quota::Quotas,
    schedule::IkeSaKeys,
    settings::Settings,
    sizes::StateSizes,
    suite::IkeSuite,
};
use crate::{
    crypto::{Crypto, Random},
    path::Addresses,
    task::{Task, TaskId},
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

/// State that all peers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    pub(super) queue: TaskQueue<PeerId>,
    pub(super) next_child: u64,
    /// Our SPIs, the peer of each, and whether the driver knows it.
    pub(super) spis: BTreeMap<u64, (PeerId, bool)>,
    /// Our SPIs of child SAs, and whether the peer may use each before we have the child SA.
    pub(super) child_spis: BTreeMap<u32, bool>,
    /// Number of child SAs of all peers.
    pub(super) children: usize,
    pub(super) leases: Leases,
    pub(super) connected: ConnectedPeers,
    pub(super) counts: [u64; Counter::ALL.len()],
    pub(super) new_peers: Vec<NewPeer>,
    pub(super) devices: Devices,
    /// Peers to which we must authenticate again.
    pub(super) renewals: Vec<PeerId>,
    pub(super) doubts: Doubts,
    pub(super) quotas: Quotas,
    pub(super) bars: Bars,
}

impl Shared {
    pub(super) fn new(pools: Vec<Pool>) -> Self {
        Self {
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            queue: TaskQueue::default(),
            next_child: 0,
            spis: BTreeMap::new(),
            child_spis: BTreeMap::new(),
            children: 0,
            leases: Leases::new(pools),
            connected: ConnectedPeers::default(),
            counts: [0; _],
            new_peers: Vec::new(),
            devices: Devices::default(),
            renewals: Vec::new(),
            doubts: Doubts::default(),
            quotas: Quotas::default(),
            bars: Bars::default(),
        }
    }

    pub(super) fn count(&mut self, counter: Counter) {
        self.counts[counter as usize] += 1;
    }

    /// Returns the sizes of the state that is kept here for peers.
    pub(super) fn state_sizes(&self) -> StateSizes {
        StateSizes {
            spis: self.spis.len(),
            child_spis: self.child_spis.len(),
            children: self.children,
            tasks: self.queue.len(),
            names: self.connected.entries() + self.devices.entries(),
            leases: self.leases.len(),
            ..StateSizes::default()
        }
    }
}

/// The endpoint's parameters from the driver.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) crypto: Arc<dyn Crypto>,
    pub(super) random: Arc<dyn Random>,
    pub(super) connections: Connections,
    pub(super) settings: Settings,
}

impl Environment {
    pub(super) fn new(
        crypto: Arc<dyn Crypto>,
        random: Arc<dyn Random>,
        connections: Vec<Connection>,
        settings: Settings,
    ) -> Self {
        let mut this = Self { crypto, random, connections: Connections::default(), settings };
        this.connections.replace(connections);
        this
    }

    pub(super) fn context<'a>(&'a self, now: Duration, shared: &'a mut Shared) -> Context<'a> {
        let Self { crypto, random, connections, settings } = self;
        Context { now, crypto: &**crypto, random: &**random, connections, settings, shared }
    }
}

/// Everything that a peer has access to during one call.
pub(super) struct Context<'a> {
    pub(super) now: Duration,
    pub(super) crypto: &'a dyn Crypto,
    pub(super) random: &'a dyn Random,
    pub(super) connections: &'a Connections,
    pub(super) settings: &'a Settings,
    shared: &'a mut Shared,
}

impl Context<'_> {
    /// Returns `duration` shortened at random by up to a tenth.
    pub(super) fn jittered(&self, duration: Duration) -> Duration {
        self.random.jittered(duration)
    }

    /// Returns a new SPI of ours for an IKE SA.
    pub(super) fn draw_spi(&mut self, peer: PeerId) -> u64 {
        loop {
            let mut random = [0; 8];
            self.random.fill(&mut random);
            let spi = u64::from_ne_bytes(random);
            // Zero is for one that is not known yet (RFC 7296 §3.1).
            if spi != 0 && !self.shared.spis.contains_key(&spi) {
                self.shared.spis.insert(spi, (peer, false));
                return spi;
            }
        }
    }

    /// Announces that messages with this SPI belong to a known peer from now on.
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

    /// Returns a new SPI of ours for a child SA; 1 to 255 are reserved (RFC 4303 §2.1).
    pub(super) fn draw_child_spi(&mut self) -> u32 {
        loop {
            let mut random = [0; 4];
            self.random.fill(&mut random);
            let spi = u32::from_ne_bytes(random);
            if spi > 255 && !self.shared.child_spis.contains_key(&spi) {
                self.shared.child_spis.insert(spi, false);
                return spi;
            }
        }
    }

    /// Announces that the peer may send by this SPI before we have the child SA, or no longer.
    pub(super) fn await_child(&mut self, spi: u32, awaited: bool) {
        let Some(known) = self.shared.child_spis.get_mut(&spi) else { return };
        if core::mem::replace(known, awaited) != awaited {
            self.tell(Event::ChildSpi { spi, awaited });
        }
    }

    pub(super) fn forget_child_spi(&mut self, spi: u32) {
        if let Some(true) = self.shared.child_spis.remove(&spi) {
            self.tell(Event::ChildSpi { spi, awaited: false });
        }
    }

    /// Counts a new child SA, and returns its number.
    pub(super) fn begin_child(&mut self) -> ChildId {
        self.shared.children += 1;
        self.shared.next_child += 1;
        ChildId(self.shared.next_child)
    }

    /// Returns the number of child SAs of all peers.
    pub(super) fn children(&self) -> usize {
        self.shared.children
    }

    pub(super) fn end_child(&mut self, child: ChildId, spi: u32) {
        self.forget_child_spi(spi);
        self.shared.children -= 1;
        self.tell(Event::ChildDown { child });
    }

    /// Queues a task for a peer at `from`.
    pub(super) fn start(&mut self, peer: PeerId, is_established: bool, from: IpAddr, task: Task) -> TaskId {
        self.shared.queue.push(peer, is_established, from, task)
    }

    /// Removes a task whose outcome nobody needs any more.
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

    /// Sends a message that nobody may cut.
    pub(super) fn send_whole(&mut self, addresses: Addresses, message: &[u8]) {
        self.transmit(Transmit { addresses, payload: Payload::Probe(message.to_vec()) });
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.shared.events.push_back(event);
    }

    pub(super) fn count(&mut self, counter: Counter) {
        self.shared.count(counter);
    }

    /// Returns the inner addresses that peers have.
    pub(super) fn leases(&mut self) -> &mut Leases {
        &mut self.shared.leases
    }

    pub(super) fn established(&mut self, new_peer: NewPeer) {
        self.count(Counter::Established);
        self.shared.new_peers.push(new_peer);
    }

    /// Returns the connected peer of this owner that has this address and port, so that it is the same
    /// device.
    pub(super) fn device(&self, owner: &Owner, remote: SocketAddr) -> Option<PeerId> {
        self.shared.devices.find(owner, remote)
    }

    /// Returns true if a connected peer leased this inner address.
    pub(super) fn has_leased(&self, peer: PeerId, inner: IpAddr) -> bool {
        self.shared.devices.has_leased(peer, inner)
    }

    /// Has the endpoint authenticate again to a peer that we connected to.
    pub(super) fn renew(&mut self, peer: PeerId) {
        self.shared.renewals.push(peer);
    }

    /// Returns true if a move of one of this principal's peers is followed before it is confirmed.
    pub(super) fn is_trusted(&self, principal: &Owner) -> bool {
        self.shared.doubts.is_trusted(self.now, principal, self.shared.connected.principals())
    }

    /// Returns true if one of these names is barred.
    pub(super) fn is_barred(&self, names: &BTreeSet<NameHash>) -> bool {
        self.shared.bars.has(self.now, names)
    }

    /// Returns when this owner's peers may be probed next.
    pub(super) fn next_probe_at(&self, owner: Option<&Owner>) -> Duration {
        owner.map_or(self.now, |owner| self.shared.doubts.next_probe_at(self.now, owner))
    }

    /// Records that a move was not confirmed; `followed` says that the gateway had followed it.
    pub(super) fn doubt(&mut self, name: Owner, followed: bool) {
        self.shared.doubts.fail(self.now, name, followed);
    }

    /// Records that a move is followed before it is confirmed.
    pub(super) fn follow(&mut self, principal: Owner) {
        self.shared.doubts.follow(principal);
    }

    /// Records that a move was confirmed; `followed` says that the gateway had followed it.
    pub(super) fn confirm(&mut self, name: &Owner, followed: bool) {
        self.shared.doubts.confirm(name, followed);
    }

    /// Charges a principal for a request for an SA or new keys; returns false if its budget is
    /// exhausted. The principal of all unnamed peers has the budget of all those connected.
    pub(super) fn admits_create(&mut self, principal: &Owner) -> bool {
        let peers =
            if principal.1.is_unnamed() { self.shared.connected.of_principal(principal).len() } else { 1 };
        self.shared.quotas.admits(self.now, principal, peers as u32)
    }

    pub(super) fn log_keys(&mut self, spis: [u64; 2], suite: &IkeSuite, keys: &IkeSaKeys) {
        if self.settings.log_keys {
            self.tell(Event::IkeSaKeys {
                spis,
                suite: suite.clone(),
                encr: [keys.ei.clone(), keys.er.clone()],
                integ: [keys.ai.clone(), keys.ar.clone()],
            });
        }
    }
}
