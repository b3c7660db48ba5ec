//! Frames that workers handed up: neighbour discovery, packets that wait for it, control messages, and packets whose
//! senders should hear what went wrong.

use super::{SlowPath, neighbours::Action};
use crate::gateway::exchange::{Inject, Punt};
use std::{net::IpAddr, time::Duration};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::{
        icmp::{self, Problem},
        ip::IpHeader,
    },
};

/// Frames taken from one ring in one turn.
const PUNTS: usize = 64;
/// ICMP errors that may be sent in one second (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
const PROBLEMS_PER_SECOND: u32 = 1000;

/// Holds ICMP errors to their rate.
#[derive(Debug, Default)]
pub(super) struct ProblemLimit {
    second: u64,
    sent: u32,
}

impl ProblemLimit {
    fn admits(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            *self = Self { second: now.as_secs(), sent: 0 };
        }
        self.sent = self.sent.saturating_add(1);
        self.sent <= PROBLEMS_PER_SECOND
    }
}

impl SlowPath {
    pub(super) fn handle_punts(&mut self, now: Duration) -> bool {
        let mut busy = false;
        for worker in 0..self.workers.len() {
            let exchange = self.workers[worker].exchange.clone();
            for ring in exchange.punts() {
                for _ in 0..PUNTS {
                    if ring.pop(|(port, punt), frame| self.handle_punt(now, port, punt, frame)).is_none() {
                        break;
                    }
                    busy = true;
                }
            }
        }
        busy
    }

    fn handle_punt(&mut self, now: Duration, port: u16, punt: Punt, frame: &[u8]) {
        match punt {
            Punt::Neighbour => self.neighbours.handle_frame(now, port, frame),
            Punt::Resolve { port, next } => {
                if !self.neighbours.resolve(now, port, next, Some(frame)) {
                    self.drops.count(DropReason::SlowPathLimit);
                }
            }
            Punt::Problem(problem) => self.answer_problem(now, port, problem, frame),
            Punt::Control => self.drops.count(DropReason::NoKeyExchange),
        }
    }

    /// Carries out what neighbour discovery wants.
    pub(super) fn act(&mut self, _now: Duration) {
        while let Some(action) = self.neighbours.poll_action() {
            let (tables, writer) = (&self.tables, &mut self.writer);
            match action {
                Action::Send { port, frame } => self.inject(Inject::Frame { port }, &frame),
                Action::Resolved { port, address, mac } => {
                    self.routes.resolved(tables, writer, port, address, mac);
                }
                Action::Release(packet) => self.inject(Inject::Route, &packet),
                Action::Failed { port, address, lost } => {
                    self.routes.failed(tables, writer, port, address);
                    (0..lost).for_each(|_| self.drops.count(DropReason::NeighbourFailed));
                }
            }
        }
    }

    /// Tells the sender of a dropped packet why, by the way that policy has for the answer.
    fn answer_problem(&mut self, now: Duration, port: u16, problem: Problem, packet: &[u8]) {
        let Ok(header) = IpHeader::parse(packet) else { return };
        let Some(from) = self.own_address(port, header.src) else { return };
        if !icmp::may_answer(&header, packet) || !self.problems.admits(now) {
            return;
        }
        if let Some(answer) = icmp::error(problem, from, &header, packet) {
            self.inject(Inject::Policy, &answer);
        }
    }

    /// The gateway's address for an answer to `to`: one that policy lets through, if there is one. Else one of the port
    /// that the packet came in by.
    fn own_address(&self, port: u16, to: IpAddr) -> Option<IpAddr> {
        let all = || self.ports.iter().flat_map(|p| p.link.addresses.iter().map(|(a, _)| *a));
        let same_family = |a: &IpAddr| a.is_ipv4() == to.is_ipv4();
        let covered = |from: &IpAddr| {
            let flow = wayfarer_dataplane::sa::Flow {
                src: *from,
                dst: to,
                protocol: if to.is_ipv4() { 1 } else { 58 },
                ports: None,
            };
            self.tables.rule(&flow, &self.reader).is_some()
        };
        let on_port =
            || self.ports.get(usize::from(port))?.link.addresses.iter().map(|(a, _)| *a).find(same_family);
        all().filter(same_family).find(covered).or_else(on_port).or_else(|| all().find(same_family))
    }
}
