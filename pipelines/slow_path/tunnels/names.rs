//! The names of tunnels.

use super::Tunnel;
use hashbrown::HashTable;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};
use wayfarer_dataplane::sa::TunnelId;

/// All tunnels, by number. Boxed, since much room in the nodes of a tree stays empty.
pub(super) type ById = BTreeMap<TunnelId, Box<Tunnel>>;

/// The tunnels that have a name. It holds their numbers alone, for there may be a million of them, which have
/// their names already.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: HashTable<TunnelId>,
    /// Keeps peers, whose names are parts of those of tunnels, from having all in one place.
    random: RandomState,
}

impl Names {
    /// Returns the number of the tunnel of `all` with this name.
    pub(super) fn get(&self, name: &str, all: &ById) -> Option<TunnelId> {
        self.ids.find(self.random.hash_one(name), |id| is_named(*id, name, all)).copied()
    }

    /// Adds the name of tunnel `id` of `all`, unless another one has it.
    pub(super) fn add(&mut self, id: TunnelId, all: &ById) {
        let Some(tunnel) = all.get(&id) else { return };
        let hash_of = |name: &str| self.random.hash_one(name);
        let hash_of_id = |id: &TunnelId| all.get(id).map_or(0, |tunnel| hash_of(&tunnel.name));
        let name = &*tunnel.name;
        self.ids.entry(hash_of(name), |id| is_named(*id, name, all), hash_of_id).or_insert(id);
    }

    /// Removes the name of `tunnel`, whose number is `id`, unless it is another one's.
    pub(super) fn remove(&mut self, id: TunnelId, tunnel: &Tunnel) {
        if let Ok(found) = self.ids.find_entry(self.random.hash_one(&*tunnel.name), |other| *other == id) {
            found.remove();
        }
    }
}

fn is_named(id: TunnelId, name: &str, all: &ById) -> bool {
    all.get(&id).is_some_and(|tunnel| &*tunnel.name == name)
}

#[cfg(all(test, feature = "bench"))]
mod tests {
    use crate::{
        sim::{fixtures::*, world::World},
        slow_path::parts::TunnelParts,
    };
    use std::time::Duration;

    #[test]
    fn tunnel_has_its_name_until_it_ends_and_takes_no_other_ones() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        let mut install = |n: u32, name: String| {
            let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
            parts.name = name.into();
            links.install(Duration::ZERO, parts, 1500, &[]).unwrap()
        };
        // Enough that the table grows.
        let ids: Vec<_> = (0..200).map(|n| install(n, format!("t{}", n / 2))).collect();
        for pair in 0..100 {
            assert_eq!(links.tunnels().named(&format!("t{pair}")), Some(ids[2 * pair]));
        }
        for pair in 0..50 {
            // First the tunnel that only wanted the name, then the one that has it.
            links.remove(ids[2 * pair + 1]);
            assert_eq!(links.tunnels().named(&format!("t{pair}")), Some(ids[2 * pair]));
            links.remove(ids[2 * pair]);
            assert_eq!(links.tunnels().named(&format!("t{pair}")), None);
        }
        assert_eq!(links.tunnels().named("t99"), Some(ids[198]));
        assert_eq!(links.tunnels().named("t100"), None);
    }
}
