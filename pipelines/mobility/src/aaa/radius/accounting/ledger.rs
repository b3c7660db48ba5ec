//! The records for one group of servers, and what of them is under way.

use super::super::{
    question::{Realm, Server},
    record::{Order, Record, is_response},
};
use crate::timers::Timers;
use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::{
    net::SocketAddr,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

/// Most records that are under way at a time: half as many as there are identifiers, so that
/// answers to earlier transmissions are recognized too.
pub const WINDOW: usize = 128;
/// Most records that wait.
pub const WAITING: usize = 1 << 16;
/// Time for which a record is kept.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Number of failures after which the gateway's start is given up. After as many failures while the
/// servers confirm other records, a record no longer counts as a sign that they are silent.
const ATTEMPTS: u32 = 8;
/// Number of failures in a row that make the servers count as silent in the log.
const SILENT: u32 = 2;
/// Most time between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A record that no server has confirmed.
#[derive(Debug)]
struct Entry {
    record: Record,
    /// When it happened.
    at: Duration,
    /// Earliest time of the next attempt.
    not_before: Duration,
    /// Number of attempts that failed although the servers confirmed other records meanwhile; for the
    /// gateway's start, of all that failed.
    refusals: u32,
    /// Number of confirmations when its last attempt failed, or its first one began.
    confirmations: Option<u64>,
    attempt: Option<Attempt>,
}

/// An attempt to have any of the servers confirm a record.
#[derive(Debug)]
struct Attempt {
    server: usize,
    /// The servers that are asked after this one.
    others: VecDeque<usize>,
    /// Number of times that the record may still be sent to this server.
    left: u32,
    /// The newest identifier.
    id: u8,
}

/// What was sent with an identifier.
#[derive(Debug)]
struct Transmission {
    number: u64,
    server: usize,
    authenticator: [u8; 16],
}

/// The records for one group of servers.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) realm: Arc<Realm>,
    /// True if no new records will come.
    pub(super) is_retired: bool,
    /// All unconfirmed records, the oldest first.
    records: BTreeMap<u64, Entry>,
    next: u64,
    /// The numbers of each session's records. Only the first of them may be sent.
    sessions: BTreeMap<String, VecDeque<u64>>,
    /// The records that may be sent, by time and number.
    ready: BTreeSet<(Duration, u64)>,
    /// The interim records that are not under way.
    interims: BTreeSet<u64>,
    /// Number of records of the gateway's end.
    closings: usize,
    /// When records under way are sent again.
    timers: Timers<u64>,
    /// The last transmissions, by identifier. They stay when an attempt fails, because a slow server
    /// may still confirm them.
    transmissions: BTreeMap<u8, Transmission>,
    next_id: u8,
    /// Number of answers so far.
    confirmations: u64,
    /// Number of attempts in a row of which no answer tells that the servers live.
    failures: u32,
    /// When the next attempt may begin.
    resume_at: Duration,
    /// The record whose attempt began last, as it stood in `ready`.
    last: (Duration, u64),
    silence: Option<Silence>,
}

/// A time in which no server of a realm confirms records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// None of the servers has confirmed two records in a row.
    Begins,
    /// One of the servers has confirmed a record again.
    Ends,
}

/// Returns the pause after so many failures.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(MAX_PAUSE)
}

impl Ledger {
    pub(super) fn new(realm: Arc<Realm>) -> Self {
        Self {
            realm,
            is_retired: false,
            records: BTreeMap::new(),
            next: 0,
            sessions: BTreeMap::new(),
            ready: BTreeSet::new(),
            interims: BTreeSet::new(),
            closings: 0,
            timers: Timers::default(),
            transmissions: BTreeMap::new(),
            next_id: 0,
            confirmations: 0,
            failures: 0,
            resume_at: Duration::ZERO,
            last: (Duration::ZERO, 0),
            silence: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.records.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns true if a record is under way.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.timers.is_empty()
    }

    /// Returns true if the gateway's start must be settled before anything else.
    pub(super) fn is_opening(&self) -> bool {
        self.records.first_key_value().is_some_and(|(_, first)| first.record.order == Order::First)
    }

    /// Returns true if nothing is left but the gateway's end.
    pub(super) fn is_closing(&self) -> bool {
        self.records.len() == self.closings
    }

    /// Adds a record. Returns the number of records that were lost to make room.
    pub(super) fn push(&mut self, record: Record, at: Duration) -> u64 {
        let last = self.sessions.get(&record.id).and_then(|session| session.back().copied());
        if let Some(interim) = last.filter(|last| self.interims.contains(last)) {
            // Whatever is newer about a session says more.
            self.remove(interim);
        }
        let lost = self.make_room();
        let number = self.next;
        self.next += 1;
        let session = self.sessions.entry(record.id.clone()).or_default();
        session.push_back(number);
        if session.len() == 1 {
            self.ready.insert((Duration::ZERO, number));
        }
        match record.order {
            Order::Interim => _ = self.interims.insert(number),
            Order::Last => self.closings += 1,
            Order::First | Order::Ordinary => {}
        }
        let entry =
            Entry { record, at, not_before: Duration::ZERO, refusals: 0, confirmations: None, attempt: None };
        self.records.insert(number, entry);
        lost
    }

    /// Removes records so that there is room for another one. Returns the number of records that are
    /// lost: all but interim ones.
    fn make_room(&mut self) -> u64 {
        let mut lost = 0;
        while self.records.len() - self.timers.len() >= WAITING {
            let interim = self.interims.first().copied();
            lost += u64::from(interim.is_none());
            let oldest = || self.records.iter().find(|(_, entry)| entry.attempt.is_none());
            let Some(number) = interim.or_else(|| oldest().map(|(number, _)| *number)) else { break };
            self.remove(number);
        }
        lost
    }

    /// Removes a record, after which the next one of its session may be sent.
    fn remove(&mut self, number: u64) {
        let Some(entry) = self.records.remove(&number) else { return };
        self.ready.remove(&(entry.not_before, number));
        self.interims.remove(&number);
        self.timers.remove(number);
        self.closings -= usize::from(entry.record.order == Order::Last);
        let Some(session) = self.sessions.get_mut(&entry.record.id) else { return };
        session.retain(|other| *other != number);
        let Some(&front) = session.front() else {
            self.sessions.remove(&entry.record.id);
            return;
        };
        if let Some(next) = self.records.get(&front).filter(|next| next.attempt.is_none()) {
            self.ready.insert((next.not_before, front));
        }
    }

    /// Returns how many records may be under way. Silent servers get one at a time, and the gateway's
    /// start goes alone.
    fn window(&self) -> usize {
        if self.failures > 0 || self.is_opening() { 1 } else { WINDOW }
    }

    /// Returns true if this record is the gateway's end, which must come after all others.
    fn is_too_early(&self, number: u64) -> bool {
        let is_last = |entry: &Entry| entry.record.order == Order::Last;
        !self.is_closing() && self.records.get(&number).is_some_and(is_last)
    }

    /// Returns the next record to send, if there is one and its time has come.
    pub(super) fn next(&self, now: Duration) -> Option<u64> {
        if self.timers.len() >= self.window() || self.resume_at > now {
            return None;
        }
        // The gateway's start is the first of all. While the servers are silent, each other record
        // has its turn: the oldest may be one that they do not want.
        let takes_turns = self.failures > 0 && !self.is_opening();
        let others = self.ready.range((Excluded(self.last), Unbounded)).filter(|_| takes_turns);
        let is_due = |(at, _): &&(Duration, u64)| *at <= now;
        let mut due = others.take_while(is_due).chain(self.ready.iter().take_while(is_due));
        due.find(|(_, number)| !self.is_too_early(*number)).map(|(_, number)| *number)
    }

    /// Begins an attempt to have a record confirmed. Returns the first server and packet; `None` if
    /// the record was given up.
    pub(super) fn begin(&mut self, now: Duration, number: u64) -> Option<(SocketAddr, Vec<u8>)> {
        let mut others: VecDeque<usize> = self.realm.order().collect();
        let server = others.pop_front();
        let entry = self.records.get_mut(&number)?;
        let is_old = now.saturating_sub(entry.at) >= MAX_AGE;
        let Some(server) = server.filter(|_| !is_old) else {
            self.remove(number);
            return None;
        };
        let left = self.realm.servers.get(server).map_or(0, |server| server.tries);
        entry.confirmations.get_or_insert(self.confirmations);
        entry.attempt = Some(Attempt { server, others, left, id: 0 });
        self.last = (entry.not_before, number);
        self.ready.remove(&self.last);
        self.interims.remove(&number);
        self.send(now, number)
    }

    /// Encodes a record under way, with a new identifier, because its Acct-Delay-Time is new (RFC
    /// 2866 §5.2). Returns `None` if the record was given up because it cannot be encoded.
    fn send(&mut self, now: Duration, number: u64) -> Option<(SocketAddr, Vec<u8>)> {
        let id = self.take_id();
        let realm = self.realm.clone();
        let entry = self.records.get_mut(&number)?;
        let attempt = entry.attempt.as_mut()?;
        let packet = realm.servers.get(attempt.server).and_then(|server| {
            let packet = entry.record.emit(id, now.saturating_sub(entry.at), &server.secret)?;
            Some((*packet.get(4..20)?.as_array()?, packet, server))
        });
        let Some((authenticator, packet, Server { address, timeout, .. })) = packet else {
            self.remove(number);
            return None;
        };
        (attempt.id, attempt.left) = (id, attempt.left.saturating_sub(1));
        let transmission = Transmission { number, server: attempt.server, authenticator };
        self.timers.set(number, now + *timeout);
        self.transmissions.insert(id, transmission);
        Some((*address, packet))
    }

    /// Returns an identifier that is no record's newest. Its former use is forgotten.
    fn take_id(&mut self) -> u8 {
        let is_newest = |id: u8| {
            let sent = self.transmissions.get(&id).and_then(|sent| self.records.get(&sent.number));
            sent.and_then(|entry| entry.attempt.as_ref()).is_some_and(|attempt| attempt.id == id)
        };
        let ids = (0..=u8::MAX).map(|n| self.next_id.wrapping_add(n));
        let id = ids.into_iter().find(|id| !is_newest(*id)).unwrap_or(self.next_id);
        self.next_id = id.wrapping_add(1);
        id
    }

    /// Handles a packet of a server. Returns false if it confirms nothing that this server was sent.
    pub(super) fn handle_answer(&mut self, server: SocketAddr, packet: &[u8]) -> bool {
        let Some(id) = packet.get(1) else { return false };
        let Some(sent) = self.transmissions.get(id) else { return false };
        let asked = self.realm.servers.get(sent.server).filter(|asked| asked.address == server);
        if !asked.is_some_and(|asked| is_response(packet, &sent.authenticator, &asked.secret)) {
            return false;
        }
        let number = sent.number;
        self.realm.prefer(sent.server);
        self.transmissions.remove(id);
        self.remove(number);
        self.confirmations += 1;
        if self.failures >= SILENT {
            self.silence = Some(Silence::Ends);
        }
        (self.failures, self.resume_at) = (0, Duration::ZERO);
        true
    }

    /// Returns a record under way whose server has not answered in time.
    pub(super) fn take_overdue(&mut self, now: Duration) -> Option<u64> {
        self.timers.take_due(now)
    }

    /// Sends such a record again, or to the next server. Returns `None` if the attempt has failed.
    pub(super) fn repeat(&mut self, now: Duration, number: u64) -> Option<(SocketAddr, Vec<u8>)> {
        let attempt = self.records.get_mut(&number)?.attempt.as_mut()?;
        if attempt.left == 0 {
            attempt.server = attempt.others.pop_front()?;
            attempt.left = self.realm.servers.get(attempt.server).map_or(0, |server| server.tries);
        }
        self.send(now, number)
    }

    /// Handles the end of an attempt that no server confirmed. Returns true if the record is lost.
    pub(super) fn fail(&mut self, now: Duration, number: u64) -> bool {
        let Some(entry) = self.records.get_mut(&number) else { return false };
        let is_first = entry.record.order == Order::First;
        entry.attempt = None;
        let others = entry.confirmations.replace(self.confirmations) < Some(self.confirmations);
        entry.refusals += u32::from(others || is_first);
        let is_refused = entry.refusals >= ATTEMPTS;
        if !is_first && (others || is_refused) {
            // The servers live, so no other record waits for this one.
            entry.not_before = now + pause(entry.refusals);
        } else if self.resume_at <= now {
            self.resume_at = now + pause(self.failures);
            self.failures += 1;
            if self.failures == SILENT {
                self.silence = Some(Silence::Begins);
            }
        }
        let is_old = now.saturating_sub(entry.at) >= MAX_AGE;
        let is_lost = is_old || (is_first && is_refused);
        if is_lost || entry.record.order == Order::Interim {
            self.remove(number);
        } else {
            self.ready.insert((entry.not_before, number));
        }
        is_lost
    }

    /// Returns whether the servers have become silent, or answer again, since the last call.
    pub(super) fn take_silence(&mut self) -> Option<Silence> {
        self.silence.take()
    }

    /// Returns when records under way are to be sent again.
    pub(super) fn overdue_at(&self) -> Option<Duration> {
        self.timers.first()
    }

    /// Returns when the next record may be sent.
    pub(super) fn next_at(&self) -> Option<Duration> {
        let mut ready = self.ready.iter().filter(|_| self.timers.len() < self.window());
        let (at, _) = ready.find(|(_, number)| !self.is_too_early(*number))?;
        Some(self.resume_at.max(*at))
    }
}
