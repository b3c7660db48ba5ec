//! `wayfarer bench rate` through a cable, and through a router that limits the rate.

use super::lab::{Lab, program};
use serde_json::Value;

/// Runs the search from r0 to r1 in `space` with these arguments; returns its row, or its error
/// message.
fn search(lab: &Lab, space: &str, kind: &str, arguments: &str) -> Result<Value, String> {
    let fixed = "bench rate --port r0 --peer-port r1 --size 64 --seconds 0.3 --json";
    let output = lab.output(space, &format!("{} {fixed} --kind {kind} {arguments}", program()));
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// Checks that a cable carries the full rate.
pub(crate) fn rate_of_a_cable(kind: &str) {
    let lab = Lab::new(&["tester"]);
    lab.link([("tester", "r0", &[]), ("tester", "r1", &[])]);
    // Loss is tolerated, because a busy machine may keep the receiver from its ring for long.
    let row = search(&lab, "tester", kind, "--max-rate 5000 --loss 99").unwrap();
    assert!(row["fps"].as_f64().unwrap() > 0.0 && row["fps"].as_f64().unwrap() <= 5100.0, "{row}");
    assert!(row["latency"]["p50"].as_f64().unwrap() > 0.0, "{row}");
    assert_eq!(row["trials"].as_array().unwrap().len(), 1, "{row}");
    assert!(row["drivers"][0].as_str().unwrap().starts_with(kind), "{row}");
    // Nothing passes to a station that does not exist.
    let why = search(&lab, "tester", kind, "--dst-mac 02:00:00:00:00:99").unwrap_err();
    assert!(why.contains("no frame came back"), "{why}");
}

/// Checks that the search finds a router's rate limit.
pub(crate) fn rate_through_a_router(kind: &str) {
    let lab = Lab::new(&["tester", "router"]);
    lab.link([("tester", "r0", &["198.18.0.2/24"]), ("router", "d0", &["198.18.0.1/24"])]);
    lab.link([("tester", "r1", &["198.19.0.2/24"]), ("router", "d1", &["198.19.0.1/24"])]);
    lab.forward("router");
    let mac = |space: &str, device: &str| lab.run(space, &format!("cat /sys/class/net/{device}/address"));
    let (tester, router) = (mac("tester", "r1"), mac("router", "d0"));
    lab.run("router", &format!("ip neigh add 198.19.0.9 lladdr {} dev d1", tester.trim()));
    lab.nft(
        "router",
        "table ip t {
         chain c { type filter hook forward priority 0; limit rate over 2000/second burst 100 packets drop; }
         }",
    );
    let arguments = format!(
        "--max-rate 20000 --src 198.18.0.2 --dst 198.19.0.9 --resolution 20 --dst-mac {}",
        router.trim()
    );
    let row = search(&lab, "tester", kind, &arguments).unwrap();
    let (fps, lost) = (row["fps"].as_f64().unwrap(), row["lost"].as_u64().unwrap());
    // 2000 per second, and the burst once in 0.3 s.
    assert!(fps < 2600.0 && lost == 0, "{row}");
    let trials = row["trials"].as_array().unwrap();
    assert!(trials.len() > 2 && trials[0]["lost"].as_u64().unwrap() > 0, "{row}");
}
