//! The state that the control socket shows, and its commands.

use super::{
    SlowPath,
    counters::SlowPathCounters,
    handles::{PortHandle, WorkerHandle},
    home_agent::HomeAgent,
    ike::{Ike, PeerError},
    neighbours::KnownNeighbour,
    network::Network,
    tunnels::Tunnel,
};
use crate::control::protocol::{
    Answer, Command, CounterView, DeviceCounter, DropView, NeighbourView, Outcome, PeerView, PortView, Reply,
    SaCounters, SaView, VERSION, View, WorkerView,
};
use crossbeam::channel::Sender;
use std::time::Duration;
use wayfarer_dataplane::{
    drop::{DropReason, Severity},
    port::{
        Mac, PortStats,
        monitor::{DeviceState, Monitor},
    },
    sa::{Encap, Mode, Path},
};

impl SlowPath {
    /// Carries out a command, and answers it: at once, or when its outcome is known.
    pub(super) fn answer(&mut self, now: Duration, command: Command, to: Sender<Answer>) {
        let outcome = match command {
            Command::Show { what } => Outcome::Result(match what {
                View::Sa => Reply::Sa(self.links.tunnels().iter().map(|(_, t)| sa(now, t)).collect()),
                View::Ports => Reply::Ports(self.ports_view()),
                View::Neighbours => Reply::Neighbours(self.neighbours_view()),
                View::Workers => Reply::Workers(self.workers_view()),
                View::SlowPath => Reply::SlowPath(self.slow_path_view()),
                View::Drops => Reply::Drops(self.drops_view()),
                View::Peers => Reply::Peers(self.peers_view(now)),
                View::FailedPeers => {
                    let failed = |ike: &Ike| ike.failed_view(now);
                    Reply::FailedPeers(self.ike.as_ref().map(failed).unwrap_or_default())
                }
                View::Bars => {
                    let bars = |ike: &Ike| ike.bars_view(now);
                    Reply::Bars(self.ike.as_ref().map(bars).unwrap_or_default())
                }
                View::HomeAgents => Reply::HomeAgents(self.home_agents.view(&self.links)),
                View::Bindings => {
                    Reply::Bindings(self.home_agent.as_ref().map(HomeAgent::view).unwrap_or_default())
                }
                View::Nat => Reply::Nat(self.nats.view(&self.network)),
                View::Ike => Reply::Ike(self.ike.as_ref().map(Ike::counters_view).unwrap_or_default()),
            }),
            Command::SaMove { tunnel, remote, port } => {
                to_outcome(self.links.move_by_hand(now, &tunnel, remote, port))
            }
            Command::PeerDown { peer, bar_ms } => {
                let bar = bar_ms.map(Duration::from_millis);
                to_outcome(self.with_ike(now, |ike, _| ike.down(now, &peer, bar)))
            }
            Command::PeerUnbar { identity } => {
                to_outcome(self.with_ike(now, |ike, _| ike.unbar(now, &identity)))
            }
            Command::PeerRekey { peer, ike } => {
                to_outcome(self.with_ike(now, |driver, _| driver.rekey(now, &peer, ike)))
            }
            Command::PeerMove { peer, local } => {
                let client = to.clone();
                match self.with_ike(now, |ike, network| ike.move_to(now, &peer, local, network, client)) {
                    Ok(()) => return,
                    Err(why) => Outcome::Error(why.to_string()),
                }
            }
            Command::Reload => Outcome::Error("the slow path reads no files".to_owned()),
        };
        // The client may be gone by now.
        let _ = to.send(Answer { version: VERSION, outcome });
    }

    fn peers_view(&self, now: Duration) -> Vec<PeerView> {
        self.ike.as_ref().map(|ike| ike.peers_view(now, self.links.tunnels())).unwrap_or_default()
    }

    /// Runs `act` on IKE, and carries out the result.
    fn with_ike(
        &mut self,
        now: Duration,
        act: impl FnOnce(&mut Ike, &Network) -> Result<(), PeerError>,
    ) -> Result<(), PeerError> {
        act(self.ike.as_mut().ok_or(PeerError::NoIke)?, &self.network)?;
        self.handle_ike(now);
        Ok(())
    }

    fn ports_view(&self) -> Vec<PortView> {
        let view = |(index, port): (usize, &PortHandle)| {
            let all = self.workers.iter().map(|w| w.counters.ports[index].stats());
            let sum = |field: fn(&PortStats) -> u64| all.clone().map(|s| field(&s)).sum();
            let state = port.monitor.as_ref().map(|monitor| monitor.state());
            PortView {
                port: port.name.clone(),
                kind: port.kind.clone(),
                device: device_name(port, state.as_ref()),
                mac: mac_text(port.segment.mac),
                mtu: port.mtu,
                device_mtu: state.as_ref().and_then(|s| s.mtu),
                addresses: port
                    .segment
                    .addresses
                    .iter()
                    .map(|(own, subnet)| format!("{own}/{}", subnet.length()))
                    .collect(),
                neighbours: self.neighbours.known().filter(|known| usize::from(known.port) == index).count(),
                rx_packets: sum(|s| s.rx_packets),
                rx_bytes: sum(|s| s.rx_bytes),
                rx_missed: sum(|s| s.rx_missed) + state.as_ref().map_or(0, |s| s.rx_missed),
                rx_errors: sum(|s| s.rx_errors) + state.as_ref().map_or(0, |s| s.rx_errors),
                rx_oversize: sum(|s| s.rx_oversize),
                rx_foreign: sum(|s| s.rx_foreign),
                tx_packets: sum(|s| s.tx_packets),
                tx_bytes: sum(|s| s.tx_bytes),
                tx_errors: sum(|s| s.tx_errors) + state.as_ref().map_or(0, |s| s.tx_errors),
                link: state.as_ref().map(|s| device_state(s).to_owned()),
                speed_mbps: state.as_ref().and_then(|s| s.speed),
                full_duplex: state.as_ref().and_then(|s| s.full_duplex),
                promiscuous: state.as_ref().map(|s| s.is_promiscuous),
                counters: port.monitor.as_ref().map_or_else(Vec::new, |monitor| device_counters(&**monitor)),
            }
        };
        self.network.ports.iter().enumerate().map(view).collect()
    }

    fn neighbours_view(&self) -> Vec<NeighbourView> {
        let view = |known: KnownNeighbour| NeighbourView {
            port: self.network.ports[usize::from(known.port)].name.clone(),
            address: known.address.to_string(),
            mac: mac_text(known.mac),
            origin: if known.is_static { "static" } else { "learned" }.to_owned(),
        };
        let mut all: Vec<_> = self.neighbours.known().collect();
        all.sort_unstable_by_key(|known| (known.port, known.address));
        all.into_iter().map(view).collect()
    }

    fn workers_view(&self) -> Vec<WorkerView> {
        let view = |(worker, handle): (usize, &WorkerHandle)| {
            let c = &handle.counters;
            WorkerView {
                worker,
                core: handle.core,
                received: c.received.value(),
                opened: c.opened.value(),
                opened_bytes: c.opened_bytes.value(),
                sealed: c.sealed.value(),
                sealed_bytes: c.sealed_bytes.value(),
                sent: c.sent.value(),
                made: c.made.value(),
                consumed: c.consumed.value(),
                waiting: c.waiting.value(),
                dropped: c.dropped(),
                flow_hits: c.flow_hits.value(),
                flow_misses: c.flow_misses.value(),
                punted: c.punted.value(),
                injected: c.injected.value(),
                turns: c.turns.value(),
                idle_turns: c.idle_turns.value(),
                cpu_s: c.cpu_ns.value() as f64 / 1e9,
                free_frames: c.free_frames.value(),
                faults: c.faults.value(),
            }
        };
        self.workers.iter().enumerate().map(view).collect()
    }

    /// Returns the slow path's counters.
    pub fn counters(&self) -> &SlowPathCounters {
        &self.counters
    }

    /// Returns how many packets came from workers and from sockets or were made, less those whose end was
    /// counted and those that wait. It is zero whenever the slow path is not at work.
    pub fn unaccounted(&self) -> i64 {
        self.counters.unaccounted(self.waiting())
    }

    /// Returns the number of packets that wait for the MAC address of their next hop or for their SA.
    fn waiting(&self) -> usize {
        self.neighbours.waiting() + self.links.early_packets()
    }

    fn slow_path_view(&self) -> Vec<CounterView> {
        let c = &self.counters;
        let all: [(&str, u64, &str); 8] = [
            ("punted", c.punted.value(), "frames taken from workers"),
            ("received", c.received.value(), "copies of frames taken from devices that the kernel shares"),
            ("made", c.made.value(), "packets made: messages of IKE, ARP, neighbour discovery, ICMP, probes"),
            ("injected", c.injected.value(), "frames handed to workers"),
            ("sent", c.sent.value(), "frames sent by devices that the kernel shares, past the workers"),
            ("consumed", c.consumed.value(), "packets for the slow path itself"),
            ("dropped", c.drops.total(), "packets dropped, which `wayfarer show drops` has by reason"),
            ("waiting", self.waiting() as u64, "packets that wait for a MAC address or an SA"),
        ];
        let view = |(name, count, meaning): (&str, u64, &str)| CounterView {
            name: name.to_owned(),
            count,
            meaning: meaning.to_owned(),
        };
        all.into_iter().map(view).collect()
    }

    fn drops_view(&self) -> Vec<DropView> {
        let view = |&reason: &DropReason| {
            let by_workers: u64 = self.workers.iter().map(|w| w.counters.drops.of(reason)).sum();
            DropView {
                reason: reason.name().to_owned(),
                severity: match reason.severity() {
                    Severity::Info => "info",
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                }
                .to_owned(),
                packets: by_workers + self.counters.drops.of(reason),
                meaning: reason.meaning().to_owned(),
            }
        };
        DropReason::ALL.iter().map(view).chain(self.port_losses()).collect()
    }

    /// Returns what the ports lost before a worker saw it, or after a worker had sent it, as drops of all
    /// ports together.
    fn port_losses(&self) -> impl Iterator<Item = DropView> {
        let ports = self.ports_view();
        let sum = |count: fn(&PortView) -> u64| ports.iter().map(count).sum();
        let monitors = self.network.ports.iter().filter_map(|port| port.monitor.as_ref());
        // What devices refused at once is among the workers' drops.
        let unsent: u64 = monitors.map(|monitor| monitor.state().tx_errors).sum();
        let all: [(&str, &str, u64, &str); 5] = [
            (
                "PortMissed",
                "warning",
                sum(|port| port.rx_missed),
                "lost by a port, because its ring was full or no frame was free",
            ),
            (
                "PortErrors",
                "warning",
                sum(|port| port.rx_errors),
                "received by a port, but not usable, for example cut short",
            ),
            (
                "PortOversize",
                "warning",
                sum(|port| port.rx_oversize),
                "received by a port, but longer than a frame",
            ),
            (
                "PortForeign",
                "info",
                sum(|port| port.rx_foreign),
                "received in a VLAN, or in none, that no port of the device has",
            ),
            ("PortUnsent", "warning", unsent, "taken by a device of DPDK, which could then not send it"),
        ];
        all.into_iter().map(|(reason, severity, packets, meaning)| DropView {
            reason: reason.to_owned(),
            severity: severity.to_owned(),
            packets,
            meaning: meaning.to_owned(),
        })
    }
}

/// Returns a MAC address as people write it.
pub(super) fn mac_text([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Returns the name that a port's device has now, or the one of the device that the port waits for.
fn device_name(port: &PortHandle, state: Option<&DeviceState>) -> Option<String> {
    let waits = state.is_some_and(|state| state.is_gone);
    let awaited = port.reopener.as_ref().filter(|_| waits).map(|reopener| reopener.device.clone());
    let present = state.and_then(|state| state.name.clone());
    present.or(awaited).or_else(|| port.device_name.clone())
}

/// Returns the state of a device in one word.
fn device_state(state: &DeviceState) -> &'static str {
    match state {
        DeviceState { is_gone: true, .. } => "gone",
        DeviceState { is_up: true, .. } => "up",
        _ => "down",
    }
}

fn device_counters(monitor: &dyn Monitor) -> Vec<DeviceCounter> {
    monitor.counters().into_iter().map(|(name, value)| DeviceCounter { name, value }).collect()
}

fn to_outcome(result: Result<(), impl ToString>) -> Outcome {
    match result {
        Ok(()) => Outcome::Result(Reply::Done),
        Err(why) => Outcome::Error(why.to_string()),
    }
}

fn sa(now: Duration, t: &Tunnel) -> SaView {
    let count = |a: &std::sync::atomic::AtomicU64| a.load(std::sync::atomic::Ordering::Relaxed);
    let (in_packets, in_bytes) = t.inbound.life.carried();
    let (out_packets, out_bytes) = t.outbound.life.carried();
    let (path_mtu, path_mtu_source) = t.path_limit().map(|(mtu, by)| (mtu, by.to_string())).unzip();
    SaView {
        tunnel: t.name.to_string(),
        mode: match t.inbound.mode {
            Mode::Tunnel => "tunnel",
            Mode::Transport => "transport",
        }
        .to_owned(),
        state: match (t.is_expired(), t.path()) {
            (true, _) => "expired",
            (false, None) => "waiting",
            (false, Some(_)) => "up",
        }
        .to_owned(),
        local: t.local().to_string(),
        remote: t.path().as_ref().map(remote_end),
        encap: t.path().map(|p| if p.encap == Encap::None { "esp" } else { "udp" }.to_owned()),
        seen: t.seen().map(remote_end),
        path_mtu,
        path_mtu_source,
        moves: t.moves(),
        last_move_s: t.moved_at().map(|at| now.saturating_sub(at).as_secs_f64()),
        age_s: now.saturating_sub(t.since).as_secs_f64(),
        inbound: SaCounters {
            spi: t.inbound.spi.to_string(),
            cipher: t.inbound.key.suite().to_string(),
            sequence: t.inbound.window.top(),
            packets: in_packets,
            bytes: in_bytes,
        },
        outbound: SaCounters {
            spi: t.outbound.spi.to_string(),
            cipher: t.outbound.key.suite().to_string(),
            sequence: t.outbound.sequence(),
            packets: out_packets,
            bytes: out_bytes,
        },
        replayed: count(&t.inbound.refused.replayed),
        forged: count(&t.inbound.refused.forged),
        selector: count(&t.inbound.refused.selector),
        soft_reports: t.soft_reports(),
        hard_reports: t.hard_reports(),
    }
}

fn remote_end(path: &Path) -> String {
    let [_, remote] = path.ends();
    remote
}
