//! The measured gateway in two sizes: its IKE endpoint alone, and the whole gateway turned by hand.

use super::{BenchError, world::World};
use crate::{
    bench::processor_time,
    config::{frame_size, model::Config},
    gateway::worker::Worker,
    launch::{Assembly, WorkerResources},
    primitives::{OsRandom, Primitives},
    sim::{
        fixtures::{OUTSIDE, two_ports},
        frames::to_gateway,
        ike::side::{reversed, run_tasks},
    },
    slow_path::{SlowPath, ike::datagram},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    pool,
    port::memory::{self, Wire},
    wire::ethernet,
};
use wayfarer_mobility::{
    ike::{endpoint::Endpoint, event::Event, pool::Pool, settings::Settings},
    transmit::{Payload, Transmit},
};

/// Frames on each wire.
const DEPTH: usize = 1024;

/// A gateway that answers terminals.
pub(super) trait Serve {
    /// Returns the gateway's time.
    fn now(&self) -> Duration;

    /// Receives terminals' messages, and returns those that the gateway sends.
    fn serve(&mut self, up: &[Transmit]) -> Vec<Transmit>;
}

/// An endpoint without a gateway around it. Its tasks run in the caller's thread.
#[derive(Debug)]
pub(super) struct ProtocolOnly {
    pub(super) endpoint: Endpoint,
    pub(super) now: Duration,
    /// Processor time of the endpoint and its tasks so far.
    pub(super) cpu: Duration,
    /// Moves of peers that the endpoint reported.
    pub(super) moves: u64,
    /// Peers whose liveness the endpoint wanted checked.
    pub(super) liveness_checks: u64,
}

impl ProtocolOnly {
    pub(super) fn new(world: &World, liveness: Option<Duration>) -> Self {
        let [first, last] = World::pool();
        let (pools, connections) = (vec![Pool::new(first, last)], world.connections(liveness));
        Self {
            endpoint: Endpoint::new(
                Arc::new(Primitives),
                Arc::new(OsRandom),
                connections,
                pools,
                Settings::default(),
            ),
            now: Duration::from_secs(1),
            cpu: Duration::ZERO,
            moves: 0,
            liveness_checks: 0,
        }
    }

    /// Lets `time` pass; every peer whose liveness is due counts as heard.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        let start = processor_time();
        while self.endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
            self.endpoint.handle_timeout(self.now);
            self.work();
        }
        self.cpu += processor_time().saturating_sub(start);
    }

    fn work(&mut self) {
        run_tasks(&mut self.endpoint, self.now);
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::PeerMoved { .. } => self.moves += 1,
                Event::LivenessDue { peer } => {
                    self.liveness_checks += 1;
                    self.endpoint.handle_liveness(self.now, peer, true);
                }
                _ => {}
            }
        }
    }
}

impl Serve for ProtocolOnly {
    fn now(&self) -> Duration {
        self.now
    }

    fn serve(&mut self, up: &[Transmit]) -> Vec<Transmit> {
        let start = processor_time();
        for Transmit { addresses, payload } in up {
            let Payload::Message(message) = payload else { continue };
            self.endpoint.handle_datagram(self.now, reversed(*addresses), message);
        }
        self.work();
        let down = std::iter::from_fn(|| self.endpoint.poll_transmit()).collect();
        self.cpu += processor_time().saturating_sub(start);
        down
    }
}

/// Worker, slow path and tables, on ports of memory.
#[derive(Debug)]
pub(super) struct WholeGateway {
    pub(super) slow_path: SlowPath,
    worker: Worker,
    outside: Wire,
    start: Instant,
    /// Processor time of the slow path so far, without its helpers.
    pub(super) slow_cpu: Duration,
    /// Processor time of the worker so far.
    pub(super) worker_cpu: Duration,
}

impl WholeGateway {
    pub(super) fn new(config: &Config) -> Result<Self, BenchError> {
        let frame_size = frame_size(config);
        let (outside, wire) = memory::pair(DEPTH, frame_size);
        let (inside, _) = memory::pair(1, 64);
        let pool = pool::Pool::new(config.gateway.frames, frame_size);
        let resources = WorkerResources { pool: pool.map_err(BenchError::Memory)?, core: None };
        let ports = two_ports([vec![Box::new(outside)], vec![Box::new(inside)]]);
        let start = Instant::now();
        let Assembly { slow_path, workers, .. } =
            Assembly::new(config, vec![resources], ports).map_err(BenchError::Start)?;
        let (worker, _) = workers.into_iter().next().ok_or(BenchError::Stuck("the gateway has no worker"))?;
        Ok(Self {
            slow_path,
            worker,
            outside: wire,
            start,
            slow_cpu: Duration::ZERO,
            worker_cpu: Duration::ZERO,
        })
    }

    /// Returns how often its tunnels moved.
    pub(super) fn moves(&self) -> u64 {
        self.slow_path.tunnels().iter().map(|(_, tunnel)| tunnel.moves()).sum()
    }
}

impl Serve for WholeGateway {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn serve(&mut self, up: &[Transmit]) -> Vec<Transmit> {
        for frame in up.iter().filter_map(frame) {
            self.outside.send(&frame);
        }
        loop {
            let start = processor_time();
            let mut busy = self.worker.turn();
            let middle = processor_time();
            busy |= self.slow_path.turn(self.start.elapsed());
            self.worker_cpu += middle.saturating_sub(start);
            self.slow_cpu += processor_time().saturating_sub(middle);
            if !busy {
                break;
            }
        }
        std::iter::from_fn(|| self.outside.receive(parse)).flatten().collect()
    }
}

/// Returns the frame that carries a terminal's message to the gateway.
pub(super) fn frame(transmit: &Transmit) -> Option<Vec<u8>> {
    Some(to_gateway(OUTSIDE, &datagram::emit(transmit)?))
}

/// Returns the message in a frame from the gateway, as the gateway sent it.
pub(super) fn parse(frame: &[u8]) -> Option<Transmit> {
    let (addresses, message) = datagram::parse(frame.get(ethernet::HEADER..)?)?;
    Some(Transmit { addresses: reversed(addresses), payload: Payload::Message(message.to_vec()) })
}
