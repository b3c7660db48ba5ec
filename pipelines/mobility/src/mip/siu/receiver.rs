//! The gateway's half.

use super::{
    super::association::NonceKey,
    message::{Acknowledgement, Head, Malformed, SharedKey, Status, Update},
};
use crate::crypto::Random;
use alloc::{vec, vec::Vec};
use core::net::IpAddr;

/// The number of updates before the highest number whose fate is known, and of those that may come before others
/// that they follow.
pub(super) const WINDOW: u64 = 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// An update that was not here before. It is to be answered once it is carried out.
    Update(Update, Ticket),
    /// Send this back. Nothing else is to be done.
    Answer(Vec<u8>),
    /// An update that is being carried out. Nothing is to be done.
    Again,
}

/// Names an update that is to be answered.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket(Head);

/// An update that was here.
#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    home: IpAddr,
    /// `None` while it is being carried out.
    status: Option<Status>,
}

/// What a gateway knows of the updates of one home agent.
#[derive(Debug)]
pub struct Receiver {
    key: SharedKey,
    /// Names series of numbers. Another one in each run of the gateway, so that no update to an earlier run counts.
    epochs: NonceKey,
    /// The series that updates are of now.
    epoch: u64,
    /// The highest number in it so far.
    highest: u64,
    /// Its last updates, each in the slot of its number.
    recent: Vec<Option<Seen>>,
}

impl Receiver {
    /// Creates the state for a home agent with which the gateway shares `key`.
    pub fn new(key: SharedKey, random: &dyn Random) -> Self {
        // No update is of series 0, so each home agent is told another one first.
        Self { key, epochs: NonceKey::new(random), epoch: 0, highest: 0, recent: vec![None; WINDOW as usize] }
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// [`Malformed`] if it is not to be answered: it is no update of this home agent's.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<Received, Malformed> {
        let (head, update) = Update::parse(datagram, &self.key)?;
        if head.epoch != 0 && head.epoch == self.next_epoch(head.run) {
            (self.epoch, self.highest) = (head.epoch, 0);
            self.recent.fill(None);
        }
        let oldest = self.highest.saturating_sub(WINDOW - 1).max(1);
        let last = self.highest.saturating_add(WINDOW);
        let is_known = head.epoch != 0 && head.epoch == self.epoch;
        if !is_known || !(oldest..=last).contains(&head.sequence) {
            return Ok(Received::Answer(self.emit(head, Status::Renumber)));
        }
        if let Some(seen) = self.recent[slot(head.sequence)].filter(|seen| seen.sequence == head.sequence) {
            return Ok(match seen.status {
                Some(status) => Received::Answer(self.emit(head, status)),
                None => Received::Again,
            });
        }
        let is_late = head.sequence < self.highest && self.has_later(head.sequence, update.home);
        let status = is_late.then_some(Status::Superseded);
        self.recent[slot(head.sequence)] = Some(Seen { sequence: head.sequence, home: update.home, status });
        self.highest = self.highest.max(head.sequence);
        Ok(match status {
            Some(status) => Received::Answer(self.emit(head, status)),
            None => Received::Update(update, Ticket(head)),
        })
    }

    /// Notes what has become of an update. Returns the acknowledgement to send.
    pub fn answer(&mut self, Ticket(head): Ticket, status: Status) -> Vec<u8> {
        if let Some(seen) = &mut self.recent[slot(head.sequence)]
            && (self.epoch, seen.sequence) == (head.epoch, head.sequence)
        {
            seen.status = Some(status);
        }
        self.emit(head, status)
    }

    /// Returns whether an update for the terminal with this home address has a higher number.
    fn has_later(&self, sequence: u64, home: IpAddr) -> bool {
        self.recent.iter().flatten().any(|seen| seen.sequence > sequence && seen.home == home)
    }

    fn emit(&self, head: Head, status: Status) -> Vec<u8> {
        let next_epoch = if status == Status::Renumber { self.next_epoch(head.run) } else { 0 };
        Acknowledgement { status, next_epoch }.emit(head, &self.key)
    }

    /// Returns the series that this run of the home agent may begin. It depends on the present one, so once another
    /// has begun, it is none any more, and neither are those before.
    fn next_epoch(&self, run: u64) -> u64 {
        self.epochs.number(&[&self.epoch.to_be_bytes(), &run.to_be_bytes()]).max(1)
    }
}

/// Returns the slot of an update's number.
fn slot(sequence: u64) -> usize {
    (sequence % WINDOW) as usize
}
