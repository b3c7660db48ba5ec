//! Chooses algorithms that a client and a connection both have, for clients that take one of each.

use wayfarer_mobility::{
    crypto::{Encr, Integ, Kex, Prf},
    ike::proposal::Offer,
};

/// What a client knows, best first, with its own names.
pub(super) struct Known {
    pub encr: &'static [(Encr, &'static str)],
    pub hash: &'static [(Hash, &'static str)],
    pub kex: &'static [(Kex, &'static str)],
}

/// A hash, which these clients use for integrity and as the pseudo-random function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn integ(self) -> Integ {
        match self {
            Self::Sha256 => Integ::HmacSha256,
            Self::Sha384 => Integ::HmacSha384,
            Self::Sha512 => Integ::HmacSha512,
        }
    }

    fn prf(self) -> Prf {
        match self {
            Self::Sha256 => Prf::HmacSha256,
            Self::Sha384 => Prf::HmacSha384,
            Self::Sha512 => Prf::HmacSha512,
        }
    }
}

/// One algorithm of each kind, by the client's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    pub encr: &'static str,
    /// True if the cipher needs no integrity algorithm.
    pub is_aead: bool,
    pub hash: &'static str,
    /// `None` for child SAs without a key exchange of their own.
    pub kex: Option<&'static str>,
}

/// Returns the client's best algorithms that one of the offers has.
pub(super) fn choose(offers: &[Offer], known: &Known) -> Option<Choice> {
    // A client that knows one of each kind does no additional key exchanges.
    let offers = || offers.iter().filter(|offer| offer.more_kex.is_empty());
    known.encr.iter().find_map(|(encr, name)| {
        offers().filter(|offer| offer.encr.contains(encr)).find_map(|offer| {
            let has = |(hash, _): &&(Hash, _)| {
                (encr.is_aead() || offer.integ.contains(&hash.integ()))
                    && (offer.prf.is_empty() || offer.prf.contains(&hash.prf()))
            };
            let (_, hash) = known.hash.iter().find(has)?;
            let kex = known.kex.iter().find(|(kex, _)| offer.kex.contains(kex)).map(|(_, name)| *name);
            let choice = Choice { encr: name, is_aead: encr.is_aead(), hash, kex };
            (kex.is_some() || offer.kex.is_empty()).then_some(choice)
        })
    })
}
