//! The file store of bindings. What was written is there after this program has ended in any way; a crash of the
//! system may lose the last seconds.

use crate::folder::Folder;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};
use wayfarer_mobility::mip::{
    binding::{Binding, Bindings, Last},
    wire::Identification,
};

/// The version of what is in the store. One of another version is not opened.
const VERSION: &[u8] = b"1";
/// Bytes of what is read that are kept in memory. Only the start reads.
const CACHE: u64 = 1 << 20;

/// The bindings of a home agent, by home address, in files.
pub(super) struct Store {
    path: PathBuf,
    /// `None` after a write has failed, until the next one.
    files: Option<Files>,
}

/// The open files. After a write that has failed they take no other.
struct Files {
    bindings: Keyspace,
    /// Open as long as the store is.
    _database: Database,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What is stored of a terminal.
#[derive(Serialize, Deserialize)]
struct Stored {
    tunnels: Vec<StoredBinding>,
    last: Option<StoredLast>,
}

#[derive(Serialize, Deserialize)]
struct StoredBinding {
    care_of: Ipv4Addr,
    encapsulation: u8,
    udp: Option<SocketAddrV4>,
    reverse_tunnel: bool,
    broadcasts: bool,
    co_located: bool,
    /// Since 1970.
    ends: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
enum StoredLast {
    Timestamp(u64),
    Nonces(u64),
}

impl Store {
    /// Opens the store in the folder `path`, which is made if there is none. Returns it and what is in it.
    ///
    /// # Errors
    /// If others may change the folder, another home agent has it open, it is of another version, what is in it
    /// cannot be read, or the system refuses.
    pub(super) fn open(path: &Path) -> io::Result<(Self, BTreeMap<Ipv4Addr, Bindings>)> {
        let files = Files::open(path)?;
        let mut all = BTreeMap::new();
        for entry in files.bindings.iter() {
            let (key, value) = entry.into_inner().map_err(|why| at(path, &why.to_string()))?;
            let damaged = || at(path, "is damaged");
            let home = <[u8; 4]>::try_from(&key[..]).map_err(|_| damaged())?;
            let stored: Stored = serde_json::from_slice(&value).map_err(|_| damaged())?;
            all.insert(home.into(), stored.into());
        }
        Ok((Self { path: path.into(), files: Some(files) }, all))
    }

    /// Stores what is known of the terminal with a home address.
    ///
    /// # Errors
    /// The system's error; what was stored before stays. The files are opened again for the next write.
    pub(super) fn put(&mut self, home: Ipv4Addr, bindings: &Bindings) -> io::Result<()> {
        let value = serde_json::to_vec(&Stored::from(bindings)).map_err(io::Error::other)?;
        let files = match self.files.take() {
            Some(files) => files,
            None => Files::open(&self.path)?,
        };
        files.bindings.insert(home.octets(), value).map_err(io::Error::other)?;
        self.files = Some(files);
        Ok(())
    }
}

impl Files {
    fn open(path: &Path) -> io::Result<Self> {
        let failed = |why: fjall::Error| match why {
            fjall::Error::Locked => at(path, "another home agent uses it"),
            why => at(path, &why.to_string()),
        };
        Folder::open(path).map_err(|why| at(path, &why.to_string()))?;
        let database = Database::builder(path).cache_size(CACHE).open().map_err(failed)?;
        let about = database.keyspace("about", KeyspaceCreateOptions::default).map_err(failed)?;
        match about.get("version").map_err(failed)? {
            Some(version) if *version == *VERSION => {}
            Some(version) => {
                let version = String::from_utf8_lossy(&version).escape_debug().to_string();
                return Err(at(path, &format!("is of version {version}, which this program does not know")));
            }
            None => about.insert("version", VERSION).map_err(failed)?,
        }
        let bindings = database.keyspace("bindings", KeyspaceCreateOptions::default).map_err(failed)?;
        Ok(Self { bindings, _database: database })
    }
}

/// Returns an error about the store in the folder `path`.
fn at(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("store of bindings {}: {why}", path.display()))
}

impl From<&Bindings> for Stored {
    fn from(bindings: &Bindings) -> Self {
        let tunnel = |one: &Binding| StoredBinding {
            care_of: one.care_of,
            encapsulation: one.encapsulation.into(),
            udp: one.udp,
            reverse_tunnel: one.reverse_tunnel,
            broadcasts: one.broadcasts,
            co_located: one.co_located,
            ends: one.ends,
        };
        let last = bindings.last.map(|last| match last {
            Last::Timestamp(last) => StoredLast::Timestamp(last.0),
            Last::Nonces(last) => StoredLast::Nonces(last.0),
        });
        Self { tunnels: bindings.tunnels.iter().map(tunnel).collect(), last }
    }
}

impl From<Stored> for Bindings {
    fn from(stored: Stored) -> Self {
        let tunnel = |one: StoredBinding| Binding {
            care_of: one.care_of,
            encapsulation: one.encapsulation.into(),
            udp: one.udp,
            reverse_tunnel: one.reverse_tunnel,
            broadcasts: one.broadcasts,
            co_located: one.co_located,
            ends: one.ends,
        };
        let last = stored.last.map(|last| match last {
            StoredLast::Timestamp(last) => Last::Timestamp(Identification(last)),
            StoredLast::Nonces(last) => Last::Nonces(Identification(last)),
        });
        Self { tunnels: stored.tunnels.into_iter().map(tunnel).collect(), last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_mobility::mip::wire::Encapsulation;

    fn bindings(care_of: [u8; 4]) -> Bindings {
        let binding = Binding {
            care_of: care_of.into(),
            encapsulation: Encapsulation::Gre,
            udp: Some("192.0.2.1:40000".parse().unwrap()),
            reverse_tunnel: true,
            broadcasts: false,
            co_located: true,
            ends: Some(Duration::new(1_800_000_000, 5)),
        };
        let endless = Binding { ends: None, udp: None, ..binding };
        Bindings { tunnels: vec![binding, endless], last: Some(Last::Nonces(Identification(u64::MAX))) }
    }

    #[test]
    fn what_was_stored_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings");
        let homes = [1, 2].map(|n| Ipv4Addr::new(10, 97, 0, n));
        let (mut store, before) = Store::open(&path).unwrap();
        assert_eq!(before.len(), 0);
        store.put(homes[0], &bindings([192, 0, 2, 1])).unwrap();
        store.put(homes[1], &Bindings::default()).unwrap();
        // As after a write that has failed.
        store.files = None;
        store.put(homes[0], &bindings([192, 0, 2, 2])).unwrap();
        drop(store);
        let (_store, after) = Store::open(&path).unwrap();
        let expected = [(homes[0], bindings([192, 0, 2, 2])), (homes[1], Bindings::default())];
        assert_eq!(after, expected.into());
    }

    #[test]
    fn a_store_is_one_home_agents_and_of_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings");
        let (store, _) = Store::open(&path).unwrap();
        let refused = || Store::open(&path).map(|_| ()).unwrap_err().to_string();
        assert!(refused().ends_with("another home agent uses it"), "{}", refused());
        drop(store);
        let database = Database::builder(&path).open().unwrap();
        let about = database.keyspace("about", KeyspaceCreateOptions::default).unwrap();
        about.insert("version", "2").unwrap();
        drop((about, database));
        assert!(refused().ends_with("is of version 2, which this program does not know"), "{}", refused());
    }

    #[test]
    fn a_damaged_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings");
        let (store, _) = Store::open(&path).unwrap();
        store.files.as_ref().unwrap().bindings.insert([10, 97, 0, 1], "{").unwrap();
        drop(store);
        let why = Store::open(&path).map(|_| ()).unwrap_err().to_string();
        assert!(why.ends_with("is damaged"), "{why}");
    }
}
