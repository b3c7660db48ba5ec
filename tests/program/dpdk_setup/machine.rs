//! A simulated machine for the script: folders as in `/sys`, and programs `ip` and `modprobe`.
//!
//! ```text
//!  0000:01:00.0  igc    eth0  group 1   default route
//!  0000:03:00.0  ixgbe  eth1  group 3   198.51.100.9/24
//!  0000:03:00.1  ixgbe  eth2  group 4
//!  0000:05:00.0  nvme         group 5   no network device
//! ```

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// The script's path.
pub(crate) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/dpdk-setup");

/// Contents of files and targets of links, by path; `None` for folders and pipes.
pub(crate) type Tree = BTreeMap<PathBuf, Option<String>>;

const ADDRESSES: &str = r#"[
    {"ifname": "lo", "flags": ["LOOPBACK", "UP"],
     "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
    {"ifname": "eth0", "flags": ["BROADCAST", "UP"],
     "addr_info": [{"local": "192.0.2.10", "prefixlen": 24, "scope": "global"}]},
    {"ifname": "eth1", "flags": ["BROADCAST", "UP"],
     "addr_info": [{"local": "198.51.100.9", "prefixlen": 24, "scope": "global"}]},
    {"ifname": "eth2", "flags": ["BROADCAST"],
     "addr_info": [{"local": "fe80::1", "prefixlen": 64, "scope": "link"}]}
]"#;

pub(crate) struct Machine {
    folder: TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Outcome {
    /// Returns the lines that are commands.
    pub(crate) fn steps(&self) -> Vec<&str> {
        self.out.lines().filter(|line| line.starts_with("echo ") || line.starts_with("modprobe ")).collect()
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { folder: TempDir::new().unwrap() };
        for size in ["2048", "1048576"] {
            for base in ["kernel/mm", "devices/system/node/node0", "devices/system/node/node1"] {
                for file in ["nr_hugepages", "free_hugepages"] {
                    machine.write(&format!("{base}/hugepages/hugepages-{size}kB/{file}"), "0\n");
                }
            }
        }
        for driver in ["igc", "ixgbe", "mlx5_core", "nvme", "vfio-pci"] {
            machine.write(&format!("bus/pci/drivers/{driver}/unbind"), "");
        }
        machine.write("bus/pci/drivers_probe", "");
        machine.write("module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n");
        machine.device("0000:01:00.0", "0x020000", "igc", Some("eth0"), Some("1"));
        machine.device("0000:03:00.0", "0x020000", "ixgbe", Some("eth1"), Some("3"));
        machine.device("0000:03:00.1", "0x020000", "ixgbe", Some("eth2"), Some("4"));
        machine.device("0000:05:00.0", "0x010802", "nvme", None, Some("5"));
        machine.ip(ADDRESSES, r#"[{"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}]"#);
        machine.program("modprobe", "exit 1");
        machine
    }

    pub(crate) fn device(
        &self,
        address: &str,
        class: &str,
        driver: &str,
        interface: Option<&str>,
        group: Option<&str>,
    ) {
        let device = format!("bus/pci/devices/{address}");
        for (file, text) in [
            ("class", class),
            ("vendor", "0x8086"),
            ("device", "0x1563"),
            ("numa_node", "0"),
            ("driver_override", "(null)"),
        ] {
            self.write(&format!("{device}/{file}"), &format!("{text}\n"));
        }
        self.link(&format!("{device}/driver"), &format!("../../drivers/{driver}"));
        if let Some(interface) = interface {
            self.write(&format!("{device}/net/{interface}/address"), "02:00:00:00:00:01\n");
            self.link(&format!("class/net/{interface}"), &format!("../../{device}/net/{interface}"));
        }
        if let Some(group) = group {
            let group = format!("kernel/iommu_groups/{group}");
            self.link(&format!("{device}/iommu_group"), &format!("../../../../{group}"));
            self.link(&format!("{group}/devices/{address}"), &format!("../../../../{device}"));
        }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("sys").join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        write(&self.path(path), text);
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        relink(&self.path(path), target);
    }

    /// Sets the output of `ip` for addresses and IPv4 routes. There are no IPv6 routes.
    pub(crate) fn ip(&self, addresses: &str, routes: &str) {
        self.program(
            "ip",
            &format!(
                "case $* in
                '-json address') echo '{addresses}' ;;
                '-json -4 route '*) echo '{routes}' ;;
                *) echo '[ ]' ;;
                esac"
            ),
        );
    }

    /// Installs a program for the script to find.
    pub(crate) fn program(&self, name: &str, body: &str) {
        let path = self.folder.path().join("bin").join(name);
        write(&path, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns the path at which the script records the previous state.
    pub(crate) fn record(&self) -> PathBuf {
        self.folder.path().join("run/dpdk-setup.json")
    }

    pub(crate) fn run(&self, arguments: &str) -> Outcome {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), env::var("PATH").unwrap());
        let mut command = Command::new("timeout");
        command.args(["20", SCRIPT]).args(arguments.split_whitespace()).env("PATH", path);
        command.env("WAYFARER_SYSFS", self.path("")).env("WAYFARER_RUN", self.folder.path().join("run"));
        run(command)
    }

    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut folders = vec![self.path("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                let content = if kind.is_symlink() {
                    Some(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
                } else if kind.is_file() {
                    Some(fs::read_to_string(&path).unwrap())
                } else {
                    None
                };
                if kind.is_dir() {
                    folders.push(path.clone());
                }
                tree.insert(path, content);
            }
        }
        tree
    }

    /// Makes pipes of the files by which devices are bound.
    pub(crate) fn with_pipes(&self, drivers: &[&str]) {
        let unbind = drivers.iter().map(|driver| format!("bus/pci/drivers/{driver}/unbind"));
        for path in unbind.chain(["bus/pci/drivers_probe".into()]) {
            let path = self.path(&path);
            fs::remove_file(&path).unwrap();
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        }
    }

    /// Starts to play the kernel while the devices, in this order, leave their drivers for others:
    /// the one that `driver_override` names, or ixgbe if it is cleared. Needs pipes: the one for
    /// probes opens only after a device has its new driver. The returned value waits until all have
    /// moved.
    pub(crate) fn kernel(&self, moves: &[(&'static str, &'static str)]) -> KernelPart {
        let pci = self.path("bus/pci");
        let moves = moves.to_vec();
        let (done, moved) = mpsc::channel();
        thread::spawn(move || {
            for (address, from) in moves {
                let device = pci.join("devices").join(address);
                let unbound = fs::read_to_string(pci.join("drivers").join(from).join("unbind")).unwrap();
                let driver_override = fs::read_to_string(device.join("driver_override")).unwrap();
                if driver_override == "\n" {
                    write(&device.join("driver_override"), "(null)\n");
                }
                let driver = if driver_override == "\n" { "ixgbe" } else { driver_override.trim_end() };
                fs::remove_file(device.join("driver")).unwrap();
                relink(&device.join("driver"), &format!("../../drivers/{driver}"));
                let probed = fs::read_to_string(pci.join("drivers_probe")).unwrap();
                assert_eq!((unbound, probed), (format!("{address}\n"), format!("{address}\n")));
            }
            done.send(()).unwrap();
        });
        KernelPart(moved)
    }
}

/// Waits for the end of the kernel's part.
pub(crate) struct KernelPart(mpsc::Receiver<()>);

impl KernelPart {
    pub(crate) fn wait(self) {
        self.0
            .recv_timeout(Duration::from_secs(10))
            .expect("every device is unbound and probed, with its own address");
    }
}

pub(crate) fn run(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome {
        code: output.status.code().expect("no signal"),
        out: text(output.stdout),
        error: text(output.stderr),
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn relink(path: &Path, target: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}
