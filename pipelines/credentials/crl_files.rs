//! The files of revocation lists, which are read again when they change.

use super::{
    files::{self, CredentialError, CredentialProblem},
    refusal,
    revocation::{Holders, Issued, Issuer, is_signed_by, issuer_key, list},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tracing::{info, warn};
use wayfarer_mobility::crypto::{VerifyError, VerifyErrorKind::Revoked};
use webpki::{Cert, CertRevocationList, OwnedCertRevocationList, VerifiedPath};

/// Most keys of issuers of whom it is remembered whether they signed a list.
const MOST_KEYS: usize = 64;
/// Why a list of an issuer does not count whose certificate has another key usage.
pub(super) const NOT_PERMITTED: &str = "its issuer's key usage does not permit to sign revocation lists";

/// Files of revocation lists.
#[derive(Debug, Default)]
pub(super) struct CrlFiles {
    files: Vec<PathBuf>,
    content: Mutex<Content>,
}

/// A revocation list from a file.
#[derive(Debug)]
pub(super) struct FileList {
    pub(super) list: CertRevocationList<'static>,
    der: Vec<u8>,
    /// Keys of its issuer, and whether each has signed it: to look takes long if the list is long.
    signers: Mutex<BTreeMap<Vec<u8>, bool>>,
    /// The time of which it is.
    this_update: SystemTime,
    /// The time of its next update, when it has expired.
    pub(super) next_update: SystemTime,
}

impl FileList {
    /// Returns true if `issuer` has signed the list.
    fn is_of(&self, issuer: &Issuer) -> bool {
        if self.list.issuer() != issuer.name {
            return false;
        }
        let signers = || self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = signers().get(&issuer.key) {
            return *known;
        }
        let is_signed = is_signed_by(&self.der, issuer);
        let mut signers = signers();
        if signers.len() >= MOST_KEYS {
            signers.retain(|_, is_signed| *is_signed);
        }
        signers.insert(issuer.key.clone(), is_signed);
        is_signed
    }

    /// Returns true if the list, which is not by the key of this certificate's issuer, may be meant for it
    /// all the same: it says so, or it does not say whose it is, and none of the `anchors` has signed it.
    fn may_be_meant_for(&self, certificate: &Cert<'_>, anchors: &[Issuer]) -> bool {
        let is_named = self.names_issuer_of(certificate);
        is_named.unwrap_or_else(|| !anchors.iter().any(|anchor| self.is_of(anchor)))
    }

    /// Returns whether the list says that it is by the key of this certificate's issuer; `None` if it or
    /// the certificate names none.
    fn names_issuer_of(&self, certificate: &Cert<'_>) -> Option<bool> {
        let (own, other) = (list::key_identifier(&self.der)?, issuer_key(&certificate.der())?);
        Some(own == other)
    }

    /// Returns true if the list, which is of its issuer, would have this certificate, one of `holders`, if
    /// it were revoked.
    pub(super) fn covers(&self, certificate: &Cert<'_>, holders: Holders) -> bool {
        list::covers(&self.list, &certificate.der(), holders)
    }
}

/// Returns the lists that `issuer` has signed, the newest first: of each distribution point, the newest.
pub(super) fn of_issuer<'a>(files: &'a [FileList], issuer: &Issuer) -> Vec<&'a FileList> {
    newest(files.iter().filter(|file| file.is_of(issuer)))
}

/// Returns the first of these lists of each distribution point.
fn newest<'a>(lists: impl IntoIterator<Item = &'a FileList>) -> Vec<&'a FileList> {
    let mut points = BTreeSet::new();
    lists.into_iter().filter(|file| points.insert(file.list.issuing_distribution_point())).collect()
}

/// Warns of lists that name one of the `anchors`, but are by another key. If such a list names that key, it
/// counts for nobody, which an operator who has forgotten to replace it would not notice.
pub(super) fn warn_of_strangers(files: &[FileList], anchors: &[Issuer]) {
    for file in files {
        let mut named = anchors.iter().filter(|anchor| anchor.name == file.list.issuer()).peekable();
        if named.peek().is_some() && !named.any(|anchor| file.is_of(anchor)) {
            let issuer = refusal::issuer_name(file.list.issuer());
            warn!(
                name: "list_of_another_key",
                issuer, "a revocation list is not by the authority that it names, and may not count"
            );
        }
    }
}

/// Checks that no list has a certificate of this path. If `is_strict`, each certificate must be covered
/// by a list that has not expired `now`. An issuer may have lists by several keys, so a list counts for
/// the certificates of the key that signed it. The `anchors` are those that are trusted.
///
/// # Errors
/// [`Revoked`], also if a list that may be meant for a certificate cannot be believed.
pub(super) fn check(
    files: &[FileList],
    anchors: &[Issuer],
    path: &VerifiedPath<'_>,
    is_strict: bool,
    now: SystemTime,
) -> Result<(), VerifyError> {
    for (at, Issued { certificate, issuer, lists_permitted }) in Issued::along(path).iter().enumerate() {
        let of_its_name = files.iter().filter(|file| file.list.issuer() == issuer.name);
        let (own, others): (Vec<&FileList>, Vec<_>) = of_its_name.partition(|file| file.is_of(issuer));
        let own = newest(own);
        // Its scope does not matter: an issuer gives each number to one certificate (RFC 5280 §4.1.2.2).
        let entry = own.iter().find_map(|file| file.list.find_serial(certificate.serial()).ok()?);
        if let Some(entry) = entry {
            let since = refusal::seconds(entry.revocation_date);
            return Err(refusal::revoked(&refusal::name(&certificate.der()), since, entry.reason_code));
        }
        if !own.is_empty() && !lists_permitted {
            return Err(Revoked.because(NOT_PERMITTED));
        }
        if others.iter().any(|file| file.may_be_meant_for(certificate, anchors)) {
            let words =
                "the revocation list of its issuer has a wrong signature, or one that is not accepted";
            return Err(Revoked.because(words));
        }
        let covering = || own.iter().filter(|file| file.covers(certificate, Holders::at(at)));
        if is_strict && !covering().any(|file| now < file.next_update) {
            return Err(Revoked.because(match covering().next() {
                Some(file) => {
                    let end = refusal::date(file.next_update);
                    format!("the revocation list of its issuer expired on {end}")
                }
                None => "nothing that is up to date says that it and its chain are not revoked".to_owned(),
            }));
        }
    }
    Ok(())
}

/// What the files held when they were read last.
#[derive(Debug, Default)]
struct Content {
    stamps: Vec<Stamp>,
    lists: Arc<Vec<FileList>>,
}

/// Size and time of change of a file; `None` if it cannot be looked at.
type Stamp = Option<(u64, SystemTime)>;

impl CrlFiles {
    /// Reads the lists in these files (PEM or DER).
    ///
    /// # Errors
    /// If a file cannot be read or parsed: the file and the reason.
    pub(super) fn load(files: Vec<PathBuf>) -> Result<Self, CredentialError> {
        // Looked at first: a change while they are read is seen later.
        let stamps = stamps(&files);
        let lists = Arc::new(read(&files)?);
        Ok(Self { files, content: Mutex::new(Content { stamps, lists }) })
    }

    /// Returns the lists of these `anchors` and of others, the newest first. If a file has changed, all are
    /// read again; if that fails, those before stay.
    pub(super) fn lists(&self, anchors: &[Issuer]) -> Arc<Vec<FileList>> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != content.stamps {
            content.stamps = now;
            match read(&self.files) {
                Ok(lists) => {
                    info!(name: "lists_read", lists = lists.len(), "changed revocation lists were read");
                    warn_of_strangers(&lists, anchors);
                    content.lists = Arc::new(lists);
                }
                Err(why) => warn!(
                    name: "lists_not_read",
                    "changed revocation lists cannot be read, and those before hold: {why}"
                ),
            }
        }
        content.lists.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let about = fs::metadata(file).ok()?;
        Some((about.len(), about.modified().ok()?))
    };
    files.iter().map(stamp).collect()
}

fn read(files: &[PathBuf]) -> Result<Vec<FileList>, CredentialError> {
    let all = files.iter().map(|file| read_one(file)).collect::<Result<Vec<_>, _>>()?;
    let mut lists: Vec<_> = all.into_iter().flatten().collect();
    lists.sort_by_key(|file| Reverse(file.this_update));
    Ok(lists)
}

fn read_one(file: &Path) -> Result<Vec<FileList>, CredentialError> {
    let lists = files::crls(file)?.iter().map(|der| parse(der)).collect::<Option<Vec<_>>>();
    lists.ok_or_else(|| CredentialProblem::BadCrl.of(file))
}

fn parse(der: &[u8]) -> Option<FileList> {
    let list = OwnedCertRevocationList::from_der(der).ok()?.into();
    let (this_update, next_update) = list::times(der)?;
    Some(FileList { list, der: der.to_vec(), signers: Mutex::default(), this_update, next_update })
}
