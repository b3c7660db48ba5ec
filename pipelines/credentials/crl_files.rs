//! The files of revocation lists, which are read again when they change.

use super::{
    files::{self, CredentialError, CredentialProblem},
    revocation::{Holders, Issuer, is_signed_by, list},
};
use rustls_pki_types::UnixTime;
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tracing::{info, warn};
use webpki::{Cert, CertRevocationList, Error, OwnedCertRevocationList, VerifiedPath};

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
    /// The time of which it is.
    this_update: SystemTime,
    /// The time of its next update, when it has expired.
    pub(super) next_update: SystemTime,
}

/// What lists are about that replace each other: the issuer, its key and the distribution point.
type Scope = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

impl FileList {
    fn scope(&self) -> Scope {
        let key = list::authority_key(&self.der).map(<[u8]>::to_vec);
        let point = self.list.issuing_distribution_point().map(<[u8]>::to_vec);
        (self.list.issuer().to_vec(), key, point)
    }

    fn is_of(&self, issuer: &Issuer) -> bool {
        self.list.issuer() == issuer.name && is_signed_by(&self.der, issuer)
    }

    /// Returns true if the list has this certificate of `issuer`. Its scope does not matter: an issuer
    /// gives each number to one certificate (RFC 5280 §4.1.2.2).
    fn revokes(&self, certificate: &Cert<'_>, issuer: &Issuer) -> bool {
        matches!(self.list.find_serial(certificate.serial()), Ok(Some(_))) && self.is_of(issuer)
    }

    /// Returns true if the list would have this certificate of `issuer`, one of `holders`, if it were
    /// revoked.
    pub(super) fn covers(&self, certificate: &Cert<'_>, issuer: &Issuer, holders: Holders) -> bool {
        list::covers(&self.list, &certificate.der(), holders) && self.is_of(issuer)
    }
}

/// Checks that no list has a certificate of this path. If `is_strict`, each certificate must be covered
/// by a list that has not expired `now`.
///
/// # Errors
/// [`Error::CertRevoked`], [`Error::CrlExpired`] or [`Error::UnknownRevocationStatus`].
pub(super) fn check(
    files: &[FileList],
    path: &VerifiedPath<'_>,
    is_strict: bool,
    now: SystemTime,
) -> Result<(), Error> {
    let path = Issuer::along(path);
    if path.iter().any(|(one, issuer)| files.iter().any(|file| file.revokes(one, issuer))) {
        return Err(Error::CertRevoked);
    }
    for (at, (certificate, issuer)) in path.iter().enumerate().filter(|_| is_strict) {
        let covering = || files.iter().filter(|file| file.covers(certificate, issuer, Holders::at(at)));
        if !covering().any(|file| now < file.next_update) {
            return Err(match covering().next() {
                Some(file) => expired(file, now),
                None => Error::UnknownRevocationStatus,
            });
        }
    }
    Ok(())
}

fn expired(file: &FileList, now: SystemTime) -> Error {
    let time = |at: SystemTime| UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    Error::CrlExpired { time: time(now), next_update: time(file.next_update) }
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

    /// Returns the lists, the newest first: of each scope of an issuer, the newest. If a file has changed,
    /// all are read again; if that fails, those before stay.
    pub(super) fn lists(&self) -> Arc<Vec<FileList>> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != content.stamps {
            content.stamps = now;
            match read(&self.files) {
                Ok(lists) => {
                    info!(name: "lists_read", lists = lists.len(), "changed revocation lists were read");
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
    let mut scopes = BTreeSet::new();
    lists.retain(|file| scopes.insert(file.scope()));
    Ok(lists)
}

fn read_one(file: &Path) -> Result<Vec<FileList>, CredentialError> {
    let lists = files::crls(file)?.iter().map(|der| parse(der)).collect::<Option<Vec<_>>>();
    lists.ok_or_else(|| CredentialProblem::BadCrl.of(file))
}

fn parse(der: &[u8]) -> Option<FileList> {
    let list = OwnedCertRevocationList::from_der(der).ok()?.into();
    let (this_update, next_update) = list::times(der)?;
    Some(FileList { list, der: der.to_vec(), this_update, next_update })
}
