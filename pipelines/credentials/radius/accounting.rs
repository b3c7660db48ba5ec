//! Accounting records to RADIUS servers.

use super::sockets::ServerSockets;
use std::{sync::Arc, time::Duration};
use wayfarer_mobility::aaa::radius::{accounting::Accounting, question::Realm, record::Record};

/// Records that no server has confirmed, and the sockets on which confirmations come.
#[derive(Debug, Default)]
pub struct AccountingSockets {
    accounting: Accounting,
    sockets: ServerSockets,
}

impl AccountingSockets {
    /// Adds a realm, whose number is the number of realms before it.
    pub fn add(&mut self, realm: Arc<Realm>) {
        self.accounting.add(realm);
    }

    /// Sends a record to the servers of the realm with this number.
    pub fn record(&mut self, now: Duration, realm: usize, record: Record) {
        self.accounting.record(now, realm, record);
    }

    /// Returns true if every record was confirmed or given up.
    pub fn is_idle(&self) -> bool {
        self.accounting.is_idle()
    }

    /// Returns the number of records that were given up.
    pub fn lost(&self) -> u64 {
        self.accounting.lost()
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
    }
}
