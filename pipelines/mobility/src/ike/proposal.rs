//! Offers and choices of algorithms (RFC 7296 §2.7, §3.3; RFC 9370 §2.2.1).

use super::{
    suite::{EspSuite, IkeSuite},
    wire::{Proposal, Transform},
};
use crate::crypto::{Encr, Integ, Kex, Prf};
use alloc::{vec, vec::Vec};

/// Protocol numbers in proposals, notifies and deletes.
pub mod protocol {
    /// IKE.
    pub const IKE: u8 = 1;
    /// AH.
    pub const AH: u8 = 2;
    /// ESP.
    pub const ESP: u8 = 3;
}

const ENCR: u8 = 1;
const PRF: u8 = 2;
const INTEG: u8 = 3;
const KE: u8 = 4;
const ESN: u8 = 5;
/// First and last type of an additional key exchange (RFC 9370 §2.2.1).
const ADDKE: core::ops::RangeInclusive<u8> = 6..=12;
/// The transform that stands for none.
const NONE: u16 = 0;

/// Algorithms that may be combined: one of each kind is used. Either all ciphers are AEADs, or
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Ciphers, best first.
    pub encr: Vec<Encr>,
    /// Integrity algorithms; empty with AEADs.
    pub integ: Vec<Integ>,
    /// Pseudo-random functions, for IKE only.
    pub prf: Vec<Prf>,
    /// Key exchanges; for ESP, an empty list means no perfect forward secrecy.
    pub kex: Vec<Kex>,
    /// Additional key exchanges, each with its choices.
    pub more_kex: Vec<Vec<Kex>>,
}

impl Offer {
    /// Returns the offer as a proposal for IKE.
    pub fn ike(&self, number: u8, spi: &[u8]) -> Proposal {
        self.proposal(number, protocol::IKE, spi, true, &[])
    }

    /// Returns the offer as a proposal for ESP, with key exchanges if `pfs`.
    pub fn esp(&self, number: u8, spi: u32, pfs: bool) -> Proposal {
        self.proposal(number, protocol::ESP, &spi.to_be_bytes(), pfs, &[1, 0])
    }

    fn proposal(&self, number: u8, protocol: u8, spi: &[u8], with_kex: bool, esn: &[u16]) -> Proposal {
        let plain = |kind| move |id| Transform { kind, id, key_bits: None };
        let mut transforms = Vec::new();
        transforms.extend(self.encr.iter().map(|encr| {
            let (id, key_bits) = encr.transform();
            Transform { kind: ENCR, id, key_bits }
        }));
        if protocol == protocol::IKE {
            transforms.extend(self.prf.iter().map(|prf| prf.transform()).map(plain(PRF)));
        }
        transforms.extend(self.integ.iter().map(|integ| integ.transform()).map(plain(INTEG)));
        if with_kex {
            transforms.extend(self.kex.iter().map(|kex| kex.transform()).map(plain(KE)));
            for (kind, choices) in ADDKE.zip(&self.more_kex) {
                transforms.extend(choices.iter().map(|kex| kex.transform()).map(plain(kind)));
            }
        }
        transforms.extend(esn.iter().copied().map(plain(ESN)));
        Proposal { number, protocol, spi: spi.to_vec(), transforms }
    }

    /// Returns true if it permits all that `other` does.
    pub fn covers(&self, other: &Self) -> bool {
        fn has_all<T: PartialEq>(ours: &[T], others: &[T]) -> bool {
            others.iter().all(|one| ours.contains(one))
        }
        let more = self.more_kex.iter().zip(&other.more_kex);
        has_all(&self.encr, &other.encr)
            && has_all(&self.integ, &other.integ)
            && self.integ.is_empty() == other.integ.is_empty()
            && has_all(&self.prf, &other.prf)
            && has_all(&self.kex, &other.kex)
            && self.more_kex.len() == other.more_kex.len()
            && more.into_iter().all(|(ours, others)| has_all(ours, others))
    }

    /// Returns true if it permits the suite.
    fn permits(&self, suite: &IkeSuite) -> bool {
        let more = self.more_kex.iter().zip(&suite.more_kex);
        self.permits_without_more(suite)
            && self.more_kex.len() == suite.more_kex.len()
            && more.into_iter().all(|(choices, kex)| choices.contains(kex))
    }

    /// Returns true if it permits the suite's algorithms but for additional key exchanges.
    fn permits_without_more(&self, suite: &IkeSuite) -> bool {
        self.encr.contains(&suite.encr)
            && suite.integ.map_or(self.integ.is_empty(), |integ| self.integ.contains(&integ))
            && self.prf.contains(&suite.prf)
            && self.kex.contains(&suite.kex)
    }

    /// Chooses from the peer's proposal for IKE: our first choice of each kind.
    fn choose_ike(&self, theirs: &Proposal) -> Option<IkeSuite> {
        let list = Offered { proposal: theirs };
        if theirs.protocol != protocol::IKE || !list.has_only(&[ENCR, PRF, INTEG, KE]) {
            return None;
        }
        Some(IkeSuite {
            encr: list.encr(&self.encr)?,
            integ: list.integ(&self.integ)?,
            prf: *self.prf.iter().find(|prf| list.has(PRF, prf.transform()))?,
            kex: *self.kex.iter().find(|kex| list.has(KE, kex.transform()))?,
            more_kex: list.more_kex(&self.more_kex)?,
        })
    }

    /// Chooses from the peer's proposal for ESP, with key exchanges if `pfs`.
    fn choose_esp(&self, theirs: &Proposal, pfs: bool) -> Option<EspSuite> {
        let list = Offered { proposal: theirs };
        if theirs.protocol != protocol::ESP
            || esp_spi(&theirs.spi).is_none()
            || !list.has_only(&[ENCR, INTEG, KE, ESN])
        {
            return None;
        }
        let mut kex = Vec::new();
        if pfs {
            let is_free = self.kex.is_empty() && (!list.any(KE) || list.has(KE, NONE));
            match self.kex.iter().find(|kex| list.has(KE, kex.transform())) {
                Some(found) => kex.push(*found),
                None if is_free => {}
                // A proposal with key exchanges requires one (RFC 7296 §3.3.3).
                None => return None,
            }
            kex.extend(list.more_kex(&self.more_kex)?);
        }
        Some(EspSuite {
            encr: list.encr(&self.encr)?,
            integ: list.integ(&self.integ)?,
            kex,
            esn: list.has(ESN, 1),
        })
    }
}

/// Returns the SPI of an ESP proposal; `None` if it is invalid: 0 to 255 are reserved (RFC 4303
/// §2.1).
pub fn esp_spi(spi: &[u8]) -> Option<u32> {
    spi.try_into().ok().map(u32::from_be_bytes).filter(|spi| *spi > 255)
}

/// Returns the SPI of an IKE proposal; `None` if it is zero, which stands for none (RFC 7296 §3.1).
pub fn ike_spi(spi: &[u8]) -> Option<u64> {
    spi.try_into().ok().map(u64::from_be_bytes).filter(|spi| *spi != 0)
}

/// A proposal of the peer.
struct Offered<'a> {
    proposal: &'a Proposal,
}

impl Offered<'_> {
    fn any(&self, kind: u8) -> bool {
        self.proposal.transforms.iter().any(|t| t.kind == kind)
    }

    fn has(&self, kind: u8, id: u16) -> bool {
        self.proposal.transforms.iter().any(|t| t.kind == kind && t.id == id && t.key_bits.is_none())
    }

    /// Returns true if all kinds of transforms are known. A proposal with an unknown one must not
    /// be chosen (RFC 7296 §3.3.6).
    fn has_only(&self, kinds: &[u8]) -> bool {
        self.proposal.transforms.iter().all(|t| kinds.contains(&t.kind) || ADDKE.contains(&t.kind))
    }

    fn encr(&self, ours: &[Encr]) -> Option<Encr> {
        let offered = |encr: &&Encr| {
            let (id, key_bits) = encr.transform();
            self.proposal.transforms.contains(&Transform { kind: ENCR, id, key_bits })
        };
        ours.iter().find(offered).copied()
    }

    /// Returns the integrity algorithm to use; `Some(None)` with an AEAD.
    fn integ(&self, ours: &[Integ]) -> Option<Option<Integ>> {
        if ours.is_empty() {
            return (!self.any(INTEG) || self.has(INTEG, NONE)).then_some(None);
        }
        ours.iter().find(|integ| self.has(INTEG, integ.transform())).copied().map(Some)
    }

    /// Returns the additional key exchanges to do: one for each of ours; `None` if the peer
    /// requires another, or does not offer one of ours.
    fn more_kex(&self, ours: &[Vec<Kex>]) -> Option<Vec<Kex>> {
        let mut chosen = Vec::new();
        for (at, kind) in ADDKE.enumerate() {
            let choices = ours.get(at).map_or(&[][..], |choices| &choices[..]);
            match choices.iter().find(|kex| self.has(kind, kex.transform()) && !chosen.contains(*kex)) {
                Some(kex) => chosen.push(*kex),
                // The peer must offer everything that we require. We may leave out what it marks as
                // optional.
                None if !choices.is_empty() => return None,
                None if !self.any(kind) || self.has(kind, NONE) => {}
                None => return None,
            }
        }
        Some(chosen)
    }
}

/// Returns these key exchanges with `chosen` moved to the front.
pub(super) fn first(all: &[Kex], chosen: Option<Kex>) -> Vec<Kex> {
    let (mut chosen, others): (Vec<_>, Vec<_>) = all.iter().partition(|kex| Some(**kex) == chosen);
    chosen.extend(others);
    chosen
}

/// A proposal that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<S> {
    /// The chosen algorithms.
    pub suite: S,
    /// Number of the proposal.
    pub number: u8,
    /// The peer's SPI.
    pub spi: Vec<u8>,
}

fn choose<'a, S>(
    offers: impl IntoIterator<Item = &'a Offer>,
    theirs: &[Proposal],
    take: impl Fn(&Offer, &Proposal) -> Option<S>,
) -> Option<Chosen<S>> {
    offers.into_iter().find_map(|offer| {
        theirs.iter().find_map(|proposal| {
            let suite = take(offer, proposal)?;
            Some(Chosen { suite, number: proposal.number, spi: proposal.spi.clone() })
        })
    })
}

/// Chooses the best of a peer's proposals for IKE, by our order.
pub fn choose_ike(offers: &[Offer], theirs: &[Proposal]) -> Option<Chosen<IkeSuite>> {
    choose(offers, theirs, Offer::choose_ike)
}

/// Chooses the best of a peer's proposals for IKE, by our order, without additional key exchanges.
pub fn choose_ike_without_more(offers: &[Offer], theirs: &[Proposal]) -> Option<Chosen<IkeSuite>> {
    choose(offers.iter().filter(|offer| offer.more_kex.is_empty()), theirs, Offer::choose_ike)
}

/// Chooses the best of a peer's proposals for ESP, by our order; with key exchanges if `pfs`, and
/// if both sides want them.
pub fn choose_esp(offers: &[Offer], theirs: &[Proposal], pfs: bool) -> Option<Chosen<EspSuite>> {
    choose(offers, theirs, |offer, proposal| offer.choose_esp(proposal, pfs))
}

impl IkeSuite {
    /// Returns true if `offers` permit the suite.
    pub fn is_permitted(&self, offers: &[Offer]) -> bool {
        offers.iter().any(|offer| offer.permits(self))
    }

    /// Returns the algorithms that `choose` takes from a peer's proposals if `offers` rank them before
    /// these. The PRF stays: strongSwan loses an IKE SA whose successor has another.
    pub(super) fn better(&self, offers: &[Offer], choose: impl Fn(&[Offer]) -> Option<Self>) -> Option<Self> {
        let with_prf = offers.iter().filter(|offer| offer.prf.contains(&self.prf));
        let with_prf: Vec<_> = with_prf.map(|o| Offer { prf: vec![self.prf], ..o.clone() }).collect();
        choose(&with_prf).filter(|best| best.rank(offers) < self.rank(offers))
    }

    /// Returns the place of the first of `offers` that permits the suite, and the places of its
    /// algorithms in that, but for the PRF.
    fn rank(&self, offers: &[Offer]) -> Option<(usize, Vec<Option<usize>>)> {
        fn place<T: PartialEq>(all: &[T], one: &T) -> Option<usize> {
            all.iter().position(|known| known == one)
        }
        let at = offers.iter().position(|offer| offer.permits(self))?;
        let offer = offers.get(at)?;
        let more = offer.more_kex.iter().zip(&self.more_kex).map(|(choices, kex)| place(choices, kex));
        let others = [
            place(&offer.kex, &self.kex),
            place(&offer.encr, &self.encr),
            self.integ.and_then(|integ| place(&offer.integ, &integ)),
        ];
        Some((at, more.chain(others).collect()))
    }

    /// Returns the offers for a successor with the same algorithms. Additional key exchanges in use
    /// stay. Without any, those of each of `offers` are taken that allows the other algorithms.
    pub fn successors(&self, offers: &[Offer]) -> Vec<Offer> {
        if !self.more_kex.is_empty() {
            return vec![self.offer()];
        }
        let mut all: Vec<Offer> = offers
            .iter()
            .filter(|offer| offer.permits_without_more(self))
            .map(|offer| Offer { more_kex: offer.more_kex.clone(), ..self.offer() })
            .collect();
        all.dedup();
        all
    }

    /// Returns the suite as the only choice of an offer.
    pub fn offer(&self) -> Offer {
        Offer {
            encr: vec![self.encr],
            integ: self.integ.into_iter().collect(),
            prf: vec![self.prf],
            kex: vec![self.kex],
            more_kex: self.more_kex.iter().map(|kex| vec![*kex]).collect(),
        }
    }

    /// Returns the suite as the only proposal of a response.
    pub fn proposal(&self, number: u8, spi: &[u8]) -> Proposal {
        self.offer().ike(number, spi)
    }
}

impl EspSuite {
    /// Returns the offers for a successor with the same algorithms: each of `offers` that allows
    /// them. If there was a key exchange, it stays the only choice, and so do additional ones; so a
    /// peer cannot choose a weaker one. Without additional ones, those of `offers` are added.
    pub fn successors(&self, offers: &[Offer]) -> Vec<Offer> {
        let (first, more) = match &self.kex[..] {
            [first, more @ ..] => (Some(first), more),
            [] => (None, &[][..]),
        };
        let has_same = |offer: &&Offer| {
            offer.encr.contains(&self.encr)
                && self.integ.map_or(offer.integ.is_empty(), |integ| offer.integ.contains(&integ))
                && first.is_none_or(|kex| offer.kex.contains(kex))
                && (more.is_empty() || offer.more_kex.len() == more.len())
                && offer.more_kex.iter().zip(more).all(|(choices, kex)| choices.contains(kex))
        };
        let mut all: Vec<Offer> = offers
            .iter()
            .filter(has_same)
            .map(|offer| Offer {
                encr: vec![self.encr],
                integ: self.integ.into_iter().collect(),
                prf: vec![],
                kex: first.map_or_else(|| offer.kex.clone(), |kex| vec![*kex]),
                more_kex: match more {
                    [] => offer.more_kex.clone(),
                    more => more.iter().map(|kex| vec![*kex]).collect(),
                },
            })
            .collect();
        all.dedup();
        all
    }

    /// Returns the suite as the only proposal of a response.
    pub fn proposal(&self, number: u8, spi: u32) -> Proposal {
        let offer = Offer {
            encr: vec![self.encr],
            integ: self.integ.into_iter().collect(),
            prf: vec![],
            kex: self.kex.first().copied().into_iter().collect(),
            more_kex: self.kex.iter().skip(1).map(|kex| vec![*kex]).collect(),
        };
        let esn = [u16::from(self.esn)];
        offer.proposal(number, protocol::ESP, &spi.to_be_bytes(), true, &esn)
    }
}
