//! A worker without a slow path, turned by hand in one thread, whose tables its owner changes.

use crate::gateway::{
    counters::WorkerCounters,
    flows::Flows,
    io::Io,
    kernel_side::Role,
    rings::{Event, Punt, Rings},
    tables::{Settings, Tables},
    worker::Worker,
};
use std::sync::Arc;
use wayfarer_dataplane::{
    pool::Pool,
    port::{
        Port,
        memory::{self, Wire},
    },
    ring::FrameRing,
    table::Writer,
};

/// The number of frames that each direction of a wire holds.
const DEPTH: usize = 256;
/// The number of frames in the worker's pool.
const FRAMES: usize = 1024;
/// Bytes of a frame.
const FRAME: usize = 2048;

/// A frame that the worker has handed to the slow path: the port that it came by, the reason, its bytes.
pub type Punted = (u16, Punt, Vec<u8>);

/// A worker, the writer of its tables, and the far end of everything that it is connected to.
#[derive(Debug)]
pub struct LoneWorker {
    /// The tables.
    pub tables: Arc<Tables>,
    /// Changes the tables.
    pub writer: Writer,
    /// The far end of each wire.
    pub wires: Vec<Wire>,
    /// The worker's counters.
    pub counters: Arc<WorkerCounters>,
    /// The far end of the worker's rings.
    pub rings: Arc<Rings>,
    worker: Worker,
}

impl LoneWorker {
    /// Makes a worker with `settings` that remembers `flow_cache` flows. Its tables are empty, with room
    /// for about `tunnels` tunnels.
    ///
    /// # Panics
    /// If there is no memory for frames.
    pub fn new(settings: Settings, tunnels: usize, flow_cache: usize) -> Self {
        let (ports, wires) = settings.ports.iter().map(|_| Self::port()).unzip();
        Self::on((ports, wires), settings, tunnels, flow_cache)
    }

    /// Makes a port and the far end of its wire.
    pub fn port() -> (Box<dyn Port>, Wire) {
        let (port, wire) = memory::pair(DEPTH, FRAME);
        (Box::new(port), wire)
    }

    /// Does the same as [`LoneWorker::new`] on these ports, whose far ends are `wires`. Ports may share a
    /// wire.
    ///
    /// # Panics
    /// If there is no memory for frames.
    pub fn on(
        (ports, wires): (Vec<Box<dyn Port>>, Vec<Wire>),
        settings: Settings,
        tunnels: usize,
        flow_cache: usize,
    ) -> Self {
        let roles = ports.iter().map(|_| Role::Plain).collect();
        let counters = Arc::new(WorkerCounters::new(ports.len()));
        let rings = Arc::new(Rings::new(FRAME, ports.len()));
        let pool = Pool::new(FRAMES, FRAME).expect("memory for frames");
        let io = Io::new(ports, roles, pool, counters.clone(), rings.clone());
        let io = io.expect("memory for a long packet");
        let writer = Writer::new();
        let tables = Arc::new(Tables::new(&writer, tunnels, settings));
        let worker = Worker::new(io, tables.clone(), writer.reader(), None, Flows::new(flow_cache));
        Self { tables, writer, wires, counters, rings, worker }
    }

    /// Does one turn. Returns whether there was any work.
    pub fn turn(&mut self) -> bool {
        self.worker.turn()
    }

    /// Turns until there is nothing left to do.
    ///
    /// # Panics
    /// If the worker's counters do not add up.
    pub fn settle(&mut self) {
        while self.turn() {}
        assert_eq!(self.worker.unaccounted(), 0, "packets whose end was not counted, or counted twice");
    }

    /// Takes the frames that have come out of a wire: that of the port with the same number, unless ports
    /// share one.
    pub fn take(&mut self, wire: usize) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.wires[wire].receive(<[u8]>::to_vec)).collect()
    }

    /// Takes the frames that were handed to the slow path.
    pub fn take_punted(&mut self) -> Vec<Punted> {
        let next =
            |ring: &FrameRing<(u16, Punt)>| ring.pop(|(port, punt), frame| (port, punt, frame.to_vec()));
        self.rings.punts().flat_map(|ring| std::iter::from_fn(move || next(ring))).collect()
    }

    /// Takes the events for the slow path.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.rings.events.pop()).collect()
    }
}
