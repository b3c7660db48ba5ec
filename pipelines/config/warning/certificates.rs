//! The gateway's own certificates: whether they are valid now, and whether clients accept them.

use super::review::Review;
use crate::{
    config::model::Connection,
    credentials::{CertificateFacts, KeyType},
};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};
use toml::Spanned;
use wayfarer_mobility::{
    identity::{Identity, kind},
    ike::connection::LocalAuth,
};

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate that ends so soon is worth a warning.
const SOON: Duration = DAY.saturating_mul(14);

/// Longest validity that Apple's clients accept.
const MOST: Duration = DAY.saturating_mul(825);

/// How to get a certificate that clients accept.
const REMEDY: &str = "`wayfarer pki gateway` makes one that they accept";

pub(super) fn review(review: &mut Review<'_>) {
    let (raw, config) = (review.raw, review.config);
    let mut seen = HashSet::new();
    for (raw, connection) in raw.connection.iter().zip(&config.ike.connections) {
        let raw = raw.get_ref();
        let place = || raw.certificate.as_ref().map_or_else(|| raw.name.span(), Spanned::span);
        if !connection.certificate.as_ref().is_some_and(|file| seen.insert(file)) {
            continue;
        }
        for text in problems(connection, SystemTime::now()) {
            review.warn("connection.certificate", place(), text);
        }
    }
}

/// Returns what is wrong with the gateway's certificate.
fn problems(connection: &Connection, now: SystemTime) -> Vec<String> {
    let LocalAuth::Key(signer) = &connection.protocol.local_auth else { return vec![] };
    let Some(facts) = signer.certificates().first().and_then(|own| CertificateFacts::of(own)) else {
        return vec![];
    };
    let days = |time: Duration| match time.as_secs() / DAY.as_secs() {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let mut problems = vec![];
    if let Ok(since) = now.duration_since(facts.not_after) {
        problems.push(format!("expired {} ago, so peers refuse it: renew it", days(since)));
    } else if let Ok(until) = facts.not_before.duration_since(now) {
        let text = "will be valid only in";
        problems.push(format!("{text} {}: set this machine's clock, or wait", days(until)));
    } else if let Ok(left) = facts.not_after.duration_since(now)
        && left < SOON
    {
        problems.push(format!("expires in {}: renew it", days(left)));
    }
    // What follows is for terminals; another gateway does not care.
    if connection.protocol.is_dialled() {
        return problems;
    }
    if !facts.is_server {
        problems
            .push(format!("lacks serverAuth, without which Windows and Apple's clients refuse it: {REMEDY}"));
    }
    if !facts.has_names {
        problems.push(format!("has no subjectAltName, where clients look for the gateway's name: {REMEDY}"));
    } else if own_ids(connection).all(|id| id.kind == kind::DER_ASN1_DN) {
        let text =
            "has names, but local_id is its subject, which clients do not look for: set local_id to a name";
        problems.push(text.to_owned());
    }
    if facts.key == KeyType::Rsa && !connection.legacy_signatures {
        let text = "has an RSA key, with which clients that announce no signature hashes, such as Windows and \
                    Apple's, need SHA-1 and are refused";
        problems.push(format!("{text}: use an ECDSA key ({REMEDY}), or set legacy_signatures = true"));
    }
    if facts.validity() > MOST {
        let text = "is valid for more than 825 days, which Apple's clients refuse";
        problems.push(format!("{text}: {REMEDY}"));
    }
    problems
}

fn own_ids(connection: &Connection) -> impl Iterator<Item = &Identity> {
    std::iter::once(&connection.protocol.local_id).chain(&connection.protocol.other_local_ids)
}
