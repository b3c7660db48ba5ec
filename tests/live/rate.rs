//! `wayfarer bench rate` through a cable, through a router that limits the rate, and through a gateway's
//! tunnels.

use super::lab::{Lab, program, wait_for};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Stdio},
};
use wayfarer::sim::frames::{datagram, frame};

/// Runs a measurement from r0 to r1 in the namespace `tester`; returns its rows, or its error message.
fn measure(lab: &Lab, kind: &str, arguments: &str) -> Result<Vec<Value>, String> {
    let fixed = "bench rate --port r0 --peer-port r1 --settle 0 --json";
    let output = lab.output("tester", &format!("{} {fixed} --kind {kind} {arguments}", program()));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()),
        false => Err(text(output.stderr)),
    }
}

/// Searches for the throughput of short frames; returns its row, or its error message.
fn search(lab: &Lab, kind: &str, arguments: &str) -> Result<Value, String> {
    measure(lab, kind, &format!("--size 64 --trial 0.3 {arguments}")).map(|rows| rows[0].clone())
}

/// Makes the namespace `tester` with a cable from r0 to r1.
fn cable() -> Lab {
    let lab = Lab::new(&["tester"]);
    lab.link([("tester", "r0", &[]), ("tester", "r1", &[])]);
    lab
}

/// Returns the MAC address of a device.
fn mac(lab: &Lab, space: &str, device: &str) -> String {
    lab.run(space, &format!("cat /sys/class/net/{device}/address")).trim().to_owned()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field}: {row}"))
}

/// Checks that a cable carries the full rate.
pub(crate) fn rate_of_a_cable(kind: &str) {
    let lab = cable();
    // Loss is tolerated, because a busy machine may keep the receiver from its ring for long.
    let row = search(&lab, kind, "--max-rate 5000 --loss 99").unwrap();
    assert!(row["fps"].as_f64().unwrap() > 0.0 && row["fps"].as_f64().unwrap() <= 5100.0, "{row}");
    assert!(row["latency"]["p50"].as_f64().unwrap() > 0.0, "{row}");
    assert_eq!(row["trials"].as_array().unwrap().len(), 1, "{row}");
    assert!(row["drivers"][0].as_str().unwrap().starts_with(kind), "{row}");
    // Nothing passes to a station that does not exist.
    let why = search(&lab, kind, "--dst-mac 02:00:00:00:00:99").unwrap_err();
    assert!(why.contains("no frame came back"), "{why}");
}

/// Checks that the search finds a router's rate limit.
pub(crate) fn rate_through_a_router(kind: &str) {
    let lab = Lab::new(&["tester", "router"]);
    lab.link([("tester", "r0", &["198.18.0.2/24"]), ("router", "d0", &["198.18.0.1/24"])]);
    lab.link([("tester", "r1", &["198.19.0.2/24"]), ("router", "d1", &["198.19.0.1/24"])]);
    lab.forward("router");
    let (tester, router) = (mac(&lab, "tester", "r1"), mac(&lab, "router", "d0"));
    lab.run("router", &format!("ip neigh add 198.19.0.9 lladdr {tester} dev d1"));
    lab.nft(
        "router",
        "table ip t {
         chain c { type filter hook forward priority 0; limit rate over 2000/second burst 100 packets drop; }
         }",
    );
    let arguments =
        format!("--max-rate 20000 --src 198.18.0.2 --dst 198.19.0.9 --resolution 20 --dst-mac {router}");
    let row = search(&lab, kind, &arguments).unwrap();
    let (fps, lost) = (row["fps"].as_f64().unwrap(), row["lost"].as_u64().unwrap());
    // 2000 per second, and the burst once in 0.3 s.
    assert!(fps < 2600.0 && lost == 0, "{row}");
    // A busy machine may itself not keep up with the last rate that is tried.
    assert!(["device", "sender"].contains(&row["limit"].as_str().unwrap()), "{row}");
    let trials = row["trials"].as_array().unwrap();
    assert!(trials.len() > 2 && trials[0]["lost"].as_u64().unwrap() > 0, "{row}");
}

/// Checks the figures of every test with several flows, both directions and a mix of sizes, and the report.
pub(crate) fn every_test_of_a_cable(kind: &str) {
    let lab = cable();
    let rows = measure(
        &lab,
        kind,
        "--test throughput,latency,loss,back-to-back,rate --direction both --ipv6 --flows 50 --size imix \
         --max-rate 5000 --rate 2000 --loss 99 --trial 0.2 --repeat 2 --report run.json,run.csv,run.html",
    );
    let rows = rows.unwrap();
    let tests: Vec<_> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["throughput", "latency", "loss", "back-to-back", "rate"]);
    for row in &rows {
        assert_eq!((row["direction"].as_str(), row["size"].as_str()), (Some("both"), Some("imix")), "{row}");
        assert_eq!((number(row, "ip"), number(row, "flows"), number(row, "threads")), (6.0, 50.0, 1.0));
        // 84 bytes are the shortest IPv6 frame with a stamp.
        assert!((number(row, "mean_size") - (7 * 84 + 4 * 594 + 1518) as f64 / 12.0).abs() < 0.01, "{row}");
        assert!(!row["machine"]["kernel"].as_str().unwrap().is_empty(), "{row}");
        assert!(number(&row["machine"], "cores") >= 1.0 && number(&row["machine"], "load") >= 0.0, "{row}");
    }
    let [throughput, latency, loss, bursts, rate] = &rows[..] else { unreachable!("five tests") };
    assert!(number(throughput, "fps") <= 5100.0 && number(throughput, "sent") > 0.0, "{throughput}");
    assert_eq!((number(latency, "fps"), latency["repetitions"].as_array().unwrap().len()), (2000.0, 2));
    assert!(number(&latency["typical"], "median") > 0.0, "{latency}");
    assert!(number(&latency["worst"], "median") >= number(&latency["typical"], "median"), "{latency}");
    let steps = loss["steps"].as_array().unwrap();
    assert!(steps.len() >= 2 && number(&steps[0], "percent") == 100.0, "{loss}");
    assert!(number(&steps[1], "fps") <= 4600.0, "{loss}");
    assert!(bursts["is_at_end"].as_bool().unwrap() && number(&bursts["frames"], "mean") > 0.0, "{bursts}");
    // 2000 in a second, for a fifth of it. A busy machine may have held the sender up.
    let offered = number(rate, "sent") + number(rate, "skipped");
    assert!(number(rate, "sent") > 0.0 && offered <= 404.0, "{rate}");

    let read = |name: &str| fs::read_to_string(lab.path(name)).unwrap();
    let report: Value = serde_json::from_str(&read("run.json")).unwrap();
    assert_eq!(report["rows"].as_array().unwrap(), &rows);
    assert!(report["error"].is_null() && report["arguments"][1] == "rate", "{report}");
    // A title, one throughput, two repetitions of latencies, the steps, two bursts, one rate.
    assert_eq!(read("run.csv").lines().count(), 1 + 1 + 2 + steps.len() + 2 + 1);
    let page = read("run.html");
    assert!(page.contains("<svg") && page.contains("both, IPv6, imix") && !page.contains("http"), "{page}");
}

/// Checks that a capture's packets are sent at a rate, and counted when they come back.
pub(crate) fn capture_through_a_cable(kind: &str) {
    let lab = cable();
    // Little-endian, microseconds, version 2.4, up to 65535 bytes, Ethernet.
    let mut file = [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
    for length in [18, 700] {
        let packet = datagram("10.1.0.1", "10.2.0.1", (5000, 6000), &vec![7; length]);
        let frame = frame([0x0a; 6], [0x0c; 6], &packet);
        let length = (frame.len() as u32).to_le_bytes();
        file.extend([[0; 4], [0; 4], length, length].concat());
        file.extend(frame);
    }
    fs::write(lab.path("in.pcap"), file).unwrap();
    let rows = measure(&lab, kind, "--replay in.pcap --test rate --rate 2000 --trial 0.3").unwrap();
    assert_eq!(rows[0]["size"], "capture");
    assert!(number(&rows[0], "sent") > 0.0 && number(&rows[0], "sent") <= 601.0, "{rows:?}");
    assert!(number(&rows[0], "lost") < number(&rows[0], "sent"), "{rows:?}");
    assert!(rows[0]["latency"].is_null() && number(&rows[0], "mean_size") == 405.0, "{rows:?}");
}

/// Checks frames that a gateway opens and seals, and that it takes each sequence number once.
pub(crate) fn tunnels_of_a_gateway(kind: &str) {
    let lab = Lab::new(&["tester", "gw"]);
    lab.link([("tester", "r0", &["192.0.2.7/24"]), ("gw", "g0", &["192.0.2.1/24"])]);
    lab.link([("tester", "r1", &["10.99.0.2/24"]), ("gw", "g1", &["10.99.0.1/24"])]);
    let _gateway = lab.gateway(
        "gw",
        &format!(
            r#"
[[port]]
name = "outside"
kind = "{kind}"
device = "g0"
addresses = ["192.0.2.1/24"]
[[port]]
name = "inside"
kind = "{kind}"
device = "g1"
addresses = ["10.99.0.1/24"]
[[route]]
to = "10.97.0.0/24"
via = "10.99.0.2"
[[tunnel]]
name = "tester"
local = "192.0.2.1"
remote = "192.0.2.7"
inner_local = "10.97.0.0/24"
inner_remote = "10.98.0.0/24"
window = 65536
inbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "up" }}
outbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }}
"#
        ),
    );
    let write = |sequence: u64| {
        let end = format!(
            r#"
[[port]]
name = "outside"
device = "r0"
addresses = ["192.0.2.7/24"]
[[tunnel]]
name = "gateway"
local = "192.0.2.7"
remote = "192.0.2.1"
inner_local = "10.98.0.0/24"
inner_remote = "10.97.0.0/24"
inbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }}
outbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "up", sequence = {sequence} }}
"#
        );
        fs::write(lab.path("end.toml"), end).unwrap();
    };
    let arguments = format!(
        "--esp end.toml --dst-mac {} --peer-dst-mac {} --direction both --flows 20 --size imix --test rate \
         --rate 2000 --trial 0.5 --report run.json",
        mac(&lab, "gw", "g0"),
        mac(&lab, "gw", "g1")
    );
    write(0);
    let rows = measure(&lab, kind, &arguments).unwrap();
    assert_eq!((rows[0]["ciphers"][0].as_str(), number(&rows[0], "forged")), (Some("aes128gcm16"), 0.0));
    assert!(
        number(&rows[0], "sent") > 0.0 && number(&rows[0], "lost") < number(&rows[0], "sent") / 2.0,
        "{rows:?}"
    );
    assert!(number(&rows[0]["latency"], "p50") > 0.0, "{rows:?}");
    let report: Value = serde_json::from_slice(&fs::read(lab.path("run.json")).unwrap()).unwrap();
    let last = report["numbers"][0]["number"].as_u64().unwrap();
    assert!(last as f64 >= number(&rows[0], "sent") / 2.0, "{report}");
    assert!(number(&report["numbers"][0], "received") > 0.0, "{report}");
    // The same numbers again are repetitions.
    let why = measure(&lab, kind, &arguments).unwrap_err();
    assert!(why.contains("no frame came back (both)"), "{why}");
    write(last);
    let rows = measure(&lab, kind, &arguments).unwrap();
    assert!(number(&rows[0], "lost") < number(&rows[0], "sent") / 2.0, "{rows:?}");
}

/// A running measurement, which is killed on drop.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that a signal ends a run at once, between trials and within one: with the rows so far in its reports,
/// and nothing left on the devices.
pub(crate) fn signal_ends_a_run_with_a_report(kind: &str) {
    let lab = cable();
    let fixed =
        "bench rate --port r0 --peer-port r1 --size 64 --loss 99 --json --report run.json,run.csv,run.html";
    for (name, signal, arguments) in [
        // After the first row, the device is left alone for a minute.
        ("INT", 2, "--test rate,latency --rate 1000 --trial 0.2 --settle 60"),
        // After a burst of two seconds, there is a trial of an hour.
        (
            "TERM",
            15,
            "--test back-to-back,rate --rate 1000 --max-rate 1000 --repeat 1 --trial 3600 --settle 0",
        ),
    ] {
        let mut command = lab.command("tester", &format!("{} {fixed} --kind {kind} {arguments}", program()));
        let mut run = Run(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut rows = BufReader::new(run.0.stdout.take().unwrap()).lines();
        let row: Value = serde_json::from_str(&rows.next().expect("a row").unwrap()).unwrap();
        lab.run("tester", &format!("kill -{name} {}", run.0.id()));
        let status = wait_for("the run to end", || run.0.try_wait().unwrap());
        let mut errors = String::new();
        run.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(status.signal(), Some(signal), "{status}: {errors}");
        let why = format!("interrupted by SIG{name} before everything was measured");
        assert!(errors.contains(&why), "{errors}");
        assert!(rows.next().is_none());

        let read = |name: &str| fs::read_to_string(lab.path(name)).unwrap();
        let report: Value = serde_json::from_str(&read("run.json")).unwrap();
        assert_eq!((&report["rows"], &report["interrupted"]), (&json!([row]), &json!(true)), "{report}");
        assert_eq!(report["error"], why, "{report}");
        // The titles, and the only rate or burst.
        assert_eq!(read("run.csv").lines().count(), 2);
        let page = read("run.html");
        assert!(page.contains("This run was interrupted") && page.contains(&why), "{page}");
        for file in ["run.json.part", "run.csv.part", "run.html.part"] {
            assert!(!lab.path(file).exists(), "{file}");
        }
        // Programs are detached when the process's descriptors are closed, a moment after its end.
        wait_for("the devices to be bare", || {
            let is_bare = |device| !lab.run("tester", &format!("ip -d link show {device}")).contains("xdp");
            ["r0", "r1"].into_iter().all(is_bare).then_some(())
        });
    }
    let rows = measure(&lab, kind, "--size 64 --loss 99 --test rate --rate 1000 --trial 0.1").unwrap();
    assert!(number(&rows[0], "sent") > 0.0, "{rows:?}");
}
