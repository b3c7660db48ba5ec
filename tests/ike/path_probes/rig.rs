//! A terminal and a gateway over a path with an MTU, a delay and losses.

use std::{net::IpAddr, time::Duration};
use wayfarer::sim::{
    ike::{
        connections::{TERMINAL, gateway, terminal},
        side::{Side, reversed, run_tasks},
    },
    random::Random,
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        event::{Event, PeerId},
        settings::Settings,
    },
    path::Addresses,
    path_mtu::{PacketsSent, PathProbing},
    transmit::{Payload, Transmit},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A terminal and a gateway that probe the path between them.
pub(super) struct Rig {
    pub(super) now: Duration,
    /// The terminal and the gateway.
    pub(super) sides: [Side; 2],
    /// The longest packet that the path takes, and the longest that both sides send, in bytes.
    pub(super) mtu: usize,
    pub(super) most: u16,
    /// The time that each packet takes, and what is on its way.
    pub(super) delay: Duration,
    late: Vec<(Duration, usize, Addresses, Vec<u8>)>,
    /// The percentage of packets that are lost.
    pub(super) loss: u64,
    random: Random,
    /// What both sides have sent whenever they are asked.
    pub(super) data: PacketsSent,
    /// What both drivers say if they are asked whether anything was heard; `None` if they do not answer.
    pub(super) heard: Option<bool>,
    /// `true` if nobody answers a probe, whatever its length.
    pub(super) ignores_probes: bool,
    /// The lengths of the terminal's probes as IP packets.
    pub(super) probes: Vec<usize>,
    /// The number of datagrams that were sent.
    pub(super) sent: usize,
}

/// Returns the length in bytes of the IPv4 packet of a message.
pub(super) fn length(addresses: Addresses, message: &[u8]) -> usize {
    20 + 8 + if addresses.local.port() == 500 { 0 } else { 4 } + message.len()
}

pub(super) fn probing(connection: Connection) -> Connection {
    Connection { path_probing: PathProbing::Always, ..connection }
}

impl Rig {
    /// Connects a terminal and a gateway that probe every path, over a path with this MTU.
    pub(super) fn new(mtu: usize) -> Self {
        Self::with(mtu, probing(gateway()), probing(terminal()))
    }

    /// Connects a terminal and a gateway with these connections.
    pub(super) fn with(mtu: usize, gateway: Connection, terminal: Connection) -> Self {
        let side = |connection, seed| Side::new(vec![connection], Settings::default(), seed);
        let mut rig = Self {
            now: Duration::from_secs(1000),
            sides: [side(terminal, 1), side(gateway, 2)],
            mtu,
            most: 1500,
            delay: Duration::ZERO,
            late: vec![],
            loss: 0,
            random: Random(1),
            data: PacketsSent::Much,
            heard: None,
            ignores_probes: false,
            probes: vec![],
            sent: 0,
        };
        rig.sides[0].endpoint.dial(rig.now, 0, IpAddr::from(TERMINAL));
        rig.carry();
        assert_eq!(rig.sides.each_ref().map(|side| side.connected_peers().len()), [1, 1]);
        rig
    }

    pub(super) fn peer(&self) -> PeerId {
        self.sides[0].connected_peers()[0]
    }

    /// Carries messages until there are none.
    pub(super) fn carry(&mut self) {
        for _ in 0..1000 {
            let mut is_idle = true;
            for from in 0..2 {
                let side = &mut self.sides[from];
                run_tasks(&mut side.endpoint, self.now);
                while let Some(event) = side.endpoint.poll_event() {
                    is_idle = false;
                    match event {
                        Event::PathProbeDue { peer } => {
                            let (most, sent) = (Some(self.most), self.data);
                            side.endpoint.handle_path_probe_due(self.now, peer, most, sent);
                        }
                        Event::LivenessDue { peer } => {
                            if let Some(heard) = self.heard {
                                side.endpoint.handle_liveness(self.now, peer, heard);
                            }
                        }
                        event => side.events.push(event),
                    }
                }
                if let Some(sent) = side.endpoint.poll_transmit() {
                    is_idle = false;
                    self.send(from, sent);
                }
            }
            if is_idle {
                return;
            }
        }
        panic!("the exchange of messages does not end");
    }

    fn send(&mut self, from: usize, Transmit { addresses, payload }: Transmit) {
        let (message, is_probe) = match payload {
            Payload::Message(message) => (message, false),
            Payload::Probe(message) => (message, true),
            Payload::Keepalive => return,
        };
        let length = length(addresses, &message);
        self.sent += 1;
        if is_probe {
            assert!(length <= self.most.into(), "{length}");
            self.probes.extend((from == 0).then_some(length));
            if length > self.mtu || self.ignores_probes {
                return;
            }
        } else if self.sides[from].connected_peers().len() == 1 {
            assert!(length <= 576, "{length}");
        }
        if self.random.percent(self.loss) {
            return;
        }
        match self.delay.is_zero() {
            true => self.sides[1 - from].endpoint.handle_datagram(self.now, reversed(addresses), &message),
            false => self.late.push((self.now + self.delay, from, addresses, message)),
        }
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.carry();
        loop {
            let timers = self.sides.iter().filter_map(|side| side.endpoint.poll_timeout());
            let next = timers.chain(self.late.iter().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = next.max(self.now);
            for (_, from, addresses, message) in self.late.extract_if(.., |(at, ..)| *at <= self.now) {
                self.sides[1 - from].endpoint.handle_datagram(self.now, reversed(addresses), &message);
            }
            for side in &mut self.sides {
                side.endpoint.handle_timeout(self.now);
                assert!(side.endpoint.poll_timeout().is_none_or(|at| at > self.now), "a timer does not move");
            }
            self.carry();
        }
        self.now = until;
    }

    /// Lets time pass until `done`. Returns how long that took.
    pub(super) fn until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now < start + most, "{:?} {:?}", self.found(), self.probes);
            self.pass(Duration::from_millis(50));
        }
        self.now - start
    }

    /// Returns what both sides found last, and whether the search was over.
    pub(super) fn found(&self) -> [Option<(Option<u16>, bool)>; 2] {
        self.sides.each_ref().map(|side| {
            side.events.iter().rev().find_map(|event| match event {
                Event::PathMtu { mtu, is_over, .. } => Some((*mtu, *is_over)),
                _ => None,
            })
        })
    }

    /// Returns whether something longer than what the terminal found last did not pass.
    pub(super) fn is_limited(&self) -> bool {
        let is_limit = |event: &Event| match event {
            Event::PathMtu { is_limit, .. } => Some(*is_limit),
            _ => None,
        };
        self.sides[0].events.iter().rev().find_map(is_limit).unwrap()
    }

    pub(super) fn has_found(&self, mtu: Option<u16>) -> bool {
        self.found() == [Some((mtu, true)); 2]
    }

    /// Checks that no side has found less than this.
    pub(super) fn assert_nothing_but(&self, least: u16) {
        for event in self.sides.iter().flat_map(|side| &side.events) {
            if let Event::PathMtu { mtu: Some(mtu), is_over: true, .. } = event {
                assert!(*mtu >= least, "{mtu} {:?}", self.probes);
            }
        }
    }

    /// Checks that no side has ever taken the path for a narrower one.
    pub(super) fn assert_nothing_lowered(&self) {
        let is_lower = |event: &&Event| matches!(event, Event::PathMtu { mtu: Some(_), .. });
        let lower = self.sides.iter().flat_map(|side| &side.events).find(is_lower);
        assert!(lower.is_none(), "{lower:?} {:?}", self.probes);
    }

    pub(super) fn assert_connected(&self) {
        for side in &self.sides {
            assert_eq!((side.end_reasons(), side.connected_peers().len()), (vec![], 1));
        }
    }
}
