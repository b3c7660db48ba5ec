//! The networks that terminals are attached to, some of them behind NATs.

use super::{
    disturbance::{Attachment, Disturbance},
    nat::{Endpoints, Nat},
};
use std::{
    collections::HashMap,
    mem,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// 10.0.0.0: the first address behind each NAT.
const INSIDE: u32 = 0x0a00_0000;
/// 100.64.0.0: the first address without a NAT.
const DIRECT: u32 = 0x6440_0000;
/// 100.96.0.0: the external address of the first NAT.
const NATS: u32 = 0x6460_0000;
/// Number of addresses without a NAT, and behind each.
const ADDRESSES: u32 = 1 << 21;

/// NATs, and the terminals behind them or without one.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    /// The NATs, in front of one network each.
    pub nats: Vec<Nat>,
    /// Each terminal's attachment, and whether it is a black hole.
    attachments: Vec<(Attachment, bool)>,
    /// Terminals by their attachments.
    terminals: HashMap<Attachment, usize>,
    /// Offset of the last address that was given out.
    last: u32,
}

impl Networks {
    /// Makes networks behind these NATs, each of which gets an external address of its own.
    pub fn new(nats: impl IntoIterator<Item = Nat>) -> Self {
        let mut nats: Vec<Nat> = nats.into_iter().collect();
        nats.iter_mut().zip(NATS..).for_each(|(nat, address)| nat.address = v4(address));
        Self { nats, ..Self::default() }
    }

    /// Returns an attachment that no terminal has, behind this NAT or without one.
    pub fn vacancy(&mut self, nat: Option<usize>) -> Attachment {
        let first = if nat.is_some() { INSIDE } else { DIRECT };
        loop {
            self.last = (self.last + 1) % ADDRESSES;
            let at = Attachment { address: v4(first + self.last), nat };
            if !self.terminals.contains_key(&at) {
                return at;
            }
        }
    }

    /// Attaches the terminal with the next index.
    ///
    /// # Panics
    /// If another terminal has this attachment.
    pub fn attach(&mut self, at: Attachment) {
        self.occupy(self.attachments.len(), at);
        self.attachments.push((at, false));
    }

    fn occupy(&mut self, terminal: usize, at: Attachment) {
        let other = self.terminals.insert(at, terminal);
        assert_eq!(other, None, "a terminal is at {at:?} already");
    }

    /// Returns a terminal's attachment.
    pub fn attachment(&self, terminal: usize) -> Attachment {
        self.attachments[terminal].0
    }

    /// Returns the address that hosts elsewhere see of a terminal with this attachment.
    pub fn external_address(&self, at: Attachment) -> IpAddr {
        at.nat.map_or(at.address, |nat| self.nats[nat].address)
    }

    /// Applies a disturbance of the networks.
    ///
    /// # Panics
    /// If it is a disturbance of anything else.
    pub fn apply(&mut self, disturbance: &Disturbance) {
        match *disturbance {
            // A black hole belongs to an attachment, so a terminal that moves leaves it behind.
            Disturbance::Move { terminal, to } => {
                let (left, _) = mem::replace(&mut self.attachments[terminal], (to, false));
                self.terminals.remove(&left);
                if let Some(nat) = left.nat {
                    self.nats[nat].forget(left.address);
                }
                self.occupy(terminal, to);
            }
            Disturbance::NatRestart { nat } => self.nats[nat].restart(),
            Disturbance::BlackHole { terminal } => self.attachments[terminal].1 = true,
            Disturbance::Repair { terminal } => self.attachments[terminal].1 = false,
            other => panic!("{other:?} does not concern networks"),
        }
    }

    /// Translates a packet that a terminal sends; returns `None` if it is lost, because of a black
    /// hole, a source that is not the terminal's address, or the NAT.
    pub fn outward(&mut self, now: Duration, terminal: usize, ends: Endpoints) -> Option<Endpoints> {
        let (at, is_hole) = self.attachments[terminal];
        if is_hole || ends.from.ip() != at.address {
            return None;
        }
        match at.nat {
            Some(nat) => self.nats[nat].outbound(now, ends),
            None => Some(ends),
        }
    }

    /// Translates a packet from elsewhere. Returns the terminal that it reaches, and its endpoints
    /// there; `None` if it reaches none.
    pub fn inward(&self, now: Duration, ends: Endpoints) -> Option<(usize, Endpoints)> {
        let nat = self.nat_at(ends.to.ip());
        let ends = match nat {
            Some(nat) => self.nats[nat].inbound(now, ends)?,
            None => ends,
        };
        let terminal = *self.terminals.get(&Attachment { address: ends.to.ip(), nat })?;
        let (_, is_hole) = self.attachments[terminal];
        (!is_hole).then_some((terminal, ends))
    }

    /// Returns the index of the NAT with this external address.
    fn nat_at(&self, address: IpAddr) -> Option<usize> {
        let IpAddr::V4(address) = address else { return None };
        let nat = address.to_bits().checked_sub(NATS)? as usize;
        (nat < self.nats.len()).then_some(nat)
    }
}

fn v4(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}
