//! Accounting records to RADIUS servers.

use super::sockets::{ServerSockets, unix_seconds};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};
use wayfarer_mobility::aaa::radius::{
    accounting::{Accounting, Silence},
    question::Realm,
    record::Happening,
};

/// Records that no server has confirmed, and the sockets on which confirmations come.
#[derive(Debug, Default)]
pub struct AccountingSockets {
    accounting: Accounting,
    sockets: ServerSockets,
}

impl AccountingSockets {
    /// Adds a realm, unless there is one with the same servers. Returns its number.
    pub fn add(&mut self, realm: &Arc<Realm>) -> usize {
        self.accounting.add(realm)
    }

    /// Removes all realms but these, with their sockets, each as soon as its last record is settled.
    pub fn retain(&mut self, in_use: impl Fn(usize) -> bool) {
        self.accounting.retain(in_use);
        self.close_unused();
    }

    fn close_unused(&mut self) {
        self.sockets.retain(|realm| self.accounting.has(realm));
    }

    /// Tells the servers of realms that the gateway starts at the address beside each, unless they
    /// know (see [`Accounting::begin`]). `run` is the name of this run.
    pub fn begin(&mut self, now: Duration, run: &str, places: &BTreeSet<(usize, IpAddr)>) {
        self.accounting.begin(now, unix_seconds(), run, places);
    }

    /// Tells them, once all else is settled, that it stops.
    pub fn end(&mut self, now: Duration, run: &str, places: &BTreeSet<(usize, IpAddr)>) {
        self.accounting.end(now, unix_seconds(), run, places);
    }

    /// Sends a record of what has just happened to the servers of the realm with this number.
    pub fn record(&mut self, now: Duration, realm: usize, happening: Happening<'_>) {
        self.accounting.record(now, unix_seconds(), realm, happening);
    }

    /// Returns true if every record was confirmed or given up.
    pub fn is_idle(&self) -> bool {
        self.accounting.is_idle()
    }

    /// Returns the number of records that were given up.
    pub fn lost(&self) -> u64 {
        self.accounting.lost()
    }

    /// Returns the next begin or end of a silence, and the servers that are silent.
    pub fn poll_silence(&mut self) -> Option<(Arc<Realm>, Silence)> {
        self.accounting.poll_silence()
    }

    /// Sends and receives. Makes no system call if every record was confirmed.
    pub fn turn(&mut self, now: Duration) {
        let Self { accounting, sockets } = self;
        if accounting.is_idle() {
            return;
        }
        if accounting.awaits_answer() {
            sockets.receive(|server, realm, packet| accounting.handle_datagram(now, realm, server, packet));
        }
        if accounting.poll_timeout().is_some_and(|at| at <= now) {
            accounting.handle_timeout(now);
        }
        while let Some(transmit) = accounting.poll_transmit() {
            sockets.send(transmit.server, transmit.realm, &transmit.packet);
        }
        self.close_unused();
    }
}
