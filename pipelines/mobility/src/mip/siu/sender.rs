//! The home agent's half.

use super::{
    message::{Acknowledgement, Head, Malformed, SharedKey, Status, Update},
    receiver::WINDOW,
};
use crate::{crypto::Random, retransmission::Retransmission, timers::Timers};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::{net::IpAddr, time::Duration};

/// What a home agent and a gateway agree on.
#[derive(Debug)]
pub struct Settings {
    /// The shared key.
    pub key: SharedKey,
    /// When an update without an answer is sent again, and given up.
    pub retransmission: Retransmission,
}

/// What has become of an update. One that a later one for the same terminal has replaced has no event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// The update.
    pub update: Update,
    /// The gateway's answer; `None` if none came.
    pub status: Option<Status>,
}

/// An update without an answer.
#[derive(Debug)]
struct Unanswered {
    update: Update,
    /// When it is given up.
    until: Duration,
    /// The number of times that it was sent again.
    tries: u32,
}

/// Where the update for a terminal is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Among those that were sent, by its number.
    Pending(u64),
    /// Among those that wait, by its turn.
    Waiting(u64),
}

/// The updates of a home agent to one gateway. Times are since any fixed point.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    /// A random number.
    run: u64,
    /// The series of numbers; 0 until the gateway has named one.
    epoch: u64,
    /// The next number. No number comes twice in a run, so that no answer fits two updates.
    next: u64,
    /// Those that were sent, by their numbers.
    pending: BTreeMap<u64, Unanswered>,
    timers: Timers<u64>,
    next_turn: u64,
    /// Those that wait until others have answers, by their turns.
    waiting: BTreeMap<u64, Unanswered>,
    places: BTreeMap<IpAddr, Place>,
    datagrams: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Sender {
    /// Creates the state for a gateway.
    pub fn new(settings: Settings, random: &dyn Random) -> Self {
        let mut run = [0; 8];
        random.fill(&mut run);
        Self {
            settings,
            run: u64::from_ne_bytes(run),
            epoch: 0,
            next: 1,
            pending: BTreeMap::new(),
            timers: Timers::default(),
            next_turn: 0,
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Sends an update, in place of an earlier one for the same terminal that has no answer yet.
    ///
    /// # Errors
    /// Those of [`Update::emit`], if it cannot be sent.
    pub fn update(&mut self, now: Duration, update: Update) -> Result<(), Malformed> {
        update.check()?;
        match self.places.remove(&update.home) {
            Some(Place::Pending(number)) => {
                self.pending.remove(&number);
                self.timers.remove(number);
            }
            Some(Place::Waiting(turn)) => _ = self.waiting.remove(&turn),
            None => {}
        }
        let (turn, until) = (self.next_turn, now + self.settings.retransmission.total());
        self.next_turn += 1;
        self.places.insert(update.home, Place::Waiting(turn));
        self.waiting.insert(turn, Unanswered { update, until, tries: 0 });
        self.send_waiting(now);
        Ok(())
    }

    /// Returns a datagram for the gateway, if there is one to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.datagrams.pop_front()
    }

    /// Returns what has become of an update.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when something is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let given_up = self.waiting.values().next().map(|waiting| waiting.until);
        self.timers.first().into_iter().chain(given_up).min()
    }

    /// Sends again what has no answer, and gives up what was sent often enough or has waited as long.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(number) = self.timers.take_due(now) {
            if let Some(pending) = self.pending.remove(&number) {
                self.try_again(now, number, pending);
            }
        }
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.get().until <= now) {
            let update = entry.remove().update;
            self.end(update, None);
        }
        self.send_waiting(now);
    }

    /// Takes a datagram from the gateway. Returns whether it answers an update.
    ///
    /// # Errors
    /// [`Malformed`] if it is no acknowledgement of this gateway's.
    pub fn receive(&mut self, now: Duration, datagram: &[u8]) -> Result<bool, Malformed> {
        let (head, acknowledgement) = Acknowledgement::parse(datagram, &self.settings.key)?;
        if head != self.head(head.sequence) || !self.pending.contains_key(&head.sequence) {
            return Ok(false);
        }
        match acknowledgement.status {
            Status::Renumber => self.renumber(now, acknowledgement.next_epoch),
            status => {
                self.timers.remove(head.sequence);
                if let Some(answered) = self.pending.remove(&head.sequence) {
                    self.end(answered.update, Some(status));
                }
            }
        }
        self.send_waiting(now);
        Ok(true)
    }

    /// Gives all updates that were sent numbers of another series. That counts as a try of each, so it ends.
    fn renumber(&mut self, now: Duration, epoch: u64) {
        self.epoch = epoch;
        let pending = core::mem::take(&mut self.pending);
        pending.keys().for_each(|number| self.timers.remove(*number));
        for pending in pending.into_values() {
            let number = self.next_number();
            self.try_again(now, number, pending);
        }
    }

    /// Sends an update again with this number, or gives it up.
    fn try_again(&mut self, now: Duration, number: u64, pending: Unanswered) {
        let tries = pending.tries + 1;
        if tries > self.settings.retransmission.tries || pending.until <= now {
            self.end(pending.update, None);
        } else {
            self.send(now, number, Unanswered { tries, ..pending });
        }
    }

    fn end(&mut self, update: Update, status: Option<Status>) {
        self.places.remove(&update.home);
        self.events.push_back(Event { update, status });
    }

    /// Sends the updates that wait, as far as the gateway can tell so many apart.
    fn send_waiting(&mut self, now: Duration) {
        loop {
            let oldest = self.pending.keys().next().copied().unwrap_or(self.next);
            if self.next - oldest >= WINDOW {
                return;
            }
            let Some((_, first)) = self.waiting.pop_first() else { return };
            let number = self.next_number();
            self.send(now, number, first);
        }
    }

    fn send(&mut self, now: Duration, number: u64, pending: Unanswered) {
        // It was checked when it came.
        self.datagrams.extend(pending.update.emit(self.head(number), &self.settings.key));
        let wait = self.settings.retransmission.after(pending.tries);
        self.timers.set(number, pending.until.min(now + wait));
        self.places.insert(pending.update.home, Place::Pending(number));
        self.pending.insert(number, pending);
    }

    fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn head(&self, sequence: u64) -> Head {
        Head { epoch: self.epoch, sequence, run: self.run }
    }
}
