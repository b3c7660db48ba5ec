//! The identifiers of ICMP queries that NATs use, for devices that are shared with the kernel:
//! replies with any other are the host's, which chooses identifiers from the same range.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};
use tracing::warn;
use wayfarer_dataplane::port::{PortError, classifier::Classifier};

/// The identifiers in use, and who must know of them.
#[derive(Debug, Default)]
pub(super) struct Pings {
    used: BTreeSet<(Ipv4Addr, u16)>,
    /// By index of the port.
    classifiers: BTreeMap<usize, Arc<Classifier>>,
    /// True once a device could not be told.
    has_failed: bool,
}

impl Pings {
    /// Sets whether the NAT with this address uses an identifier.
    pub(super) fn set(&mut self, address: Ipv4Addr, id: u16, is_used: bool) {
        match is_used {
            true => self.used.insert((address, id)),
            false => self.used.remove(&(address, id)),
        };
        for classifier in self.classifiers.values() {
            check(classifier.set_ping(address, id, is_used), &mut self.has_failed);
        }
    }

    /// Tells a port's device from now on, or none if it is not shared with the kernel.
    pub(super) fn share(&mut self, port: usize, classifier: Option<Arc<Classifier>>) {
        let Some(classifier) = classifier else { return drop(self.classifiers.remove(&port)) };
        for (address, id) in &self.used {
            check(classifier.set_ping(*address, *id, true), &mut self.has_failed);
        }
        self.classifiers.insert(port, classifier);
    }
}

/// Logs the first failure. The inner host misses replies as if they were lost.
fn check(result: Result<(), PortError>, has_failed: &mut bool) {
    if let Err(why) = result
        && !std::mem::replace(has_failed, true)
    {
        warn!(
            name: "nat_pings", %why,
            "a device cannot be told which identifiers of pings are a [[nat]]'s: inner hosts get no replies to \
             some of their pings"
        );
    }
}
