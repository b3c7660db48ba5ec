//! The demonstration, called as a library: its report adds up, and terminals move without loss.

use std::time::Duration;
use wayfarer::demo::{Options, run};

#[test]
fn moves_lose_only_packets_in_flight() {
    let options = Options {
        duration: Duration::from_secs(4),
        terminals: 40,
        move_every: Duration::from_millis(400),
        size: 300,
        // The machine may stop any thread for long. Whatever it does, no packet goes to a
        // terminal's previous address once one has reached its new address.
        in_flight: Duration::MAX,
    };
    let mut shown = 0;
    let report = run(&options, |_| shown += 1).unwrap();
    assert!(report.packets > 1000, "{report:?}");
    assert!(report.moves >= 80, "{report:?}");
    // Every terminal sends many packets between two moves; only the very last moves may go unseen.
    assert!(report.followed + 40 >= report.moves, "{report:?}");
    assert_eq!((report.lost_to_moves, report.lost_otherwise, report.astray), (0, 0, 0), "{report:?}");
    assert!(report.latency_us.p50 <= report.latency_us.p99 && report.latency_us.p99 <= report.latency_us.max);
    // No echo comes back within the nanoseconds that its cryptography alone takes.
    assert!(report.latency_us.p50 > 0.5, "{report:?}");
    assert!(shown > 0);
}
