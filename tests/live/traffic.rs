//! Traffic of ping and iperf3, and its results.

use super::lab::{Gateway, Lab, Program, wait_for};
use std::fs;

/// Waits until a ping gets through, so that addresses are resolved and tables filled.
pub(crate) fn wait_for_ping(lab: &Lab, from: &str, to: &str) {
    wait_for("the first ping", || {
        lab.output(from, &format!("ping -c 1 -W 1 {to}")).status.success().then_some(())
    });
}

/// Sends `count` pings with gaps of 20 ms, and fails if one is lost.
pub(crate) fn ping(lab: &Lab, from: &str, to: &str, count: u32) {
    ping_with(lab, from, to, count, "");
}

/// Does the same as [`ping`], with further options of the command.
pub(crate) fn ping_with(lab: &Lab, from: &str, to: &str, count: u32, options: &str) {
    // An additional ping pushes out one that a NIC holds back.
    let sent = count + u32::from(lab.holds_back.get());
    let command = format!("ping -i 0.02 -c {sent} -W 2 {to} {options}");
    let output = lab.run(from, command.trim_end());
    let is_answered = |seq: &u32| output.contains(&format!("icmp_seq={seq} "));
    assert_eq!((1..=count).filter(is_answered).count() as u32, count, "{output}");
}

/// Returns how many pings got no answer according to ping's summary.
pub(crate) fn lost(output: &str) -> u32 {
    let summary = output.lines().find(|line| line.contains("packets transmitted")).expect("ping's summary");
    let numbers: Vec<u32> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers[0] - numbers[1]
}

/// An iperf3 server. Between two clients it stops listening for a moment.
pub(crate) struct IperfServer(Program);

impl IperfServer {
    pub(crate) fn start(lab: &Lab, space: &str) -> Self {
        Self(lab.spawn(space, "iperf3 -s --forceflush"))
    }

    /// Waits until the server listens for the next client.
    pub(crate) fn listen(&mut self) {
        self.0.wait_for_line("Server listening");
    }

    /// Runs the next client for a second, and returns the result.
    pub(crate) fn run(&mut self, lab: &Lab, from: &str, to: &str, options: &str) -> Run {
        self.listen();
        Run::read(&lab.run(from, &iperf_command(to, 1, options)))
    }
}

/// Returns the command of a client.
pub(crate) fn iperf_command(to: &str, seconds: u32, options: &str) -> String {
    format!("iperf3 -J --connect-timeout 5000 -i 0.5 -t {seconds} -c {to} {options}").trim_end().to_owned()
}

/// The result of a run of iperf3.
pub(crate) struct Run {
    /// Bytes that arrived.
    pub(crate) received: u64,
    /// Bytes sent in each half second.
    pub(crate) intervals: Vec<u64>,
    /// Datagrams lost, in percent, with UDP.
    pub(crate) lost_percent: f64,
}

impl Run {
    pub(crate) fn read(json: &str) -> Self {
        let report: serde_json::Value = serde_json::from_str(json).unwrap();
        let end = &report["end"];
        let received = [&end["sum_received"], &end["sum"]].into_iter().find_map(|s| s["bytes"].as_u64());
        let intervals = report["intervals"].as_array().unwrap();
        Self {
            received: received.unwrap_or_else(|| panic!("no result: {json}")),
            intervals: intervals.iter().filter_map(|i| i["sum"]["bytes"].as_u64()).collect(),
            lost_percent: end["sum"]["lost_percent"].as_f64().unwrap_or(0.0),
        }
    }
}

/// A web server with one page of 3 MB, on all addresses of its namespace.
pub(crate) struct WebServer {
    program: Program,
    page: Vec<u8>,
}

impl WebServer {
    pub(crate) fn start(lab: &Lab, space: &str) -> Self {
        let page: Vec<u8> = (0..3_000_000u32).map(|at| (at / 251) as u8).collect();
        fs::create_dir(lab.path("site")).unwrap();
        fs::write(lab.path("site/page"), &page).unwrap();
        let server = "exec python3 -u -m http.server 80 --bind :: --directory site 2>&1";
        let mut program = Program::start(lab.command(space, "sh -c").arg(server));
        program.wait_for_line("Serving HTTP");
        Self { program, page }
    }

    /// Fetches the page from the server's address `at`, in brackets if it is of IPv6, and checks that all
    /// of it comes.
    pub(crate) fn fetch(&self, lab: &Lab, from: &str, at: &str) {
        lab.run(from, &format!("curl -gsS --max-time 30 -o got http://{at}/page"));
        assert!(fs::read(lab.path("got")).unwrap() == self.page, "the page in full");
    }

    /// Waits until the server has seen this client.
    pub(crate) fn wait_for_client(&mut self, address: &str) {
        self.program.wait_for_line(&format!("{address} - -"));
    }
}

/// Waits until `gateway` has opened another `count` packets of its tunnel.
pub(crate) fn wait_for_packets(gateway: &Gateway, count: u64) {
    let before = gateway.sa().inbound.packets;
    wait_for("traffic through the tunnel", || (gateway.sa().inbound.packets >= before + count).then_some(()));
}

/// Returns how many pings, 20 ms apart, a number of moves may lose. A move loses the ping in flight
/// when the mapping goes; the answer to the first ping by the new path, if it is back before the
/// slow path has followed; and one more if a busy machine delays the slow path.
pub(crate) fn in_flight(moves: u32) -> u32 {
    3 * moves
}
