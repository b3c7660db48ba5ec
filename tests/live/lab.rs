//! Network namespaces joined by veth pairs, and programs that run in them. All of them end with the
//! test.

use super::nics::{Nic, with_dpdk};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use wayfarer::control::protocol::{CounterView, DropView, PeerView, PortView, SaView, WorkerView};

/// How long a test waits for an expected event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a gateway may take to follow a change of a device: a second (docs/operating.md), and another one
/// for the machine. Two cores also run other tests; the commands that make a change, and those that ask for
/// it, start several programs each.
const SOON: Duration = Duration::from_secs(2);
/// Maximum run time of one command in seconds.
const COMMAND_TIMEOUT: &str = "60";

/// A test's own small network.
pub(crate) struct Lab {
    id: String,
    dir: TempDir,
    spaces: RefCell<HashSet<String>>,
    /// `true` if a NIC may hold the last packet back until another one comes.
    pub(crate) holds_back: Cell<bool>,
    /// `true` if devices keep their offloads, which veth pairs have by default.
    pub(crate) offloads: Cell<bool>,
}

impl Lab {
    /// Makes these namespaces, not connected.
    pub(crate) fn new(spaces: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(is_root(), "this test makes network namespaces and needs root");
        let id = format!("wf{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let lab = Self {
            id,
            dir: tempfile::tempdir().unwrap(),
            spaces: RefCell::default(),
            holds_back: Cell::default(),
            offloads: Cell::default(),
        };
        for (name, key) in [("up", "11"), ("down", "22")] {
            let path = lab.path(name);
            fs::write(&path, key.repeat(20)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        spaces.iter().for_each(|space| lab.add_space(space));
        lab
    }

    /// Adds a namespace.
    pub(crate) fn add_space(&self, space: &str) {
        let full = self.full(space);
        succeed(Command::new("ip").args(["netns", "add", &full]));
        self.spaces.borrow_mut().insert(full);
        self.run(space, "ip link set lo up");
        for setting in
            ["ipv4.conf.all.rp_filter=0", "ipv4.conf.default.rp_filter=0", "ipv6.conf.default.accept_dad=0"]
        {
            self.run(space, &format!("sysctl -qw net.{setting}"));
        }
    }

    /// Replaces a file in /etc for programs that start in a namespace from now on (ip-netns(8)).
    pub(crate) fn etc(&self, space: &str, name: &str, content: &str) {
        let folder = etc_of(&self.full(space));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), content).unwrap();
    }

    /// Returns a namespace's system-wide name.
    pub(crate) fn full(&self, space: &str) -> String {
        format!("{}-{space}", self.id)
    }

    /// Returns the path of a file of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Joins two devices of two queues each, given as namespace, name and addresses. Offloads are off
    /// unless the lab keeps them, so that frames and checksums are as on a wire.
    pub(crate) fn link(&self, ends: [(&str, &str, &[&str]); 2]) {
        let [(a, a_device, _), (b, b_device, _)] = ends;
        let (a, b) = (self.full(a), self.full(b));
        let queues = ["numrxqueues", "2", "numtxqueues", "2"];
        let mut add = Command::new("ip");
        add.args(["link", "add", a_device, "netns", &a]).args(queues);
        succeed(add.args(["type", "veth", "peer", "name", b_device, "netns", &b]).args(queues));
        for (space, device, addresses) in ends {
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                self.run(space, &format!("ip address add {address} dev {device}{nodad}"));
            }
            self.run(space, &format!("ip link set {device} up"));
            if !self.offloads.get() {
                self.run(space, &format!("ethtool -K {device} tx off tso off gso off gro off"));
            }
        }
    }

    /// Enables forwarding in a namespace.
    pub(crate) fn forward(&self, space: &str) {
        self.run(space, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }

    /// Makes a command in a namespace, with words separated by single blanks.
    pub(crate) fn command(&self, space: &str, command: &str) -> Command {
        let mut all = Command::new("ip");
        all.args(["netns", "exec", &self.full(space)]).args(command.split(' ')).stdin(Stdio::null());
        all.current_dir(self.dir.path());
        all
    }

    /// Runs a command with a time limit, and returns its output, even if it fails.
    pub(crate) fn output(&self, space: &str, command: &str) -> Output {
        self.command(space, &format!("timeout -k 1 {COMMAND_TIMEOUT} {command}")).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub(crate) fn run(&self, space: &str, command: &str) -> String {
        succeed(&mut self.command(space, &format!("timeout -k 1 {COMMAND_TIMEOUT} {command}")))
    }

    /// Runs a command that changes a device, waits until a gateway is seen to follow, and fails if that
    /// takes longer than [`SOON`]. A gateway that polled its devices every few seconds would fail where
    /// one change comes as soon as the one before is seen.
    pub(crate) fn change(&self, space: &str, command: &str, is_followed: impl Fn() -> bool) {
        let start = Instant::now();
        self.run(space, command);
        wait_for(command, || is_followed().then_some(()));
        let took = start.elapsed();
        assert!(took <= SOON, "{command}: followed after {took:?}");
    }

    /// Starts a program whose output is read while it runs.
    pub(crate) fn spawn(&self, space: &str, command: &str) -> Program {
        Program::start(&mut self.command(space, command))
    }

    /// Returns a counter of a namespace's kernel, as /proc/net/snmp has it.
    pub(crate) fn counted(&self, space: &str, protocol: &str, name: &str) -> u64 {
        let all = self.run(space, "cat /proc/net/snmp");
        let mut lines = all.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|other| other == name).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    }

    /// Replaces all nftables rules of a namespace.
    pub(crate) fn nft(&self, space: &str, rules: &str) {
        fs::write(self.path("rules.nft"), format!("flush ruleset\n{rules}")).unwrap();
        self.run(space, "nft -f rules.nft");
    }

    /// Writes a configuration with its own control socket, and returns the file. `config` continues
    /// the section `[gateway]`.
    pub(crate) fn config(&self, name: &str, config: &str) -> PathBuf {
        let file = self.path(&format!("{name}.toml"));
        let workers = if config.starts_with("workers") { "" } else { "workers = [0]\n" };
        let head = format!("[gateway]\nidle = \"100us\"\ncontrol = \"{name}.sock\"\n{workers}");
        let queues = if config.starts_with("workers = [0, 1]") { 2 } else { 1 };
        fs::write(&file, head + &with_dpdk(config, queues)).unwrap();
        file
    }

    /// Starts a gateway, and waits until its workers receive packets.
    pub(crate) fn gateway(&self, space: &str, config: &str) -> Gateway {
        let nics = Nic::all(config);
        for command in nics.iter().map(Nic::take_device) {
            self.run(space, &command);
        }
        let gateway = self.gateway_from_file(space, &self.config(space, config));
        for command in nics.iter().flat_map(Nic::plug) {
            self.run(space, &command);
        }
        self.holds_back.set(self.holds_back.get() || nics.iter().any(Nic::holds_back));
        gateway
    }

    /// Starts a gateway with a configuration file, after which its control socket is named.
    pub(crate) fn gateway_from_file(&self, space: &str, file: &Path) -> Gateway {
        let log = file.with_extension("log");
        let child = self
            .command(space, &format!("{} gateway --config {}", program(), file.display()))
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut gateway = Gateway { child, socket: file.with_extension("sock"), log };
        wait_for("the gateway's workers to begin", || {
            let ended = gateway.child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway in {space} ended: {}", gateway.log());
            let workers: Vec<WorkerView> = serde_json::from_str(&gateway.try_show("workers")?).unwrap();
            // Before its first turn a worker has given AF_XDP no frames, so incoming packets are
            // lost.
            workers.iter().all(|worker| worker.turns > 0).then_some(())
        });
        gateway
    }

    /// Runs `f` on a thread in a namespace, and returns its result.
    pub(crate) fn enter<R: Send>(&self, space: &str, f: impl FnOnce() -> R + Send) -> R {
        let space = File::open(Path::new("/run/netns").join(self.full(space))).unwrap();
        thread::scope(|scope| {
            let inside = move || {
                // Namespaces are per thread (setns(2)).
                nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                f()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in self.spaces.borrow().iter() {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
            let _ = fs::remove_dir_all(etc_of(space));
        }
    }
}

/// Returns the folder with a namespace's own files of /etc.
fn etc_of(full: &str) -> PathBuf {
    Path::new("/etc/netns").join(full)
}

fn is_root() -> bool {
    // The owner of a process's own folder in /proc is its effective user.
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

/// Returns the path of the program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_wayfarer")
}

/// A running gateway, which is killed on drop. Before it ends, the counters of its workers and of its slow
/// path must add up.
pub(crate) struct Gateway {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Returns the gateway's standard error so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the path of the control socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn try_show(&self, what: &str) -> Option<String> {
        let mut command = Command::new(program());
        command.args(["show", what, "--json", "--socket"]).arg(&self.socket);
        let output = command.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn show<T: serde::de::DeserializeOwned>(&self, what: &str) -> Vec<T> {
        let json = self.try_show(what).unwrap_or_else(|| panic!("no answer: {}", self.log()));
        serde_json::from_str(&json).unwrap()
    }

    /// Returns the gateway's tunnels.
    pub(crate) fn tunnels(&self) -> Vec<SaView> {
        self.show("sa")
    }

    /// Returns the only tunnel.
    pub(crate) fn sa(&self) -> SaView {
        self.tunnels().pop().expect("a tunnel")
    }

    /// Returns the connected peers.
    pub(crate) fn peers(&self) -> Vec<PeerView> {
        self.show::<PeerView>("peers").into_iter().filter(|peer| peer.state == "up").collect()
    }

    /// Returns the IKE counter of this name.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let all: Vec<CounterView> = self.show("ike");
        all.into_iter().find(|counter| counter.name == name).expect("a counter").count
    }

    /// Runs the program with these arguments on the gateway's control socket; returns the output.
    pub(crate) fn command(&self, arguments: &str) -> String {
        succeed(Command::new(program()).args(arguments.split(' ')).arg("--socket").arg(&self.socket))
    }

    /// Returns the gateway's ports.
    pub(crate) fn ports(&self) -> Vec<PortView> {
        self.show("ports")
    }

    /// Returns the packets that each worker received.
    pub(crate) fn received(&self) -> Vec<u64> {
        self.show::<WorkerView>("workers").iter().map(|worker| worker.received).collect()
    }

    /// Returns the number of free frames of all workers.
    pub(crate) fn free_frames(&self) -> u64 {
        self.show::<WorkerView>("workers").iter().map(|worker| worker.free_frames).sum()
    }

    /// Returns the dropped packets by reason.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        self.show::<DropView>("drops").into_iter().map(|drop| (drop.reason, drop.packets)).collect()
    }

    /// Returns the packets dropped for one reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.drops().get(reason).copied().unwrap_or(0)
    }

    /// Asserts that no packet was dropped for a reason of a severity above `info`.
    pub(crate) fn assert_no_drops(&self) {
        self.assert_no_drops_but(&[]);
    }

    /// Does the same as [`Gateway::assert_no_drops`], but for these reasons. On a busy machine, a port's
    /// ring may be full.
    pub(crate) fn assert_no_drops_but(&self, reasons: &[&str]) {
        let reasons = [reasons, &["PortMissed"]].concat();
        let mut bad: Vec<DropView> = self.show("drops");
        bad.retain(|drop| {
            drop.packets > 0 && drop.severity != "info" && !reasons.contains(&&drop.reason[..])
        });
        assert!(bad.is_empty(), "{bad:?}");
    }

    /// Returns the gateway's process ID.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends the gateway a signal.
    pub(crate) fn signal(&self, name: &str) {
        succeed(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]));
    }

    /// Returns the counters of workers and of the slow path that do not add up: none as soon as they do.
    /// `None` if the gateway does not answer.
    fn out_of_balance(&self) -> Option<Vec<String>> {
        let adds_up = |worker: &WorkerView| {
            let came = worker.received + worker.injected + worker.made;
            came == worker.sent + worker.dropped + worker.consumed + worker.waiting
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let workers: Vec<WorkerView> = serde_json::from_str(&self.try_show("workers")?).unwrap();
            let wrong = workers.iter().filter(|worker| !adds_up(worker)).map(|worker| format!("{worker:?}"));
            let mut wrong: Vec<_> = wrong.collect();
            let slow_path: Vec<CounterView> = serde_json::from_str(&self.try_show("slow-path")?).unwrap();
            let sum = |names: &[&str]| {
                let named = slow_path.iter().filter(|counter| names.contains(&&counter.name[..]));
                named.map(|counter| counter.count).sum::<u64>()
            };
            let came = sum(&["punted", "received", "made"]);
            if came != sum(&["injected", "sent", "consumed", "dropped", "waiting"]) {
                wrong.push(format!("{slow_path:?}"));
            }
            if wrong.is_empty() || Instant::now() > deadline {
                return Some(wrong);
            }
            // A worker that is asked while it has packets in hand is asked again.
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the gateway with SIGTERM, and returns its exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        assert_eq!(self.out_of_balance(), Some(vec![]), "{}", self.log());
        self.signal("TERM");
        wait_for("the gateway to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let has_failed = thread::panicking();
        // A gateway that has ended does not answer.
        let wrong = if has_failed { None } else { self.out_of_balance() };
        if has_failed {
            eprintln!("drops: {}", self.try_show("drops").unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if has_failed {
            eprintln!("{}:\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
        let wrong = wrong.unwrap_or_default();
        assert!(wrong.is_empty(), "packets whose end was not counted, or counted twice: {wrong:#?}");
    }
}

/// A running program, which is killed on drop.
pub(crate) struct Program {
    command: String,
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a command.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { command: format!("{command:?}"), child, out }
    }

    /// Reads lines until one contains `text`.
    pub(crate) fn wait_for_line(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let length = self.out.read_line(&mut line).unwrap();
            assert!(length > 0, "{} ended before it printed {text:?}", self.command);
        }
    }

    /// Interrupts the program, as Ctrl-C would, and continues as [`Program::finish`].
    pub(crate) fn interrupt(self) -> String {
        succeed(Command::new("kill").args(["-INT", &self.child.id().to_string()]));
        self.finish()
    }

    /// Waits for the program to succeed, and returns the rest of its output.
    pub(crate) fn finish(mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}: {rest}", self.command);
        rest
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Polls `ask` until it returns a value, and returns that; fails after [`PATIENCE`].
pub(crate) fn wait_for<R>(what: &str, ask: impl FnMut() -> Option<R>) -> R {
    wait_until(Instant::now() + PATIENCE, what, ask)
}

/// Does the same as [`wait_for`] for slow events such as a peer's timeout.
pub(crate) fn wait_longer<R>(what: &str, ask: impl FnMut() -> Option<R>) -> R {
    wait_until(Instant::now() + 6 * PATIENCE, what, ask)
}

fn wait_until<R>(deadline: Instant, what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        // Leave the processor to the programs that are waited for.
        thread::sleep(Duration::from_millis(5));
    }
}
