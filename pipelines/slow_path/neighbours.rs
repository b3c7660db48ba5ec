//! ARP (RFC 826) and neighbour discovery (RFC 4861) for all ports, as a state machine without I/O.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use wayfarer_dataplane::{
    port::Mac,
    table::Prefix,
    wire::{
        FormatError,
        arp::{Arp, Operation},
        ethernet::{self, Ethernet},
        ip::IpHeader,
        nd::{self, Neighbour},
    },
};

/// Time between two requests for an address (RFC 4861 §10, RETRANS_TIMER).
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// Requests before an address is given up.
const MAX_TRIES: u32 = 3;
/// Time for which an answer is valid before it is requested again (RFC 4861 §10, REACHABLE_TIME).
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// Most packets that wait for one address.
const MAX_QUEUE: usize = 16;
/// Most packets that wait for all addresses together.
const MAX_WAITING: usize = 2048;
/// Most addresses that are known or requested, so that a scan of a large subnet cannot fill memory.
const MAX_ENTRIES: usize = 8192;

/// The group of all nodes of a segment (RFC 4291 §2.7.1), and its MAC address.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// The gateway's side of the segment at a port.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The gateway's MAC address.
    pub mac: Mac,
    /// The gateway's addresses, each with its subnet.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// The way in which stations are found.
    pub stations: Stations,
}

/// The way in which a segment's stations are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stations {
    /// By ARP and neighbour discovery.
    Ask,
    /// There is only one, with this MAC address: the host's stack at the other end of a TAP device,
    /// or a file. The gateway answers it for every address.
    Only(Mac),
}

/// An IP packet that waits for its next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Index of the port that it came by, or [what stands for it](crate::gateway::input_port).
    pub from: u16,
    /// The packet.
    pub packet: Vec<u8>,
}

/// An action for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this frame by this port.
    Send {
        /// Index of the port.
        port: u16,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// The station has this MAC address from now on.
    Resolved {
        /// Index of the port.
        port: u16,
        /// The station's address.
        address: IpAddr,
        /// The station's MAC address.
        mac: Mac,
    },
    /// Send this IP packet, which waited for its next hop.
    Release(Vec<u8>),
    /// The station's MAC address is not known any more: the station does not answer, or it is no static
    /// neighbour any more. The packets that waited for it are lost.
    Failed {
        /// Index of the port.
        port: u16,
        /// The station's address.
        address: IpAddr,
        /// The packets.
        lost: Vec<Waiting>,
    },
}

#[derive(Debug)]
struct Entry {
    /// When it was first requested.
    since: Duration,
    mac: Option<Mac>,
    tries: u32,
    due: Duration,
    waiting: VecDeque<Waiting>,
}

impl Entry {
    fn new(now: Duration) -> Self {
        Self { since: now, mac: None, tries: 0, due: now, waiting: VecDeque::new() }
    }
}

/// A port's index, and the address of a station there.
type Key = (u16, IpAddr);

/// A neighbour whose MAC address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNeighbour {
    /// Index of the port.
    pub port: u16,
    /// The station's address.
    pub address: IpAddr,
    /// The station's MAC address.
    pub mac: Mac,
    /// True if the configuration says so, false if the station does.
    pub is_static: bool,
}

/// All neighbours of all ports.
#[derive(Debug)]
pub struct Neighbours {
    segments: Vec<Segment>,
    /// The MAC addresses that the configuration has. None of these stations has an entry.
    configured: BTreeMap<Key, Mac>,
    entries: BTreeMap<Key, Entry>,
    timers: BTreeSet<(Duration, Key)>,
    /// Addresses that no station has answered for, by the time of the first request.
    unanswered: BTreeSet<(Duration, Key)>,
    actions: VecDeque<Action>,
    /// Number of packets that wait in all entries.
    waiting: usize,
}

impl Neighbours {
    /// Starts without neighbours on `segments`, one for each port.
    pub fn new(segments: Vec<Segment>) -> Self {
        Self {
            segments,
            configured: BTreeMap::new(),
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            actions: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Returns the next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the number of packets that wait for their next hop, or for an action that is not polled yet.
    pub fn waiting(&self) -> usize {
        let pending = self.actions.iter().map(|action| match action {
            Action::Release(_) => 1,
            Action::Failed { lost, .. } => lost.len(),
            Action::Send { .. } | Action::Resolved { .. } => 0,
        });
        self.waiting + pending.sum::<usize>()
    }

    /// Returns when [`Neighbours::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(when, _)| *when)
    }

    /// Has these static neighbours from now on, and no others: stations with their ports, addresses and
    /// MAC addresses. Nobody is asked for them, and nothing that a station says changes them.
    pub fn configure(&mut self, all: impl IntoIterator<Item = (u16, IpAddr, Mac)>) {
        let new = all.into_iter().map(|(port, address, mac)| ((port, address), mac)).collect();
        let earlier = std::mem::replace(&mut self.configured, new);
        let gone = earlier.keys().filter(|key| !self.configured.contains_key(*key));
        let failed = |&(port, address): &Key| Action::Failed { port, address, lost: vec![] };
        self.actions.extend(gone.map(failed));
        let all = self.configured.iter().map(|(key, mac)| (*key, *mac));
        let changed: Vec<_> = all.filter(|(key, mac)| earlier.get(key) != Some(mac)).collect();
        for (key, mac) in changed {
            self.actions.push_back(Action::Resolved { port: key.0, address: key.1, mac });
            let waited = self.forget(key);
            self.actions.extend(waited.into_iter().map(|waiting| Action::Release(waiting.packet)));
        }
    }

    /// Begins anew on a port whose device is another one or has another MAC address: `mac`, which the
    /// stations are told. They are asked for theirs again; static neighbours stay.
    pub fn restart(&mut self, port: u16, mac: Mac, stations: Stations) {
        let Some(segment) = self.segments.get_mut(usize::from(port)) else { return };
        (segment.mac, segment.stations) = (mac, stations);
        if segment.stations == Stations::Ask {
            let own = segment.addresses.iter();
            let frames = own.map(|(own, _)| Action::Send { port, frame: announcement(mac, *own) });
            self.actions.extend(frames);
        }
        let known: Vec<Key> = self.entries.keys().filter(|(other, _)| *other == port).copied().collect();
        known.into_iter().for_each(|key| self.give_up(key));
    }

    /// Returns the neighbours whose MAC addresses are known: first those of the configuration, on ports that
    /// have more than one station.
    pub fn known(&self) -> impl Iterator<Item = KnownNeighbour> {
        let configured = self.configured.iter().filter(|((port, _), _)| self.asks(*port));
        let configured =
            configured.map(|(&(port, address), &mac)| KnownNeighbour { port, address, mac, is_static: true });
        configured.chain(self.entries.iter().filter_map(|(&(port, address), entry)| {
            Some(KnownNeighbour { port, address, mac: entry.mac?, is_static: false })
        }))
    }

    /// Returns true if stations on `port` are found by their addresses.
    fn asks(&self, port: u16) -> bool {
        self.segments.get(usize::from(port)).is_some_and(|segment| segment.stations == Stations::Ask)
    }

    /// Requests `address` on `port`; `packet` waits for the answer. Returns false if it cannot be
    /// kept. A static neighbour is not asked for. A host that scans a subnet crowds out its own requests:
    /// if there are too many, the oldest unanswered one is dropped (RFC 6583 §7.1).
    pub fn resolve(&mut self, now: Duration, port: u16, address: IpAddr, packet: Option<Waiting>) -> bool {
        let key = (port, address);
        if self.configured.contains_key(&key) {
            // The configuration named it while this packet was on its way here.
            self.actions.extend(packet.map(|packet| Action::Release(packet.packet)));
            return true;
        }
        if !self.entries.contains_key(&key) {
            if self.entries.len() >= MAX_ENTRIES && !self.drop_oldest_unanswered() {
                return false;
            }
            self.entries.insert(key, Entry::new(now));
            self.timers.insert((now, key));
            self.unanswered.insert((now, key));
        }
        if let (Some(entry), Some(packet)) = (self.entries.get_mut(&key), packet) {
            if entry.mac.is_some() {
                // The address was resolved while this packet was on its way here.
                self.actions.push_back(Action::Release(packet.packet));
            } else if entry.waiting.len() < MAX_QUEUE && self.waiting < MAX_WAITING {
                self.waiting += 1;
                entry.waiting.push_back(packet);
            } else {
                return false;
            }
        }
        self.handle_timeout(now);
        true
    }

    fn drop_oldest_unanswered(&mut self) -> bool {
        let Some(&(_, key)) = self.unanswered.first() else { return false };
        self.give_up(key);
        true
    }

    fn give_up(&mut self, key: Key) {
        if self.entries.contains_key(&key) {
            let lost = self.forget(key).into();
            self.actions.push_back(Action::Failed { port: key.0, address: key.1, lost });
        }
    }

    /// Removes what is known of a station by its own words. Returns the packets that waited for it.
    fn forget(&mut self, key: Key) -> VecDeque<Waiting> {
        let Some(entry) = self.entries.remove(&key) else { return VecDeque::new() };
        self.timers.remove(&(entry.due, key));
        self.unanswered.remove(&(entry.since, key));
        self.waiting -= entry.waiting.len();
        entry.waiting
    }

    /// Handles the timers due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(when, key)) = self.timers.first() {
            if when > now {
                return;
            }
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.tries == MAX_TRIES {
                self.give_up(key);
                continue;
            }
            entry.tries += 1;
            entry.due = now + RETRANS_TIMER;
            self.timers.insert((entry.due, key));
            let to = entry.mac;
            if let Some(frame) =
                self.segments.get(usize::from(key.0)).and_then(|segment| request(segment, key.1, to))
            {
                self.actions.push_back(Action::Send { port: key.0, frame });
            }
        }
    }

    /// Handles an ARP or neighbour discovery frame that arrived at `port`.
    ///
    /// # Errors
    /// If the frame is malformed.
    pub fn handle_frame(&mut self, now: Duration, port: u16, frame: &[u8]) -> Result<(), FormatError> {
        let ethernet = Ethernet::parse(frame)?;
        let body = &frame[ethernet::HEADER..];
        match ethernet.ethertype {
            ethernet::ARP => self.handle_arp(now, port, &Arp::parse(body)?),
            ethernet::IPV6 => {
                let header = IpHeader::parse(body)?;
                let message = Neighbour::parse(&header, body)?;
                self.handle_nd(now, port, ethernet.src, &header, &message);
            }
            _ => return Err(FormatError::Field),
        }
        Ok(())
    }

    fn handle_arp(&mut self, now: Duration, port: u16, arp: &Arp) {
        let target = IpAddr::from(arp.target);
        let asks_us =
            arp.operation == Operation::Request && self.answers_for(port, target, arp.sender.into());
        if !arp.sender.is_unspecified() {
            self.learn(now, port, arp.sender.into(), arp.sender_mac, asks_us);
        }
        if asks_us {
            let mac = self.segments[usize::from(port)].mac;
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: mac,
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            self.actions.push_back(Action::Send { port, frame: reply.frame(arp.sender_mac) });
        }
    }

    fn handle_nd(&mut self, now: Duration, port: u16, from: Mac, header: &IpHeader, message: &Neighbour) {
        if !message.solicitation {
            let target = message.target.into();
            // A solicited advertisement may leave out the MAC address (RFC 4861 §7.2.4).
            let known = || self.entries.get(&(port, target)).and_then(|entry| entry.mac);
            let confirmed = || if message.solicited { known() } else { None };
            if let Some(mac) = message.mac.or_else(confirmed) {
                self.learn(now, port, target, mac, false);
            }
            return;
        }
        let asks_us = self.answers_for(port, message.target.into(), header.src.into());
        let (IpAddr::V6(src), true) = (header.src.into(), asks_us) else { return };
        let ours = self.segments[usize::from(port)].mac;
        // Duplicate address detection has no sender to answer, so all nodes are told (RFC 4861
        // §7.2.4).
        let (dst, dst_mac, solicited) = if src.is_unspecified() {
            (ALL_NODES, ALL_NODES_MAC, false)
        } else {
            if let Some(mac) = message.mac {
                self.learn(now, port, header.src.into(), mac, true);
            }
            (src, message.mac.unwrap_or(from), true)
        };
        let reply = Neighbour { solicitation: false, target: message.target, mac: Some(ours), solicited };
        let frame = reply.frame(ours, message.target, dst_mac, dst);
        self.actions.push_back(Action::Send { port, frame });
    }

    /// Returns true if the gateway answers a request of `asker` for `target` on `port`.
    fn answers_for(&self, port: u16, target: IpAddr, asker: IpAddr) -> bool {
        let Some(segment) = self.segments.get(usize::from(port)) else { return false };
        match segment.stations {
            Stations::Ask => segment.addresses.iter().any(|(own, _)| *own == target),
            Stations::Only(_) => !asker.is_unspecified() && asker != target,
        }
    }

    /// Records the MAC address of a station: if it was requested, or if a station of one of the
    /// segment's subnets asks for the gateway (RFC 826). Nobody else can fill the table. What the
    /// configuration says of a station holds, whatever the station says.
    fn learn(&mut self, now: Duration, port: u16, address: IpAddr, mac: Mac, asks_us: bool) {
        let key = (port, address);
        let Some(segment) = self.segments.get(usize::from(port)) else { return };
        let is_own = || segment.addresses.iter().any(|(own, _)| *own == address);
        if segment.stations != Stations::Ask || self.configured.contains_key(&key) || is_own() {
            return;
        }
        let on_segment = segment.addresses.iter().any(|(_, subnet)| subnet.contains(address));
        let may_enter = asks_us && on_segment && self.entries.len() < MAX_ENTRIES;
        if !may_enter && !self.entries.contains_key(&key) {
            return;
        }
        let entry = self.entries.entry(key).or_insert_with(|| Entry::new(now));
        self.unanswered.remove(&(entry.since, key));
        self.timers.remove(&(entry.due, key));
        entry.tries = 0;
        entry.due = now + REACHABLE_TIME;
        self.timers.insert((entry.due, key));
        if entry.mac.replace(mac) != Some(mac) {
            self.actions.push_back(Action::Resolved { port, address, mac });
        }
        self.waiting -= entry.waiting.len();
        self.actions.extend(entry.waiting.drain(..).map(|waiting| Action::Release(waiting.packet)));
    }
}

/// Returns the frame that requests `address`, sent to its last MAC address `to` if that must be
/// confirmed; `None` if the segment has no address of the same family.
fn request(segment: &Segment, address: IpAddr, to: Option<Mac>) -> Option<Vec<u8>> {
    let same_family = || segment.addresses.iter().filter(|(own, _)| own.is_ipv4() == address.is_ipv4());
    let own = same_family().find(|(_, subnet)| subnet.contains(address)).or_else(|| same_family().next());
    match (own.map(|(own, _)| *own), address) {
        (Some(IpAddr::V4(sender)), IpAddr::V4(target)) => Some(arp_request(segment.mac, sender, target, to)),
        (Some(IpAddr::V6(sender)), IpAddr::V6(target)) => {
            let (group, group_mac) = nd::solicited_node(target);
            let message = Neighbour { solicitation: true, target, mac: Some(segment.mac), solicited: false };
            let (dst, dst_mac) = to.map_or((group, group_mac), |mac| (target, mac));
            Some(message.frame(segment.mac, sender, dst_mac, dst))
        }
        _ => None,
    }
}

/// Returns the frame that tells all stations of a segment that `own` has the address `mac`: an ARP
/// announcement (RFC 5227 §3) or an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
fn announcement(mac: Mac, own: IpAddr) -> Vec<u8> {
    match own {
        IpAddr::V4(own) => arp_request(mac, own, own, None),
        IpAddr::V6(own) => {
            let message = Neighbour { solicitation: false, target: own, mac: Some(mac), solicited: false };
            message.frame(mac, own, ALL_NODES_MAC, ALL_NODES)
        }
    }
}

fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr, to: Option<Mac>) -> Vec<u8> {
    let arp = Arp { operation: Operation::Request, sender_mac: mac, sender, target_mac: [0; 6], target };
    arp.frame(to.unwrap_or(ethernet::BROADCAST))
}

#[cfg(test)]
mod tests;
