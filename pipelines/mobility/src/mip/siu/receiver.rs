//! The gateway's half.

use super::{
    super::association::NumberKey,
    message::{Acknowledgement, Head, Malformed, SharedKey, Status, Update},
};
use crate::crypto::Random;
use alloc::{vec, vec::Vec};
use core::net::IpAddr;

/// The number of updates up to the highest number whose fate is known. Earlier ones are refused.
pub(super) const WINDOW: u64 = 1024;

/// What a gateway has done about an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The link has moved, and then the reply was forwarded.
    Done,
    /// There is no such link here.
    UnknownLink,
    /// The link or the address is not this terminal's, or the link does not follow this home agent.
    Refused,
    /// No authentic packet of the link has come from the new address, or nothing can be sent there.
    Unreachable,
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::UnknownLink => Self::UnknownLink,
            Outcome::Refused => Self::Refused,
            Outcome::Unreachable => Self::Unreachable,
        }
    }
}

/// An update that was here.
#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    home: IpAddr,
    status: Status,
}

/// What a gateway knows of the updates of one home agent.
#[derive(Debug)]
pub struct Receiver {
    key: SharedKey,
    /// Names series of numbers. Another one each time that the gateway starts, so that no update from before counts.
    epochs: NumberKey,
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
        Self {
            key,
            epochs: NumberKey::new(random),
            epoch: 0,
            highest: 0,
            recent: vec![None; WINDOW as usize],
        }
    }

    /// Takes a datagram, and has `carry_out` carry the update in it out, if that is due. Returns the answer to send.
    ///
    /// # Errors
    /// [`Malformed`] if it is not to be answered: it is no update of this home agent's.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        carry_out: impl FnOnce(Update) -> Outcome,
    ) -> Result<Vec<u8>, Malformed> {
        let (head, update) = Update::parse(datagram, &self.key)?;
        if head.epoch != 0 && head.epoch == self.next_epoch(head.run) {
            (self.epoch, self.highest) = (head.epoch, 0);
            self.recent.fill(None);
        }
        let status = self.status(head, update, carry_out);
        let next_epoch = if status == Status::Renumber { self.next_epoch(head.run) } else { 0 };
        Ok(Acknowledgement { status, next_epoch }.emit(head, &self.key))
    }

    /// Returns what has become of an update, which is carried out if it is new.
    fn status(&mut self, head: Head, update: Update, carry_out: impl FnOnce(Update) -> Outcome) -> Status {
        let is_known = head.epoch != 0 && head.epoch == self.epoch;
        if !is_known || head.sequence == 0 || head.sequence <= self.highest.saturating_sub(WINDOW) {
            return Status::Renumber;
        }
        let slot = (head.sequence % WINDOW) as usize;
        if let Some(seen) = self.recent[slot].filter(|seen| seen.sequence == head.sequence) {
            return seen.status;
        }
        let (sequence, home) = (head.sequence, update.home);
        let is_late = sequence < self.highest && self.has_later(sequence, home);
        let status = if is_late { Status::Superseded } else { carry_out(update).into() };
        self.recent[slot] = Some(Seen { sequence, home, status });
        self.highest = self.highest.max(sequence);
        status
    }

    /// Returns whether an update for the terminal with this home address has a higher number.
    fn has_later(&self, sequence: u64, home: IpAddr) -> bool {
        self.recent.iter().flatten().any(|seen| seen.sequence > sequence && seen.home == home)
    }

    /// Returns the series that this run of the home agent may begin. It depends on the present one, so once another
    /// has begun, it is none any more, and neither are those before.
    fn next_epoch(&self, run: u64) -> u64 {
        self.epochs.number(&[&self.epoch.to_be_bytes(), &run.to_be_bytes()]).max(1)
    }
}
