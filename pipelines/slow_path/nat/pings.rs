//! The identifiers of ICMP queries that NATs use, for devices that are shared with the kernel:
//! replies with any other are the host's, which chooses identifiers from the same range.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};
use wayfarer_dataplane::port::classifier::Classifier;

/// The identifiers in use, and who must know of them.
#[derive(Debug, Default)]
pub(super) struct Pings {
    used: BTreeSet<(Ipv4Addr, u16)>,
    /// By index of the port.
    classifiers: BTreeMap<usize, Arc<Classifier>>,
}

impl Pings {
    /// Sets whether the NAT with this address uses an identifier.
    pub(super) fn set(&mut self, address: Ipv4Addr, id: u16, is_used: bool) {
        match is_used {
            true => self.used.insert((address, id)),
            false => self.used.remove(&(address, id)),
        };
        for classifier in self.classifiers.values() {
            // If this fails, the inner host misses replies as if they were lost.
            let _ = classifier.set_ping(address, id, is_used);
        }
    }

    /// Tells a port's device from now on, or none if it is not shared with the kernel.
    pub(super) fn share(&mut self, port: usize, classifier: Option<Arc<Classifier>>) {
        let Some(classifier) = classifier else { return drop(self.classifiers.remove(&port)) };
        for (address, id) in &self.used {
            let _ = classifier.set_ping(*address, *id, true);
        }
        self.classifiers.insert(port, classifier);
    }
}
