//! Memory from huge pages: taken at the start, given back at the end.

use crate::{
    dpdk::set_ups::{assert_calm, null_config, refused},
    lab::{Lab, wait_for},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
/// Enough for a small gateway, with pages of 2 MiB.
const WANTED: u64 = 128;

/// Huge pages that there were not before; given back when the test ends.
struct HugePages(u64);

impl HugePages {
    fn new() -> Self {
        let before = number(Path::new(COUNT));
        // Makes whole pages of what is in pieces, where the kernel can.
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        fs::write(COUNT, (before + WANTED).to_string()).unwrap();
        let more = number(Path::new(COUNT)).saturating_sub(before);
        let this = Self(more);
        assert_eq!(more, WANTED, "this test needs {WANTED} huge pages; the machine gives {more} ({COUNT})");
        this
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(COUNT, number(Path::new(COUNT)).saturating_sub(self.0).to_string());
    }
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Huge pages that are free, of all sizes.
fn free() -> u64 {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").unwrap();
    sizes.map(|size| number(&size.unwrap().path().join("free_hugepages"))).sum()
}

/// Whether a program in the namespace has memory from huge pages.
fn are_used(lab: &Lab) -> bool {
    let programs = lab.run("gw", &format!("ip netns pids {}", lab.full("gw")));
    let memory = |program: &str| fs::read_to_string(format!("/proc/{program}/smaps_rollup"));
    // One that has just ended has no memory.
    let memory: String = programs.lines().filter_map(|program| memory(program).ok()).collect();
    let sizes = memory.lines().filter(|line| line.contains("_Hugetlb:"));
    sizes.into_iter().any(|line| line.split_whitespace().nth(1) != Some("0"))
}

/// The files that DPDK could leave behind.
fn files() -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut folders: Vec<_> = ["/dev/hugepages", "/var/run/dpdk"].map(PathBuf::from).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            all.insert(path);
        }
    }
    all
}

#[test]
fn ten_starts_and_stops_leave_nothing_behind() {
    let _pages = HugePages::new();
    let lab = Lab::new(&["gw"]);
    let (free_before, files_before) = (free(), files());
    // Gateways of other tests that are just starting have theirs, for a moment.
    let none_left = |whose: &str| wait_for(whose, || files().is_subset(&files_before).then_some(()));
    let all_back = |whose: &str| wait_for(whose, || (free() >= free_before).then_some(()));
    let config = null_config("hugepages = true\nvdev = [\"net_ring0\", \"net_null0\"]");
    for round in 0..10 {
        let mut gateway = lab.gateway("gw", &config);
        assert!(are_used(&lab), "its memory is not from huge pages");
        let ports =
            wait_for("packets", || Some(gateway.ports()).filter(|ports| ports[1].rx_packets > 10_000));
        assert_eq!((ports[1].rx_missed, ports[1].rx_errors), (0, 0), "round {round}");
        let status = gateway.stop();
        assert!(status.success(), "round {round}: {status}: {}", gateway.log());
        assert_calm(&gateway);
        all_back(&format!("the pages of round {round}"));
        none_left(&format!("the files of round {round} to go"));
    }
    // One that is killed has no time to clean up.
    let killed = lab.gateway("gw", &config);
    assert!(are_used(&lab));
    drop(killed);
    all_back("the pages of one that was killed");
    none_left("the files of one that was killed to go");
    // Nor has one that could not start taken any.
    let too_much =
        null_config("hugepages = true\nmemory = \"1048576MiB\"\nvdev = [\"net_ring0\", \"net_null0\"]");
    refused(&lab, "", &too_much, &["dpdk: ", "Not enough memory available", "1048576MB"]);
    all_back("the pages of one that did not start");
    none_left("the files of one that did not start to go");
}

#[test]
fn no_huge_pages_is_said_at_the_start() {
    let lab = Lab::new(&["gw"]);
    // Others may need those of this machine: hidden from this one gateway.
    fs::write(lab.path("hidden"), "mount -t tmpfs none /sys/kernel/mm/hugepages && exec \"$@\"").unwrap();
    let config = null_config("hugepages = true\nvdev = [\"net_ring0\", \"net_null0\"]");
    let words = ["dpdk: no huge page is free", "scripts/dpdk-setup", "hugepages = false"];
    refused(&lab, "unshare -m sh hidden ", &config, &words);
}
