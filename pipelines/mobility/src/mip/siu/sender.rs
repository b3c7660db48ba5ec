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
    /// When an update without an answer is sent again.
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
struct Pending {
    update: Update,
    /// The number of times that it was sent again.
    tries: u32,
}

/// The updates of a home agent to one gateway. Times are since any fixed point.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    /// A random number.
    run: u64,
    /// The series of numbers; 0 until the gateway has named one.
    epoch: u64,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// The update for each terminal.
    numbers: BTreeMap<IpAddr, u64>,
    /// Updates that wait until others have been answered, one for each terminal.
    waiting: VecDeque<Update>,
    timers: Timers<u64>,
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
            numbers: BTreeMap::new(),
            waiting: VecDeque::new(),
            timers: Timers::default(),
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Sends an update, in place of an earlier one for the same terminal that has no answer yet.
    ///
    /// # Errors
    /// [`Malformed::Length`] if it is too long for a message. Nothing is sent then.
    pub fn update(&mut self, now: Duration, update: Update) -> Result<(), Malformed> {
        update.emit(self.head(0), &self.settings.key)?;
        if let Some(number) = self.numbers.remove(&update.home) {
            self.pending.remove(&number);
            self.timers.remove(number);
        }
        match self.waiting.iter_mut().find(|other| other.home == update.home) {
            Some(other) => *other = update,
            None => self.waiting.push_back(update),
        }
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
        self.timers.first()
    }

    /// Sends again what has no answer, and gives up what was sent often enough.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(number) = self.timers.take_due(now) {
            if let Some(pending) = self.pending.remove(&number) {
                self.try_again(now, number, pending);
            }
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
                if let Some(Pending { update, .. }) = self.take(head.sequence) {
                    self.events.push_back(Event { update, status: Some(status) });
                }
            }
        }
        self.send_waiting(now);
        Ok(true)
    }

    /// Gives all updates numbers of another series. That counts as a try of each, so it ends.
    fn renumber(&mut self, now: Duration, epoch: u64) {
        (self.epoch, self.next) = (epoch, 1);
        let pending = core::mem::take(&mut self.pending);
        pending.keys().for_each(|number| self.timers.remove(*number));
        for pending in pending.into_values() {
            let number = self.next_number();
            self.try_again(now, number, pending);
        }
    }

    /// Sends an update again with this number, or gives it up.
    fn try_again(&mut self, now: Duration, number: u64, pending: Pending) {
        let tries = pending.tries + 1;
        if tries > self.settings.retransmission.tries {
            self.numbers.remove(&pending.update.home);
            self.events.push_back(Event { update: pending.update, status: None });
        } else {
            self.send(now, number, Pending { tries, ..pending });
        }
    }

    /// Sends the updates that wait, as far as the gateway takes their numbers.
    fn send_waiting(&mut self, now: Duration) {
        while let Some(update) = self.waiting.pop_front() {
            let first = self.pending.keys().next().copied().unwrap_or(self.next);
            if self.next.saturating_sub(first) >= WINDOW {
                self.waiting.push_front(update);
                return;
            }
            let number = self.next_number();
            self.send(now, number, Pending { update, tries: 0 });
        }
    }

    fn send(&mut self, now: Duration, number: u64, pending: Pending) {
        // Whether it fits was seen when it came.
        self.datagrams.extend(pending.update.emit(self.head(number), &self.settings.key));
        self.timers.set(number, now + self.settings.retransmission.after(pending.tries));
        self.numbers.insert(pending.update.home, number);
        self.pending.insert(number, pending);
    }

    fn take(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.timers.remove(number);
        self.numbers.remove(&pending.update.home);
        Some(pending)
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
