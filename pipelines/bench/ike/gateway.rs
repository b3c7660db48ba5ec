//! The measured gateway in two sizes: its protocol alone, and all of it turned by hand.

use super::{BenchError, world::World};
use crate::{
    bench::processor_time,
    config::model::Config,
    gateway::worker::Worker,
    launch::{Assembly, WorkerResources},
    primitives::{OsRandom, Primitives},
    sim::{
        fixtures::{OUTSIDE, ports_on_links},
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

/// What answers terminals.
pub(super) trait Serve {
    /// Its time.
    fn now(&self) -> Duration;

    /// Takes what terminals sent; answers what it sends.
    fn serve(&mut self, up: &[Transmit]) -> Vec<Transmit>;
}

/// The protocol alone. Its tasks run where it does.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) endpoint: Endpoint,
    pub(super) now: Duration,
    /// Processor time that it took so far.
    pub(super) cpu: Duration,
    /// How often it told that a peer moved.
    pub(super) moved: u64,
    /// Peers that it asked after.
    pub(super) asked: u64,
}

impl Bare {
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
            moved: 0,
            asked: 0,
        }
    }

    /// Lets time pass; peers that it asks after have been heard.
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
                Event::PeerMoved { .. } => self.moved += 1,
                Event::LivenessDue { peer } => {
                    self.asked += 1;
                    self.endpoint.handle_liveness(self.now, peer, true);
                }
                _ => {}
            }
        }
    }
}

impl Serve for Bare {
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
pub(super) struct Whole {
    pub(super) slow_path: SlowPath,
    worker: Worker,
    outside: Wire,
    start: Instant,
    /// Processor time of the slow path so far, without its helpers.
    pub(super) slow_cpu: Duration,
    /// Processor time of the worker so far.
    pub(super) worker_cpu: Duration,
}

impl Whole {
    pub(super) fn new(config: &Config) -> Result<Self, BenchError> {
        let (outside, wire) = memory::pair(DEPTH, config.gateway.frame_size);
        let (inside, _) = memory::pair(1, 64);
        let pool = pool::Pool::new(config.gateway.frames, config.gateway.frame_size);
        let resources = WorkerResources { pool: pool.map_err(BenchError::Memory)?, core: None };
        let ports = ports_on_links([vec![Box::new(outside)], vec![Box::new(inside)]]);
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

    /// Moves that its tunnels made.
    pub(super) fn moves(&self) -> u64 {
        self.slow_path.tunnels().iter().map(|(_, tunnel)| tunnel.moves).sum()
    }
}

impl Serve for Whole {
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

/// The frame by which a terminal's message comes to the gateway.
pub(super) fn frame(transmit: &Transmit) -> Option<Vec<u8>> {
    Some(to_gateway(OUTSIDE, &datagram::emit(transmit)?))
}

/// The message in a frame of the gateway's, as the gateway sent it.
pub(super) fn parse(frame: &[u8]) -> Option<Transmit> {
    let (addresses, message) = datagram::parse(frame.get(ethernet::HEADER..)?)?;
    Some(Transmit { addresses: reversed(addresses), payload: Payload::Message(message.to_vec()) })
}
