//! Accounting records on their way to RADIUS servers (RFC 2866). Each is repeated until a server has
//! confirmed it; while the servers are silent, a bounded number waits. Records of one session reach
//! the servers in order.

mod ledger;

use super::{
    question::Realm,
    record::{Gateway, Happening, Record},
};
use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use ledger::Ledger;

pub use ledger::{MAX_AGE, Silence, WAITING, WINDOW};

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The realm's number. Each realm has a socket of its own for each server.
    pub realm: usize,
    /// The server's address.
    pub server: SocketAddr,
    /// The packet.
    pub packet: Vec<u8>,
}

/// A gateway that a server knows to have started: the server, and the gateway's name and address.
type Known = (SocketAddr, String, IpAddr);

/// All records. Call order: any of [`Accounting::begin`], [`Accounting::end`],
/// [`Accounting::record`], [`Accounting::handle_datagram`] and [`Accounting::handle_timeout`], then
/// [`Accounting::poll_transmit`] and [`Accounting::poll_silence`] until `None`, then
/// [`Accounting::poll_timeout`].
#[derive(Debug, Default)]
pub struct Accounting {
    ledgers: BTreeMap<usize, Ledger>,
    next: usize,
    known: BTreeSet<Known>,
    transmits: VecDeque<Transmit>,
    lost: u64,
}

impl Accounting {
    /// Adds a realm, unless there is one with the same servers. Returns its number.
    pub fn add(&mut self, realm: &Arc<Realm>) -> usize {
        let same = self.ledgers.iter_mut().find(|(_, ledger)| ledger.realm.is_same(realm));
        if let Some((number, ledger)) = same {
            ledger.is_retired = false;
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.ledgers.insert(number, Ledger::new(realm.clone()));
        number
    }

    /// Removes all realms but these, each as soon as its last record is settled.
    pub fn retain(&mut self, in_use: impl Fn(usize) -> bool) {
        for (number, ledger) in &mut self.ledgers {
            ledger.is_retired = !in_use(*number);
        }
        self.remove_retired();
    }

    fn remove_retired(&mut self) {
        self.ledgers.retain(|_, ledger| !(ledger.is_retired && ledger.is_idle()));
        let ledgers = &self.ledgers;
        self.known.retain(|(server, name, _)| {
            let is_it = |ledger: &Ledger| ledger.realm.has(*server) && ledger.realm.nas_identifier == *name;
            ledgers.values().any(is_it)
        });
    }

    /// Returns true if there is a realm with this number.
    pub fn has(&self, realm: usize) -> bool {
        self.ledgers.contains_key(&realm)
    }

    /// Returns true if no record waits or is under way.
    pub fn is_idle(&self) -> bool {
        self.ledgers.values().all(Ledger::is_idle)
    }

    /// Returns true if a server may confirm a record at any time.
    pub fn awaits_answer(&self) -> bool {
        self.ledgers.values().any(Ledger::awaits_answer)
    }

    /// Returns the number of records that no server confirmed, and that were given up.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Tells servers that the gateway starts: those of each realm, with the address at which its
    /// peers reach the gateway. `run` is the name of this run, and `seconds` is the time since 1970.
    ///
    /// At that, a server ends all sessions that it knows of a gateway of this name, or at this
    /// address. So a realm is told only if none of its servers has heard of either before; and until
    /// that is settled, its servers get nothing else.
    pub fn begin(&mut self, now: Duration, seconds: u64, run: &str, places: &BTreeSet<(usize, IpAddr)>) {
        let before = self.known.clone();
        for (number, local) in places {
            let Some(ledger) = self.ledgers.get(number) else { continue };
            let realm = ledger.realm.clone();
            let met = |(server, name, address): &Known| {
                realm.has(*server) && (*name == realm.nas_identifier || address == local)
            };
            let told = |(server, name, address): &Known| {
                realm.has(*server) && *name == realm.nas_identifier && address == local
            };
            let is_new = !before.iter().any(met) && !self.known.iter().any(told);
            // They keep the same books, so what one of them has been told holds for all.
            let servers = realm.servers.iter();
            self.known.extend(servers.map(|server| (server.address, realm.nas_identifier.clone(), *local)));
            if is_new {
                self.record(now, seconds, *number, Happening::On(Gateway { id: run, local: *local }));
            }
        }
    }

    /// Tells servers that the gateway stops, as [`Accounting::begin`] told them that it starts. They
    /// hear of it once nothing else is left to tell them.
    pub fn end(&mut self, now: Duration, seconds: u64, run: &str, places: &BTreeSet<(usize, IpAddr)>) {
        let mut told: Vec<(Arc<Realm>, IpAddr)> = Vec::new();
        for (number, local) in places {
            let Some(ledger) = self.ledgers.get(number) else { continue };
            let realm = ledger.realm.clone();
            let same = |(other, address): &(Arc<Realm>, IpAddr)| {
                address == local && other.nas_identifier == realm.nas_identifier && realm.shares_server(other)
            };
            if !told.iter().any(same) {
                self.record(now, seconds, *number, Happening::Off(Gateway { id: run, local: *local }));
            }
            told.push((realm, *local));
        }
    }

    /// Sends a record of what has just happened to the servers of this realm. `seconds` is the time
    /// since 1970.
    pub fn record(&mut self, now: Duration, seconds: u64, realm: usize, happening: Happening<'_>) {
        let Some(ledger) = self.ledgers.get_mut(&realm) else { return };
        let record = Record::new(happening, seconds, &ledger.realm.nas_identifier);
        self.lost += ledger.push(record, now);
        self.fill(now, realm);
    }

    /// Returns true if the realm's servers are being told something by another realm that nothing may
    /// overtake, or if what this realm has to tell them must come after all else.
    fn is_held(&self, realm: usize) -> bool {
        let Some(ledger) = self.ledgers.get(&realm) else { return true };
        let precedes = |other: &Ledger| {
            (other.is_opening() && !ledger.is_opening()) || (ledger.is_closing() && !other.is_closing())
        };
        let mut others = self.ledgers.iter().filter(|(number, _)| **number != realm).map(|(_, other)| other);
        others.any(|other| precedes(other) && other.realm.shares_server(&ledger.realm))
    }

    /// Sends waiting records of a realm.
    fn fill(&mut self, now: Duration, realm: usize) {
        while !self.is_held(realm)
            && let Some(ledger) = self.ledgers.get_mut(&realm)
            && let Some(number) = ledger.next(now)
        {
            match ledger.begin(now, number) {
                Some((server, packet)) => self.transmits.push_back(Transmit { realm, server, packet }),
                None => self.lost += 1,
            }
        }
    }

    fn fill_all(&mut self, now: Duration) {
        for realm in self.numbers() {
            self.fill(now, realm);
        }
    }

    fn numbers(&self) -> Vec<usize> {
        self.ledgers.keys().copied().collect()
    }

    /// Handles a packet that a server sent to a realm's socket. Ignores it if it does not confirm a
    /// record.
    pub fn handle_datagram(&mut self, now: Duration, realm: usize, server: SocketAddr, packet: &[u8]) {
        let Some(ledger) = self.ledgers.get_mut(&realm) else { return };
        let was_opening = ledger.is_opening();
        if !ledger.handle_answer(server, packet) {
            return;
        }
        match was_opening || ledger.is_closing() {
            // Other realms may have waited for this.
            true => self.fill_all(now),
            false => self.fill(now, realm),
        }
        self.remove_if_retired(realm);
    }

    fn remove_if_retired(&mut self, realm: usize) {
        if self.ledgers.get(&realm).is_some_and(|ledger| ledger.is_retired && ledger.is_idle()) {
            self.remove_retired();
        }
    }

    /// Handles the timers due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        for realm in self.numbers() {
            while let Some(ledger) = self.ledgers.get_mut(&realm)
                && let Some(number) = ledger.take_overdue(now)
            {
                match ledger.repeat(now, number) {
                    Some((server, packet)) => self.transmits.push_back(Transmit { realm, server, packet }),
                    None => self.lost += u64::from(ledger.fail(now, number)),
                }
            }
            self.remove_if_retired(realm);
        }
        self.fill_all(now);
    }

    /// Returns when [`Accounting::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let next = |(realm, ledger): (&usize, &Ledger)| {
            let next = ledger.next_at().filter(|_| !self.is_held(*realm));
            ledger.overdue_at().into_iter().chain(next).min()
        };
        self.ledgers.iter().filter_map(next).min()
    }

    /// Returns the next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns the next begin or end of a silence, and the servers that are silent.
    pub fn poll_silence(&mut self) -> Option<(Arc<Realm>, Silence)> {
        self.ledgers.values_mut().find_map(|ledger| Some((ledger.realm.clone(), ledger.take_silence()?)))
    }
}

#[cfg(test)]
mod tests;
