//! A whole gateway turned by hand in one thread, on memory ports, in virtual time.

use super::{
    fixtures::{INSIDE, OUTSIDE, STATION_MAC, config, open_host_ports, open_ports},
    frames::{answer_neighbour, to_gateway},
};
use crate::{
    config::{
        frame_size,
        model::{Config, Tunnel},
    },
    control::protocol::{Answer, Command, Outcome, Reply, View},
    gateway::{
        counters::{Counter, WorkerCounters},
        rings::Rings,
    },
    launch::{Assembly, OpenPort, WorkerResources},
};
use std::{sync::Arc, time::Duration};
use wayfarer_dataplane::{
    drop::DropReason,
    pool::Pool,
    port::memory::Wire,
    ring::FrameRing,
    wire::{
        arp::{Arp, Operation},
        ethernet,
    },
};

/// A gateway and the wires of its ports.
#[derive(Debug)]
pub struct World {
    /// The gateway.
    pub assembly: Assembly,
    /// The far end of each port.
    pub wires: Vec<Wire>,
    /// Virtual time since the gateway's start.
    pub now: Duration,
    /// `true` if the stations answer ARP and neighbour discovery.
    pub answer_neighbours: bool,
    /// Frames that reached the far end of each wire, without neighbour discovery.
    pub out: [Vec<Vec<u8>>; 2],
}

impl World {
    /// Makes a test's gateway with these tunnels.
    pub fn new(tunnels: Vec<Tunnel>) -> Self {
        Self::with(config(tunnels), 512)
    }

    /// Makes a gateway with `config`'s tunnels, routes and policies, and wires of `depth` frames.
    pub fn with(config: Config, depth: usize) -> Self {
        Self::on(config, open_ports(1, depth))
    }

    /// Makes a gateway whose inside is the host's own stack.
    pub fn host(tunnels: Vec<Tunnel>) -> Self {
        let (mut ports, wires) = open_host_ports(512);
        ports[INSIDE].addresses.clear();
        Self::on(config(tunnels), (ports, wires))
    }

    /// Makes a gateway on ports like those of [`open_ports`].
    pub fn on(config: Config, (ports, wires): (Vec<OpenPort>, [Vec<Wire>; 2])) -> Self {
        let wires = wires.into_iter().flatten().collect();
        let pool = Pool::new(config.gateway.frames, frame_size(&config)).expect("memory for frames");
        let assembly = Assembly::new(&config, vec![WorkerResources { pool, core: None }], ports);
        let assembly = assembly.expect("a gateway that starts");
        Self { assembly, wires, now: Duration::ZERO, answer_neighbours: true, out: Default::default() }
    }

    /// Returns the worker's counters.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.assembly.handles[0].counters
    }

    /// Returns how many packets the worker dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters().drops.of(reason)
    }

    /// Returns how many packets the slow path dropped for this reason.
    pub fn slow_drops(&mut self, reason: DropReason) -> u64 {
        let by_workers = self.drops(reason);
        match self.ask(Command::Show { what: View::Drops }).outcome {
            Outcome::Result(Reply::Drops(all)) => {
                let found = all.iter().find(|drops| drops.reason == reason.name());
                found.map_or(0, |drops| drops.packets) - by_workers
            }
            other => panic!("{other:?}"),
        }
    }

    /// Returns the drops of every reason that occurred.
    pub fn all_drops(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL.iter().map(|&r| (r, self.drops(r))).filter(|(_, n)| *n > 0).collect()
    }

    /// Turns workers and slow path until there is nothing left to do.
    ///
    /// # Panics
    /// If the counters of a worker or of the slow path do not add up, or not to each other.
    pub fn settle(&mut self) {
        self.run_until_idle();
        self.check_counters();
    }

    fn check_counters(&self) {
        let Assembly { workers, handles, slow_path, .. } = &self.assembly;
        for (worker, _) in workers {
            assert_eq!(worker.unaccounted(), 0, "packets whose end was not counted, or counted twice");
        }
        assert_eq!(slow_path.unaccounted(), 0, "packets of the slow path likewise");
        let by_workers = |counter: fn(&WorkerCounters) -> &Counter| {
            handles.iter().map(|handle| counter(&handle.counters).value()).sum::<u64>()
        };
        let in_rings = |waiting: fn(&Rings) -> usize| {
            handles.iter().map(|handle| waiting(&handle.rings) as u64).sum::<u64>()
        };
        let of_slow_path = slow_path.counters();
        let to_slow_path = in_rings(|rings| rings.punts().map(FrameRing::len).sum());
        let to_workers = in_rings(|rings| rings.inject.len());
        assert_eq!(by_workers(|c| &c.punted), of_slow_path.punted.value() + to_slow_path, "punted frames");
        assert_eq!(
            of_slow_path.injected.value(),
            by_workers(|c| &c.injected) + to_workers,
            "injected frames"
        );
    }

    fn run_until_idle(&mut self) {
        loop {
            let mut busy = false;
            for (worker, _) in &mut self.assembly.workers {
                busy |= worker.turn();
            }
            busy |= self.assembly.slow_path.turn(self.now);
            busy |= self.collect();
            if !busy {
                return;
            }
        }
    }

    /// Has the gateway learn the stations of both wires, so that no packet of the test waits for
    /// them.
    pub fn meet_neighbours(&mut self) {
        for (port, sender, target) in
            [(OUTSIDE, [203, 0, 113, 254], [203, 0, 113, 1]), (INSIDE, [10, 99, 0, 7], [10, 99, 0, 1])]
        {
            let request = Arp {
                operation: Operation::Request,
                sender_mac: STATION_MAC[port],
                sender: sender.into(),
                target_mac: [0; 6],
                target: target.into(),
            };
            assert!(self.wires[port].send(&request.frame(ethernet::BROADCAST)));
        }
        self.settle();
        self.out = Default::default();
    }

    /// Lets `time` pass in steps that are shorter than every timer.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(50)).min(end);
            self.settle();
        }
    }

    fn collect(&mut self) -> bool {
        let mut busy = false;
        for index in [OUTSIDE, INSIDE] {
            while let Some(frame) = self.wires[index].receive(<[u8]>::to_vec) {
                busy = true;
                match answer_neighbour(&frame, STATION_MAC[index]) {
                    Some(reply) if self.answer_neighbours => assert!(self.wires[index].send(&reply)),
                    Some(_) => {}
                    None => self.out[index].push(frame),
                }
            }
        }
        busy
    }

    /// Sends an IP packet to the gateway's port `port`, and settles.
    pub fn send(&mut self, port: usize, packet: &[u8]) {
        self.put(port, packet);
        self.settle();
    }

    /// Puts an IP packet on the wire without turning anything, so that several share a burst.
    pub fn put(&mut self, port: usize, packet: &[u8]) {
        assert!(self.wires[port].send(&to_gateway(port, packet)));
    }

    /// Takes the IP packets that came out of `port`.
    pub fn take(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.out[port].drain(..).map(|f| f[ethernet::HEADER..].to_vec()).collect()
    }

    /// Sends a command to the slow path's control interface, and returns the answer.
    ///
    /// # Panics
    /// If the slow path does not answer at once.
    pub fn ask(&mut self, command: Command) -> Answer {
        let (tx, rx) = crossbeam::channel::bounded(1);
        self.assembly.requests.send((command, tx)).expect("the slow path runs");
        self.settle();
        rx.try_recv().expect("the slow path answers at once")
    }
}
