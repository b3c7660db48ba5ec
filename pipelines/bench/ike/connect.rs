//! Measures how many peers connect per second.

use super::{
    BenchError, Mode, Options, Row, Target, fleet,
    gateway::ProtocolOnly,
    world::{Proof, World},
};
use std::time::Duration;
use wayfarer_mobility::ike::counter::Counter;

/// Peers per second that one core should accept.
const TARGET: f64 = 3000.0;

pub(super) fn measure(options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    for (case, proof) in [("ecdsa certificates", Proof::Certificates), ("shared key", Proof::Psk)] {
        let world = World::new(proof)?;
        let mut gateway = ProtocolOnly::new(&world, None);
        let most = options.peers.min(Options::ACTIVE);
        for mut group in fleet::groups(&world, most) {
            group.connect(&mut gateway)?;
            if gateway.cpu >= options.duration {
                break;
            }
        }
        let peers = gateway.endpoint.count(Counter::Established) as f64;
        let rate = peers / gateway.cpu.max(Duration::from_nanos(1)).as_secs_f64();
        let details = [("peers", peers), ("us_per_peer", 1e6 / rate)];
        each(&Row::new(Mode::Connect, case, (rate, "peers/s"), Some(Target::AtLeast(TARGET)), details));
    }
    Ok(())
}
