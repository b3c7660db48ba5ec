//! The files of revocation lists, which are read again when they change.

use super::{
    files::{self, CredentialError, CredentialProblem},
    revocation::list,
};
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fs, iter,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tracing::{info, warn};
use webpki::{Cert, CertRevocationList, OwnedCertRevocationList, VerifiedPath};

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
    /// The time of which it is.
    this_update: SystemTime,
    /// The time of its next update, when it has expired.
    pub(super) next_update: SystemTime,
}

impl FileList {
    /// Returns the issuer and the issuing distribution point: a newer list with both replaces this one.
    fn scope(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (self.list.issuer().to_vec(), self.list.issuing_distribution_point().map(<[u8]>::to_vec))
    }

    /// Returns true if the list has this certificate. Its scope does not matter: an issuer gives each
    /// number to one certificate (RFC 5280 §4.1.2.2).
    fn revokes(&self, certificate: &Cert<'_>) -> bool {
        self.list.issuer() == certificate.issuer()
            && matches!(self.list.find_serial(certificate.serial()), Ok(Some(_)))
    }
}

/// Returns true if one of these lists has a certificate of this path.
pub(super) fn revoke(files: &[FileList], path: &VerifiedPath<'_>) -> bool {
    let own: &Cert<'_> = path.end_entity();
    let mut certificates = iter::once(own).chain(path.intermediate_certificates());
    certificates.any(|certificate| files.iter().any(|file| file.revokes(certificate)))
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
    Some(FileList { list, this_update, next_update })
}
