//! One worker's queue of a device, and the ports that share it.

use super::tagging::{Priority, Tagging, put_back};
use crate::{
    packet::{BURST, Burst, Packet},
    pool::{Pool, Returned},
    port::{Port, PortStats},
    wire::{
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
        vlan::{self, Membership, Tags, Vlan, cut_tags},
    },
};

/// The position of the class selector in a traffic class (RFC 2474 §4.2.2), and of the DSCP.
const SELECTOR: u32 = 5;
/// The bits of a traffic class that are not its DSCP (RFC 3168 §5).
const ECN: u8 = 3;

/// A queue and what its ports have not fetched yet.
pub(super) struct Trunk {
    pub(super) device: Box<dyn Port>,
    ports: Vec<Member>,
    /// The index of the port in each VLAN, sorted.
    by_vlan: Vec<(Vlan, usize)>,
    /// The index of the port in no VLAN.
    untagged: Option<usize>,
    /// `true` if the device puts tags on frames itself.
    inserts_tags: bool,
    is_attached: bool,
    /// `true` if the device had nothing. Then only the first port asks it again: so it is asked once a
    /// turn, however many ports it has, and all others get their frames in the same turn.
    is_idle: bool,
    /// Frames of VLANs that no port has.
    foreign: u64,
}

/// One of the ports.
struct Member {
    tagging: Option<Tagging>,
    /// Frames that a poll for another port brought, without tags.
    waiting: Burst,
    /// `true` once its worker uses another port in its place.
    is_retired: bool,
    /// Its packets, without their tags. `tx_errors` are those that the device refused.
    stats: PortStats,
    /// Packets without room for tags.
    unfit: u64,
}

impl Member {
    /// Returns the length of the tags of all packets sent, in bytes.
    fn tag_bytes(&self) -> u64 {
        self.tagging.map_or(0, |tagging| tagging.vlan.tags() as u64) * self.stats.tx_packets
    }
}

impl Trunk {
    pub(super) fn new(device: Box<dyn Port>, taggings: &[Option<Tagging>]) -> Self {
        let member = |tagging: &Option<Tagging>| Member {
            tagging: *tagging,
            waiting: Burst::new(),
            is_retired: false,
            stats: PortStats::default(),
            unfit: 0,
        };
        let vlans =
            taggings.iter().enumerate().filter_map(|(at, tagging)| Some((tagging.as_ref()?.vlan, at)));
        let mut by_vlan: Vec<_> = vlans.collect();
        by_vlan.sort_unstable();
        Self {
            inserts_tags: device.inserts_tags(),
            device,
            ports: taggings.iter().map(member).collect(),
            by_vlan,
            untagged: taggings.iter().position(Option::is_none),
            is_attached: false,
            is_idle: false,
            foreign: 0,
        }
    }

    /// Attaches the device. Each of its ports calls this, on their worker's thread.
    pub(super) fn attach(&mut self) {
        if !std::mem::replace(&mut self.is_attached, true) {
            self.device.attach();
        }
    }

    /// Gives port `index` what waits for it, or else what the device has.
    pub(super) fn rx(&mut self, index: usize, pool: &mut Pool, burst: &mut Burst) {
        let had = burst.len();
        let room = burst.room();
        burst.extend(self.ports[index].waiting.take(room));
        if burst.len() == had && self.may_poll(index) {
            self.poll(index, pool, burst);
        }
        let stats = &mut self.ports[index].stats;
        burst[had..].iter().for_each(|packet| stats.received(packet));
    }

    fn may_poll(&self, index: usize) -> bool {
        let is_first = self.ports[..index].iter().all(|port| port.is_retired);
        (is_first || !self.is_idle) && self.ports.iter().all(|port| port.waiting.is_empty())
    }

    /// Reads a burst of the device for port `index`, and lets frames of other ports wait.
    fn poll(&mut self, index: usize, pool: &mut Pool, burst: &mut Burst) {
        let mut received = Burst::new();
        self.device.rx(pool, &mut received);
        self.is_idle = received.is_empty();
        for mut packet in received.take(BURST) {
            match self.sort(&mut packet) {
                Some(to) if to == index && burst.room() > 0 => burst.push(packet),
                Some(to) if !self.ports[to].is_retired => self.ports[to].waiting.push(packet),
                Some(to) => {
                    self.ports[to].stats.rx_missed += 1;
                    pool.give(packet);
                }
                None => {
                    self.foreign += 1;
                    pool.give(packet);
                }
            }
        }
    }

    /// Returns the port of a received frame, and takes off the tags of its VLAN. Returns `None` if the
    /// frame is no port's.
    fn sort(&self, packet: &mut Packet) -> Option<usize> {
        if let Some(tag) = packet.take_tag() {
            if let Some(index) = self.port_of_tag(tag, packet) {
                self.accept(packet, index, vlan::priority(tag));
                return Some(index);
            }
            // A foreign frame has all its tags.
            put_back(packet, ethernet::VLAN, tag)?;
        }
        let tags = Tags::read(packet.data());
        let Membership::Of(vlan) = tags.vlan else { return self.untagged };
        let Some(index) = self.port_in(vlan) else { return self.untagged };
        untag(packet, tags.length);
        self.accept(packet, index, tags.priority);
        Some(index)
    }

    /// Returns the port that is in a VLAN.
    fn port_in(&self, vlan: Vlan) -> Option<usize> {
        let at = self.by_vlan.binary_search_by_key(&vlan, |(vlan, _)| *vlan).ok()?;
        Some(self.by_vlan[at].1)
    }

    /// Returns the port in the VLAN of a tag that the device has taken off, if the frame has no other tag.
    fn port_of_tag(&self, tag: u16, packet: &Packet) -> Option<usize> {
        let index = self.port_in(Vlan::of_tag(tag)?)?;
        (Tags::read(packet.data()).length == 0).then_some(index)
    }

    /// Gives a frame without tags, which had this priority, what port `index` wants of it.
    fn accept(&self, packet: &mut Packet, index: usize, priority: u8) {
        if self.ports[index].tagging.is_some_and(|tagging| tagging.sets_dscp) {
            set_dscp(packet, priority);
        }
    }

    /// Sends packets of port `index`. Those that the device does not take stay, without tags.
    pub(super) fn tx(&mut self, index: usize, pool: &mut Pool, burst: &mut Burst) {
        let bytes = |burst: &Burst| burst.iter().map(|packet| packet.len() as u64).sum::<u64>();
        if let Some(tagging) = self.ports[index].tagging {
            self.ports[index].unfit += refuse_unfit(burst, tagging, pool);
        }
        let (packets_before, bytes_before) = (burst.len() as u64, bytes(burst));
        if let Some(tagging) = self.ports[index].tagging {
            // Devices differ in what they take for an outer tag.
            let is_beside = self.inserts_tags && tagging.vlan.outer().is_none();
            burst.iter_mut().for_each(|packet| tag(packet, tagging, is_beside));
        }
        let refused_before = self.device.refused();
        self.device.tx(pool, burst);
        let refused = self.device.refused() - refused_before;
        if let Some(tagging) = self.ports[index].tagging {
            for packet in burst.iter_mut() {
                if packet.take_tag().is_none() {
                    untag(packet, tagging.vlan.tags());
                }
            }
        }
        let stats = &mut self.ports[index].stats;
        stats.tx_packets += packets_before - burst.len() as u64 - refused;
        stats.tx_errors += refused;
        stats.tx_bytes += bytes_before - bytes(burst);
        if refused > 0 {
            // Only the device knows how long those were that it has sent, with their tags.
            let by_others: u64 = self.others(index).map(|port| port.stats.tx_bytes + port.tag_bytes()).sum();
            let own_tags = self.ports[index].tag_bytes();
            let all = self.device.stats().tx_bytes;
            self.ports[index].stats.tx_bytes = all.saturating_sub(by_others + own_tags);
        }
    }

    /// Returns the frames that wait for port `index`. From now on those that come for it are lost.
    pub(super) fn retire(&mut self, index: usize) -> Returned {
        let port = &mut self.ports[index];
        port.is_retired = true;
        port.stats.rx_missed += port.waiting.len() as u64;
        Returned::of(&mut port.waiting)
    }

    /// Closes the device, once all ports are retired. Returns the frames that it held.
    pub(super) fn close(self) -> Returned {
        self.device.close()
    }

    pub(super) fn is_exhausted(&self, index: usize) -> bool {
        self.ports[index].waiting.is_empty() && self.device.is_exhausted()
    }

    fn others(&self, index: usize) -> impl Iterator<Item = &Member> {
        self.ports.iter().enumerate().filter(move |(at, _)| *at != index).map(|(_, port)| port)
    }

    /// Returns how many packets of port `index` were refused for good. What the device refuses without
    /// being given a packet, such as a file's last bytes, is the first port's.
    pub(super) fn refused(&self, index: usize) -> u64 {
        let by_device = match index {
            0 => self.device.refused().saturating_sub(self.others(0).map(|port| port.stats.tx_errors).sum()),
            _ => self.ports[index].stats.tx_errors,
        };
        by_device + self.ports[index].unfit
    }

    /// Returns the counters of port `index`. The first one has the device's losses too.
    pub(super) fn stats(&self, index: usize) -> PortStats {
        let own = PortStats { tx_errors: self.refused(index), ..self.ports[index].stats };
        if index > 0 {
            return own;
        }
        let PortStats { rx_missed, rx_errors, rx_oversize, .. } = self.device.stats();
        PortStats {
            rx_missed: own.rx_missed + rx_missed,
            rx_errors,
            rx_oversize,
            rx_foreign: self.foreign,
            ..own
        }
    }
}

impl Drop for Member {
    /// The frames that still wait are lost to their pool, as those in a device's rings are.
    fn drop(&mut self) {
        self.waiting.forget();
    }
}

/// Frees the packets of `burst` that have no Ethernet header or no room for tags, and returns their
/// number.
fn refuse_unfit(burst: &mut Burst, tagging: Tagging, pool: &mut Pool) -> u64 {
    let is_unfit =
        |packet: &Packet| packet.len() < ethernet::HEADER || packet.headroom() < tagging.vlan.tags();
    let mut unfit = 0;
    while let Some(at) = burst.iter().position(is_unfit) {
        pool.give(burst.remove(at));
        unfit += 1;
    }
    unfit
}

/// Puts tags into a frame that has room for them, or one beside its data.
fn tag(packet: &mut Packet, tagging: Tagging, is_beside: bool) {
    let priority = match tagging.priority {
        Priority::Fixed(priority) => priority,
        Priority::Dscp => ip_header(packet.data()).map_or(0, |header| header.traffic_class >> SELECTOR),
    };
    if is_beside {
        packet.set_tag(tagging.vlan.tag(priority));
    } else if packet.push_front(tagging.vlan.tags()).is_some() {
        tagging.vlan.put_tags(packet.data_mut(), priority);
    }
}

/// Takes the first `length` bytes of tags off a frame.
fn untag(packet: &mut Packet, length: usize) {
    cut_tags(packet.data_mut(), length);
    // This cannot fail: the frame has these tags.
    let _ = packet.pull_front(length);
}

/// Returns the IP header of a frame without tags, if it has a valid one.
fn ip_header(frame: &[u8]) -> Option<IpHeader> {
    let ethertype = Ethernet::parse(frame).ok()?.ethertype;
    let header = IpHeader::parse(&frame[ethernet::HEADER..]).ok()?;
    let version = if header.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    (ethertype == version).then_some(header)
}

/// Sets the DSCP of an IP packet to the class selector `priority`. In ESP the peer's decides.
fn set_dscp(packet: &mut Packet, priority: u8) {
    if let Some(header) = ip_header(packet.data())
        && header.protocol != protocol::ESP
    {
        let class = priority << SELECTOR | header.traffic_class & ECN;
        ip::set_traffic_class(&mut packet.data_mut()[ethernet::HEADER..], class);
    }
}
