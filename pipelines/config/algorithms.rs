//! The names of IKE's and ESP's algorithms, as strongSwan writes them:
//! `aes256gcm16-prfsha384-x25519`.

use super::error::{Rule, nearest};
use wayfarer_mobility::{
    crypto::{Encr, Integ, Kex, Prf},
    ike::{
        proposal::Offer,
        suite::{EspSuite, IkeSuite},
    },
};

/// The protocol that a proposal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Ike,
    Esp,
}

/// The word for the default proposals.
const DEFAULT: &str = "default";

const ENCR: [(&str, Encr); 7] = [
    ("aes256gcm16", Encr::AesGcm(256)),
    ("aes192gcm16", Encr::AesGcm(192)),
    ("aes128gcm16", Encr::AesGcm(128)),
    ("chacha20poly1305", Encr::ChaCha20Poly1305),
    ("aes256", Encr::AesCbc(256)),
    ("aes192", Encr::AesCbc(192)),
    ("aes128", Encr::AesCbc(128)),
];

const INTEG: [(&str, Integ); 3] =
    [("sha256", Integ::HmacSha256), ("sha384", Integ::HmacSha384), ("sha512", Integ::HmacSha512)];

const PRF: [(&str, Prf); 3] =
    [("prfsha384", Prf::HmacSha384), ("prfsha256", Prf::HmacSha256), ("prfsha512", Prf::HmacSha512)];

const KEX: [(&str, Kex); 9] = [
    ("x25519", Kex::X25519),
    ("ecp256", Kex::Ecp256),
    ("ecp384", Kex::Ecp384),
    ("ecp521", Kex::Ecp521),
    ("modp2048", Kex::Modp2048),
    ("modp3072", Kex::Modp3072),
    ("modp4096", Kex::Modp4096),
    ("mlkem768", Kex::MlKem768),
    ("mlkem1024", Kex::MlKem1024),
];

/// Most additional key exchanges (RFC 9370).
const MOST_FURTHER: usize = 7;

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find_map(|(name, v)| (v == value).then_some(*name)).unwrap_or("?")
}

/// Returns the algorithms of an IKE SA, written as a proposal.
pub fn ike(suite: &IkeSuite) -> String {
    let mut words = vec![name_of(&ENCR, &suite.encr)];
    words.extend(suite.integ.iter().map(|integ| name_of(&INTEG, integ)));
    words.push(name_of(&PRF, &suite.prf));
    [words.join("-"), exchanges(&[&[suite.kex], &suite.more_kex[..]].concat())].concat()
}

/// Returns the algorithms of a child SA, written as a proposal.
pub fn esp(suite: &EspSuite) -> String {
    let mut words = vec![name_of(&ENCR, &suite.encr)];
    words.extend(suite.integ.iter().map(|integ| name_of(&INTEG, integ)));
    [words.join("-"), exchanges(&suite.kex)].concat()
}

/// Returns an offer as the text of a proposal.
pub fn proposal(offer: &Offer) -> String {
    let encr = offer.encr.iter().map(|encr| name_of(&ENCR, encr).to_owned());
    let integ = offer.integ.iter().map(|integ| name_of(&INTEG, integ).to_owned());
    let prf = offer.prf.iter().map(|prf| name_of(&PRF, prf).to_owned());
    let kex = offer.kex.iter().map(|kex| name_of(&KEX, kex).to_owned());
    let further = (1..).zip(&offer.more_kex).flat_map(|(number, choices)| {
        choices.iter().map(move |kex| format!("ke{number}_{}", name_of(&KEX, kex)))
    });
    encr.chain(integ).chain(prf).chain(kex).chain(further).collect::<Vec<_>>().join("-")
}

/// Returns the first key exchange, and the additional ones with their numbers.
fn exchanges(all: &[Kex]) -> String {
    let word = |(number, kex): (usize, &Kex)| match number {
        0 => format!("-{}", name_of(&KEX, kex)),
        further => format!("-ke{further}_{}", name_of(&KEX, kex)),
    };
    all.iter().enumerate().map(word).collect()
}

fn named<T: Copy>(names: &[(&str, T)], word: &str) -> Option<T> {
    names.iter().find_map(|(name, value)| (*name == word).then_some(*value))
}

/// Returns the default offers: AEADs before ciphers that need an HMAC. The offers for ESP have a
/// key exchange or none, for peers that do not support one.
pub(super) fn defaults(usage: Use) -> Vec<Offer> {
    let prf: Vec<Prf> = match usage {
        Use::Ike => PRF.map(|(_, prf)| prf).into(),
        Use::Esp => vec![],
    };
    let kex: Vec<Kex> = match usage {
        Use::Ike => KEX[..7].iter().map(|(_, kex)| *kex).collect(),
        Use::Esp => vec![Kex::X25519, Kex::Ecp256, Kex::Ecp384, Kex::Modp2048, Kex::Modp3072],
    };
    let aead = vec![Encr::AesGcm(256), Encr::AesGcm(128), Encr::ChaCha20Poly1305];
    let cbc = vec![Encr::AesCbc(256), Encr::AesCbc(192), Encr::AesCbc(128)];
    let integ = INTEG.map(|(_, integ)| integ).into();
    let offer = |encr, integ| Offer { encr, integ, prf: prf.clone(), kex: kex.clone(), more_kex: vec![] };
    let with_kex = vec![offer(aead, vec![]), offer(cbc, integ)];
    match usage {
        Use::Ike => with_kex,
        Use::Esp => {
            let without = with_kex.iter().map(|offer| Offer { kex: vec![], ..offer.clone() });
            with_kex.iter().cloned().chain(without).collect()
        }
    }
}

/// Parses a list of proposals into offers, in the same order. An error about an unknown word comes
/// with the nearest one.
pub(super) fn offers(list: &[String], usage: Use) -> Result<Vec<Offer>, (Rule, Option<String>)> {
    if list.is_empty() {
        return Err((Rule::Empty, None));
    }
    let mut offers = vec![];
    for text in list {
        match &text[..] {
            DEFAULT => offers.extend(defaults(usage)),
            text => offers.push(offer(text, usage)?),
        }
    }
    Ok(offers)
}

fn offer(text: &str, usage: Use) -> Result<Offer, (Rule, Option<String>)> {
    let mut offer = Offer::default();
    for word in text.split('-') {
        let known = read(&mut offer, word);
        known.ok_or_else(|| {
            let shown: String = word.chars().take(32).collect();
            (Rule::Algorithm(shown.into(), words().collect::<Vec<_>>().join(", ").into()), meant(word))
        })?;
    }
    complete(&mut offer, usage).map_err(|why| (Rule::Proposal(why), None))?;
    Ok(offer)
}

/// Adds the algorithm that a word names to the offer.
fn read(offer: &mut Offer, word: &str) -> Option<()> {
    if let Some(encr) = named(&ENCR, word) {
        add(&mut offer.encr, encr);
    } else if let Some(integ) = named(&INTEG, word) {
        add(&mut offer.integ, integ);
    } else if let Some(prf) = named(&PRF, word) {
        add(&mut offer.prf, prf);
    } else if let Some(kex) = named(&KEX, word) {
        add(&mut offer.kex, kex);
    } else {
        let (number, name) = word.strip_prefix("ke")?.split_once('_')?;
        let at = number.parse::<usize>().ok()?.checked_sub(1).filter(|at| *at < MOST_FURTHER)?;
        let kex = named(&KEX, name)?;
        if offer.more_kex.len() <= at {
            offer.more_kex.resize(at + 1, vec![]);
        }
        add(offer.more_kex.get_mut(at)?, kex);
    }
    Some(())
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Checks that the algorithms are complete and consistent. As in strongSwan, IKE's HMAC is also the
/// pseudo-random function if no other is named.
fn complete(offer: &mut Offer, usage: Use) -> Result<(), &'static str> {
    let is_aead = offer.encr.iter().all(|encr| encr.is_aead());
    if offer.encr.is_empty() {
        return Err("names no cipher");
    }
    if !is_aead && offer.encr.iter().any(|encr| encr.is_aead()) {
        return Err("mixes AEADs with other ciphers: write two proposals instead");
    }
    match usage {
        Use::Ike if offer.prf.is_empty() => {
            offer.prf = offer.integ.iter().copied().map(prf_of).collect();
            if is_aead {
                offer.integ.clear();
            }
        }
        Use::Esp if !offer.prf.is_empty() => {
            return Err("names a pseudo-random function, which ESP does not use");
        }
        _ => {}
    }
    match (is_aead, offer.integ.is_empty()) {
        (true, false) => return Err("names an HMAC, which an AEAD does not use"),
        (false, true) => return Err("names no HMAC (sha256, sha384, sha512), which its cipher needs"),
        _ => {}
    }
    if usage == Use::Ike && offer.prf.is_empty() {
        return Err("names no pseudo-random function (prfsha256, prfsha384, prfsha512)");
    }
    if usage == Use::Ike && offer.kex.is_empty() {
        return Err("names no key exchange, such as x25519 or ecp256");
    }
    if !offer.more_kex.is_empty() && (offer.kex.is_empty() || offer.more_kex.iter().any(Vec::is_empty)) {
        return Err("names an additional key exchange without the ones before it");
    }
    Ok(())
}

fn prf_of(integ: Integ) -> Prf {
    match integ {
        Integ::HmacSha256 => Prf::HmacSha256,
        Integ::HmacSha384 => Prf::HmacSha384,
        Integ::HmacSha512 => Prf::HmacSha512,
    }
}

/// Returns the known word that is nearest to `word`.
fn meant(word: &str) -> Option<String> {
    nearest(word, words()).map(str::to_owned)
}

/// Returns the names of all algorithms.
fn words() -> impl Iterator<Item = &'static str> {
    let names = ENCR.iter().map(|(name, _)| *name).chain(INTEG.iter().map(|(name, _)| *name));
    names.chain(PRF.iter().map(|(name, _)| *name)).chain(KEX.iter().map(|(name, _)| *name))
}
