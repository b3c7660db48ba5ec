//! Tests of `scripts/dpdk-setup` on simulated machines, and of its huge pages on the real one,
//! which needs root.

mod machine;

use machine::{Machine, Outcome, SCRIPT, run};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PAGES: &str = "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const OVERRIDE: &str = "bus/pci/devices/0000:03:00.0/driver_override";

/// Returns the usual steps for pages of 2 MiB and one device.
fn usual_steps(machine: &Machine) -> Vec<String> {
    let at = |path| machine.path(path).display().to_string();
    vec![
        format!("echo 512 > {}", at(PAGES)),
        format!("echo vfio-pci > {}", at(OVERRIDE)),
        format!("echo 0000:03:00.0 > {}", at("bus/pci/devices/0000:03:00.0/driver/unbind")),
        format!("echo 0000:03:00.0 > {}", at("bus/pci/drivers_probe")),
    ]
}

#[track_caller]
fn assert_refused(outcome: &Outcome, why: &str) {
    assert_eq!((outcome.code, outcome.error.lines().count()), (1, 1), "{outcome:?}");
    assert!(outcome.error.starts_with("dpdk-setup: ") && outcome.error.contains(why), "{outcome:?}");
}

#[track_caller]
fn assert_done(outcome: &Outcome, last: &str) {
    assert_eq!((outcome.code, outcome.error.as_str()), (0, ""), "{outcome:?}");
    assert_eq!(outcome.out.lines().last(), Some(last), "{outcome:?}");
}

/// Held by a test that counts the pages of the real machine.
static REAL_MACHINE: Mutex<()> = Mutex::new(());

const DRY: &str = "dry run: nothing changed; add --apply";
const NOTHING: &str = "nothing to do: already in that state";

#[test]
fn dry_run_changes_nothing() {
    let machine = Machine::new();
    let before = machine.tree();
    let outcome = machine.run("--hugepages 1GiB --bind 03:00.0");
    assert_done(&outcome, DRY);
    assert_eq!(outcome.steps(), usual_steps(&machine));
    assert!(
        outcome.out.contains("# 0000:03:00.0 from ixgbe to vfio-pci; eth1 leaves the kernel\n"),
        "{outcome:?}"
    );
    assert_eq!(machine.tree(), before);
    assert!(!machine.record().exists());
}

#[test]
fn applies_the_printed_steps_and_undoes_them() {
    let machine = Machine::new();
    machine.with_pipes(&["ixgbe", "vfio-pci"]);
    let before = machine.tree();

    let moved = machine.kernel(&[("0000:03:00.0", "ixgbe")]);
    let outcome = machine.run("--hugepages 512 --bind 0000:03:00.0 --apply");
    assert_done(&outcome, "done");
    moved.wait();
    assert_eq!(outcome.steps(), usual_steps(&machine));
    let mut applied = before.clone();
    applied.insert(machine.path(PAGES), Some("512\n".into()));
    applied.insert(machine.path(OVERRIDE), Some("vfio-pci\n".into()));
    applied
        .insert(machine.path("bus/pci/devices/0000:03:00.0/driver"), Some("../../drivers/vfio-pci".into()));
    assert_eq!(machine.tree(), applied);
    assert_done(&machine.run("--hugepages 512 --bind 0000:03:00.0 --apply"), NOTHING);

    // A second run adds more. Undo restores the state before the first.
    let moved = machine.kernel(&[("0000:03:00.1", "ixgbe")]);
    assert_done(&machine.run("--hugepages 768 --bind 0000:03:00.0 --bind 0000:03:00.1 --apply"), "done");
    moved.wait();

    let applied = machine.tree();
    let dry = machine.run("--undo");
    assert_done(&dry, DRY);
    assert_eq!(machine.tree(), applied);
    let moved = machine.kernel(&[("0000:03:00.1", "vfio-pci"), ("0000:03:00.0", "vfio-pci")]);
    let outcome = machine.run("--undo --apply");
    assert_done(&outcome, "done");
    moved.wait();
    assert_eq!(outcome.steps(), dry.steps());
    assert_eq!(machine.tree(), before);
    assert_done(
        &machine.run("--undo --apply"),
        &format!("nothing to undo: no {}", machine.record().display()),
    );
}

#[test]
fn reserves_pages_of_one_node() {
    let machine = Machine::new();
    let before = machine.tree();
    let file = machine.path("devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages");
    let outcome = machine.run("--hugepages 4GiB --page-size 1G --node 1 --apply");
    assert_done(&outcome, "done");
    assert_eq!(outcome.steps(), [format!("echo 4 > {}", file.display())]);
    let mut applied = before.clone();
    applied.insert(file, Some("4\n".into()));
    assert_eq!(machine.tree(), applied);
    assert_done(&machine.run("--undo --apply"), "done");
    assert_eq!(machine.tree(), before);
}

/// The simulated kernel only records writes here, so the device keeps its driver.
#[test]
fn stops_at_the_first_failure_and_can_undo() {
    let machine = Machine::new();
    let outcome = machine.run("--hugepages 512 --bind 0000:03:00.0 --bind 0000:03:00.1 --apply");
    assert_refused(&outcome, "0000:03:00.0 has ixgbe, not vfio-pci");
    assert_eq!(outcome.steps(), usual_steps(&machine));
    assert_eq!(machine.read(PAGES), "512\n");
    assert_eq!(machine.read(OVERRIDE), "vfio-pci\n");
    assert_eq!(machine.read("bus/pci/drivers/ixgbe/unbind"), "0000:03:00.0\n");
    assert_eq!(machine.read("bus/pci/drivers_probe"), "0000:03:00.0\n");
    assert_eq!(machine.read("bus/pci/devices/0000:03:00.1/driver_override"), "(null)\n");

    let outcome = machine.run("--undo --apply");
    assert_done(&outcome, "done");
    let at = |path| machine.path(path).display().to_string();
    assert_eq!(outcome.steps(), [format!("echo > {}", at(OVERRIDE)), format!("echo 0 > {}", at(PAGES))]);
    assert_eq!((machine.read(PAGES), machine.read(OVERRIDE)), ("0\n".into(), "\n".into()));
    assert!(!machine.record().exists());
}

#[test]
fn reports_a_missing_file() {
    let machine = Machine::new();
    fs::remove_file(machine.path("bus/pci/drivers_probe")).unwrap();
    let outcome = machine.run("--bind 0000:03:00.0 --apply");
    assert_refused(&outcome, "drivers_probe: No such file or directory");
    assert!(!machine.path("bus/pci/drivers_probe").exists());
}

#[test]
fn reports_fewer_pages_than_requested() {
    let machine = Machine::new();
    // A process's coredump_filter returns the number that was written in hexadecimal: 40 for 64.
    fs::remove_file(machine.path(PAGES)).unwrap();
    machine.link(PAGES, "/proc/self/coredump_filter");
    let outcome = machine.run("--hugepages 64 --apply");
    assert_refused(&outcome, "got 40 huge pages of 64: too little free memory");
}

#[test]
fn loads_the_drivers_module() {
    let machine = Machine::new();
    let driver = machine.path("bus/pci/drivers/vfio-pci");
    fs::remove_dir_all(&driver).unwrap();
    assert_refused(&machine.run("--bind 0000:03:00.0"), "no driver vfio-pci: not in this kernel");

    let log = machine.path("../modprobe.log");
    let body = |then: &str| format!("[ \"$1\" = -n ] || {{ echo \"$*\" >>{}; {then}; }}", log.display());
    machine.program("modprobe", &body("true"));
    let dry = machine.run("--bind 0000:03:00.0");
    assert_done(&dry, DRY);
    assert_eq!(dry.steps().first(), Some(&"modprobe vfio-pci"));
    assert!(!log.exists());
    assert_refused(&machine.run("--bind 0000:03:00.0 --apply"), "there is no PCI driver vfio-pci");
    machine.program("modprobe", &body("echo 'module is signed by nobody' >&2; exit 1"));
    assert_refused(
        &machine.run("--bind 0000:03:00.0 --apply"),
        "modprobe vfio-pci: module is signed by nobody",
    );

    machine.with_pipes(&["ixgbe"]);
    machine.program("modprobe", &body(&format!("mkdir {}", driver.display())));
    let moved = machine.kernel(&[("0000:03:00.0", "ixgbe")]);
    assert_done(&machine.run("--bind 0000:03:00.0 --apply"), "done");
    moved.wait();
    assert_eq!(fs::read_to_string(log).unwrap(), "vfio-pci\n".repeat(3));
}

#[test]
fn binds_without_iommu_only_if_told() {
    const MODE: &str = "module/vfio/parameters/enable_unsafe_noiommu_mode";
    let machine = Machine::new();
    machine.device("0000:06:00.0", "0x020000", "ixgbe", None, None);
    machine.with_pipes(&["ixgbe", "vfio-pci"]);
    let before = machine.tree();
    assert_refused(
        &machine.run("--bind 0000:06:00.0"),
        "0000:06:00.0 is behind no IOMMU, which vfio-pci needs",
    );

    let moved = machine.kernel(&[("0000:06:00.0", "ixgbe")]);
    let outcome = machine.run("--bind 0000:06:00.0 --no-iommu --apply");
    assert_done(&outcome, "done");
    moved.wait();
    assert!(
        outcome
            .out
            .starts_with("# without an IOMMU a device can read and write all of this machine's memory")
    );
    assert_eq!(machine.read(MODE), "Y\n");

    let moved = machine.kernel(&[("0000:06:00.0", "vfio-pci")]);
    assert_done(&machine.run("--undo --apply"), "done");
    moved.wait();
    assert_eq!(machine.tree(), before);
}

#[test]
fn refuses_devices_and_pages_that_cannot_be_used() {
    let machine = Machine::new();
    machine.device("0000:07:00.0", "0x020000", "mlx5_core", None, Some("7"));
    machine.device("0000:08:00.0", "0x020000", "ixgbe", None, Some("8"));
    machine.device("0000:08:00.1", "0x020000", "ixgbe", None, Some("8"));
    let before = machine.tree();
    for (arguments, why) in [
        ("--bind 0000:01:00.0", "0000:01:00.0 is eth0, which carries the default route"),
        ("--bind 0000:05:00.0", "0000:05:00.0 is no network device: its class is 0x010802"),
        ("--bind 0000:09:00.0", "no PCI device 0000:09:00.0 here"),
        ("--bind ../devices", "no PCI device ../devices here"),
        ("--bind 0000:03:00.0 --driver uio", "no driver uio"),
        ("--bind 0000:07:00.0", "0000:07:00.0 works with mlx5_core"),
        ("--bind 0000:08:00.0", "shares IOMMU group 8 with 0000:08:00.1 (ixgbe)"),
        ("--hugepages 1 --page-size 16M", "no huge pages of 16M here, but of 2M, 1G"),
        ("--hugepages 1536M --page-size 1G", "1536M is not a whole number of pages of 1G"),
        ("--hugepages 1 --node 2", "no NUMA node 2 here, but 0, 1"),
    ] {
        assert_refused(&machine.run(arguments), why);
        assert_refused(&machine.run(&format!("{arguments} --apply")), why);
    }
    for arguments in
        ["--undo --hugepages 1", "--node 0", "--no-iommu", "--apply", "--hugepages some", "status --undo"]
    {
        assert_eq!(machine.run(arguments).code, 2, "{arguments}");
    }
    assert_eq!(machine.tree(), before);
    assert!(!machine.record().exists());
    for arguments in [
        "--bind 0000:01:00.0 --force",
        "--bind 0000:07:00.0 --force",
        "--bind 0000:08:00.0 --force",
        "--bind 0000:08:00.0 --bind 0000:08:00.1",
    ] {
        assert_done(&machine.run(arguments), DRY);
    }
}

#[test]
fn refuses_interfaces_in_use() {
    let machine = Machine::new();
    let address = |name: &str, address: &str| {
        format!(
            r#"{{"ifname": "{name}", "flags": ["UP"],
                "addr_info": [{{"local": "{address}", "prefixlen": 24, "scope": "global"}}]}}"#
        )
    };
    // The only addresses belong to one interface, or to two together.
    machine.ip(&format!("[{}]", address("eth1", "192.0.2.1")), "[]");
    assert_refused(&machine.run("--bind 0000:03:00.0"), "eth1, which has the only addresses (192.0.2.1/24)");
    assert_done(&machine.run("--bind 0000:03:00.1"), DRY);
    machine.ip(&format!("[{}, {}]", address("eth1", "192.0.2.1"), address("eth2", "192.0.2.2")), "[]");
    assert_done(&machine.run("--bind 0000:03:00.0"), DRY);
    assert_refused(&machine.run("--bind 0000:03:00.0 --bind 0000:03:00.1"), "has the only addresses");

    // eth1 is a port of a bond with a VLAN, and the default route has two next hops.
    machine.write("devices/virtual/net/bond0/address", "");
    machine.link("class/net/bond0", "../../devices/virtual/net/bond0");
    machine.link("bus/pci/devices/0000:03:00.0/net/eth1/upper_bond0", "../../../../../../class/net/bond0");
    machine.link("devices/virtual/net/bond0/upper_bond0.7", "../bond0.7");
    let route = r#"[{"dst": "default", "nexthops": [{"dev": "eth0"}, {"dev": "bond0.7"}]}]"#;
    machine.ip(&format!("[{}, {}]", address("eth0", "192.0.2.1"), address("bond0.7", "192.0.2.2")), route);
    assert_refused(&machine.run("--bind 0000:03:00.0"), "eth1, which carries the default route by bond0.7");

    machine.program("ip", "echo 'no netlink' >&2; exit 1");
    assert_refused(
        &machine.run("--bind 0000:03:00.1"),
        "cannot tell which interfaces are in use: ip address: no netlink",
    );
    assert_done(&machine.run("--bind 0000:03:00.1 --force"), DRY);
}

#[test]
fn shows_status() {
    let machine = Machine::new();
    machine.write("devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
    machine.write("devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "500\n");
    let outcome = machine.run("");
    assert_eq!((outcome.code, outcome.error.as_str()), (0, ""), "{outcome:?}");
    assert_eq!(machine.run("status").out, outcome.out);
    let lines: Vec<String> =
        outcome.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "2M 1 512 500",
        "1G 0 0 0",
        "iommu on, 4 groups",
        "vfio-pci there",
        "0000:01:00.0 8086:1563 igc eth0 0 1 up, 192.0.2.10/24, default route",
        "0000:03:00.0 8086:1563 ixgbe eth1 0 3 up, 198.51.100.9/24",
        "0000:03:00.1 8086:1563 ixgbe eth2 0 4 no",
    ] {
        assert!(lines.iter().any(|has| has == line), "{line}: {lines:#?}");
    }
    assert!(!outcome.out.contains("0000:05:00.0"), "{outcome:?}");
}

#[test]
fn refuses_a_broken_record() {
    let machine = Machine::new();
    fs::create_dir_all(machine.record().parent().unwrap()).unwrap();
    fs::write(machine.record(), "{}").unwrap();
    assert_refused(&machine.run("--undo"), "dpdk-setup.json cannot be read: KeyError");
    assert_refused(&machine.run("--hugepages 1 --apply"), "dpdk-setup.json cannot be read: KeyError");
    assert_eq!(machine.read(PAGES), "0\n");
}

/// Returns the number of 2 MiB pages of this machine.
fn real_pages() -> u64 {
    fs::read_to_string(Path::new("/sys").join(PAGES)).unwrap().trim().parse().unwrap()
}

/// Restores this number of 2 MiB pages of the machine on drop.
struct RealPages(u64);

impl Drop for RealPages {
    fn drop(&mut self) {
        let _ = fs::write(Path::new("/sys").join(PAGES), self.0.to_string());
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

#[test]
fn reserves_and_returns_pages_of_the_real_machine() {
    assert!(is_root(), "this test makes huge pages and needs root");
    let folder = TempDir::new().unwrap();
    let script = |arguments: &str| {
        let mut command = Command::new(SCRIPT);
        command.args(arguments.split_whitespace()).env("WAYFARER_RUN", folder.path());
        run(command)
    };
    let _alone = REAL_MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = real_pages();
    // Restores the pages even if an assertion fails.
    let _restored = RealPages(before);
    assert_done(&script(&format!("--hugepages {} --apply", before + 4)), "done");
    assert_eq!(real_pages(), before + 4);
    // Other tests run gateways at the same time, whose pools may hold some of the pages for a while.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut undone = script("--undo --apply");
    while undone.error.contains("a running program uses them") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
        undone = script("--undo --apply");
    }
    assert_eq!((undone.code, undone.error.as_str()), (0, ""), "{undone:?}");
    assert_eq!(real_pages(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn needs_root_to_apply() {
    assert!(is_root(), "this test becomes another user and needs root");
    let _alone = REAL_MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = real_pages();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "/usr/bin/python3", "-", "--hugepages"]);
    command.args([&(before + 4).to_string(), "--apply"]).stdin(fs::File::open(SCRIPT).unwrap());
    assert_refused(&run(command), "--apply needs root");
    assert_eq!(real_pages(), before);
}
