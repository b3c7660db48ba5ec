//! Accounting records on their way to RADIUS servers (RFC 2866). Each is repeated until a server has
//! confirmed it; while the servers are silent, a bounded number waits.

use super::{
    question::{Realm, Server},
    record::{Record, is_response},
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::{net::SocketAddr, time::Duration};

/// Most records that are sent to a realm at a time; fewer than there are identifiers, so that none
/// is reused soon.
pub const WINDOW: usize = 128;
/// Most records that wait for a realm.
pub const WAITING: usize = 1 << 16;
/// Time for which a record is kept.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Number of times that all servers are asked before a record goes behind the others.
const ATTEMPTS: u32 = 8;
/// Most time between two attempts to reach a realm's servers.
const MAX_PAUSE: Duration = Duration::from_secs(60);

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

/// A record on its way.
#[derive(Debug)]
struct Entry {
    record: Record,
    /// When it happened.
    at: Duration,
    /// Its place among the waiting records.
    number: u64,
    /// Number of times that all servers were asked.
    attempts: u32,
}

/// A record that was sent, and not yet confirmed.
#[derive(Debug)]
struct Sent {
    entry: Entry,
    server: usize,
    /// The servers that are asked after this one.
    others: VecDeque<usize>,
    authenticator: [u8; 16],
    /// Number of times that it may still be sent to this server.
    left: u32,
    resend_at: Duration,
}

/// The records for one realm.
#[derive(Debug)]
struct Ledger {
    realm: Arc<Realm>,
    /// Waiting records, the oldest first.
    waiting: BTreeMap<u64, Entry>,
    /// The interim records among them, by account.
    interims: BTreeMap<String, u64>,
    next: u64,
    sent: BTreeMap<u8, Sent>,
    next_id: u8,
    /// Number of attempts since a server last answered.
    failures: u32,
    /// When the next attempt may begin.
    resume_at: Duration,
}

impl Ledger {
    fn new(realm: Arc<Realm>) -> Self {
        Self {
            realm,
            waiting: BTreeMap::new(),
            interims: BTreeMap::new(),
            next: 0,
            sent: BTreeMap::new(),
            next_id: 0,
            failures: 0,
            resume_at: Duration::ZERO,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// Queues a new record. Returns the number of records that were lost to make room.
    fn push(&mut self, record: Record, at: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        self.insert(Entry { record, at, number, attempts: 0 })
    }

    /// Queues a record at its place. Returns the number of records that were lost to make room.
    fn insert(&mut self, entry: Entry) -> u64 {
        // Whatever is newer about an account says more than an interim record that still waits.
        let interim = self.interims.get(&entry.record.id).copied();
        if let Some(older) = interim.filter(|number| *number < entry.number) {
            self.interims.remove(&entry.record.id);
            self.waiting.remove(&older);
        }
        let mut lost = 0;
        while self.waiting.len() >= WAITING {
            match self.interims.pop_first() {
                Some((_, number)) => _ = self.waiting.remove(&number),
                None => lost += u64::from(self.waiting.pop_first().is_some()),
            }
        }
        if entry.record.is_interim {
            self.interims.insert(entry.record.id.clone(), entry.number);
        }
        self.waiting.insert(entry.number, entry);
        lost
    }

    fn pop(&mut self) -> Option<Entry> {
        let (_, entry) = self.waiting.pop_first()?;
        if entry.record.is_interim {
            self.interims.remove(&entry.record.id);
        }
        Some(entry)
    }

    /// Returns a server that is being asked.
    fn server(&self, sent: &Sent) -> Option<&Server> {
        self.realm.servers.get(sent.server)
    }

    /// Returns when something is to be done next.
    fn poll_timeout(&self) -> Option<Duration> {
        let resume = (!self.waiting.is_empty() && self.sent.len() < self.window()).then_some(self.resume_at);
        self.sent.values().map(|sent| sent.resend_at).chain(resume).min()
    }

    /// Returns how many records may be under way. Silent servers get one at a time.
    fn window(&self) -> usize {
        if self.failures == 0 { WINDOW } else { 1 }
    }
}

/// All records. Call order: any of [`Accounting::record`], [`Accounting::handle_datagram`] and
/// [`Accounting::handle_timeout`], then [`Accounting::poll_transmit`] until `None`, then
/// [`Accounting::poll_timeout`].
#[derive(Debug, Default)]
pub struct Accounting {
    ledgers: Vec<Ledger>,
    transmits: VecDeque<Transmit>,
    lost: u64,
}

impl Accounting {
    /// Adds a realm, whose number is the number of realms before it.
    pub fn add(&mut self, realm: Arc<Realm>) {
        self.ledgers.push(Ledger::new(realm));
    }

    /// Returns true if no record waits or is under way.
    pub fn is_idle(&self) -> bool {
        self.ledgers.iter().all(Ledger::is_idle)
    }

    /// Returns true if a server may confirm a record at any time.
    pub fn awaits_answer(&self) -> bool {
        self.ledgers.iter().any(|ledger| !ledger.sent.is_empty())
    }

    /// Returns the number of records that no server confirmed, and that were given up.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Sends a record to the servers of this realm.
    pub fn record(&mut self, now: Duration, realm: usize, record: Record) {
        let Some(ledger) = self.ledgers.get_mut(realm) else { return };
        self.lost += ledger.push(record, now);
        self.fill(now, realm);
    }

    /// Sends waiting records.
    fn fill(&mut self, now: Duration, realm: usize) {
        while let Some(ledger) = self.ledgers.get_mut(realm)
            && ledger.sent.len() < ledger.window()
            && ledger.resume_at <= now
            && let Some(entry) = ledger.pop()
        {
            let mut others: VecDeque<usize> = ledger.realm.order().collect();
            let Some(server) = others.pop_front() else {
                self.lost += 1;
                continue;
            };
            let left = ledger.realm.servers.get(server).map_or(0, |server| server.tries);
            let (authenticator, resend_at) = ([0; 16], now);
            self.send(now, realm, Sent { entry, server, others, authenticator, left, resend_at });
        }
    }

    /// Sends a record with a new identifier, because its Acct-Delay-Time is new (RFC 2866 §5.2).
    fn send(&mut self, now: Duration, realm: usize, mut sent: Sent) {
        let Some(ledger) = self.ledgers.get_mut(realm) else { return };
        while ledger.sent.contains_key(&ledger.next_id) {
            ledger.next_id = ledger.next_id.wrapping_add(1);
        }
        let id = ledger.next_id;
        ledger.next_id = id.wrapping_add(1);
        let Some(server) = ledger.server(&sent) else { return };
        let delay = now.saturating_sub(sent.entry.at);
        let packet = sent.entry.record.emit(id, delay, &server.secret);
        let Some((packet, authenticator)) =
            packet.and_then(|p| Some((p.clone(), *p.get(4..20)?.as_array()?)))
        else {
            self.lost += 1;
            return;
        };
        sent.authenticator = authenticator;
        sent.left = sent.left.saturating_sub(1);
        sent.resend_at = now + server.timeout;
        self.transmits.push_back(Transmit { realm, server: server.address, packet });
        ledger.sent.insert(id, sent);
    }

    /// Handles a packet that a server sent to a realm's socket. Ignores it if it does not confirm a
    /// record.
    pub fn handle_datagram(&mut self, now: Duration, realm: usize, server: SocketAddr, packet: &[u8]) {
        let (Some(ledger), Some(id)) = (self.ledgers.get_mut(realm), packet.get(1)) else { return };
        let Some(sent) = ledger.sent.get(id) else { return };
        let Some(asked) = ledger.server(sent).filter(|asked| asked.address == server) else { return };
        if !is_response(packet, &sent.authenticator, &asked.secret) {
            return;
        }
        ledger.realm.prefer(sent.server);
        ledger.sent.remove(id);
        (ledger.failures, ledger.resume_at) = (0, Duration::ZERO);
        self.fill(now, realm);
    }

    /// Handles the timers due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        for realm in 0..self.ledgers.len() {
            while let Some(ledger) = self.ledgers.get_mut(realm)
                && let Some((&id, _)) = ledger.sent.iter().find(|(_, sent)| sent.resend_at <= now)
                && let Some(mut sent) = ledger.sent.remove(&id)
            {
                if sent.left == 0 {
                    let Some(next) = sent.others.pop_front() else {
                        self.postpone(now, realm, sent.entry);
                        continue;
                    };
                    sent.left = ledger.realm.servers.get(next).map_or(0, |server| server.tries);
                    sent.server = next;
                }
                self.send(now, realm, sent);
            }
            self.fill(now, realm);
        }
    }

    /// Queues a record again that no server confirmed. All of the realm's records wait, longer each
    /// time.
    fn postpone(&mut self, now: Duration, realm: usize, mut entry: Entry) {
        let Some(ledger) = self.ledgers.get_mut(realm) else { return };
        if ledger.resume_at <= now {
            let pause = Duration::from_secs(1 << ledger.failures.min(6));
            ledger.resume_at = now + pause.min(MAX_PAUSE);
            ledger.failures += 1;
        }
        if entry.record.is_interim {
            return;
        }
        entry.attempts += 1;
        if entry.attempts >= ATTEMPTS {
            // A record that the servers do not want must not hold up the others for long.
            entry.number = ledger.next;
            ledger.next += 1;
        }
        // The gateway's start ends all accounts, so it must not come after theirs.
        let is_late = entry.record.must_be_first && entry.attempts >= ATTEMPTS;
        self.lost += match is_late || now.saturating_sub(entry.at) >= MAX_AGE {
            true => 1,
            false => ledger.insert(entry),
        };
    }

    /// Returns when [`Accounting::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.ledgers.iter().filter_map(Ledger::poll_timeout).min()
    }

    /// Returns the next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }
}

#[cfg(test)]
mod tests;
