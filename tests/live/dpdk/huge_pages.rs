//! Huge pages, which are taken at the start and returned at the end.

use crate::{
    dpdk::set_ups::{assert_only_info_logged, assert_refused, null_config},
    lab::{Lab, wait_for},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
/// Pages of 2 MiB that suffice for a small gateway.
const PAGES: u64 = 128;

/// Additional huge pages, which are returned when the test ends.
struct HugePages(u64);

impl HugePages {
    fn new() -> Self {
        let before = number(Path::new(COUNT));
        // Defragments memory as far as the kernel can.
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        fs::write(COUNT, (before + PAGES).to_string()).unwrap();
        let more = number(Path::new(COUNT)).saturating_sub(before);
        let this = Self(more);
        assert_eq!(more, PAGES, "this test needs {PAGES} huge pages; the machine gives {more} ({COUNT})");
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

/// Returns the number of free huge pages of all sizes.
fn free() -> u64 {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").unwrap();
    sizes.map(|size| number(&size.unwrap().path().join("free_hugepages"))).sum()
}

/// Returns whether a program in the namespace uses huge pages.
fn are_used(lab: &Lab) -> bool {
    let programs = lab.run("gw", &format!("ip netns pids {}", lab.full("gw")));
    let memory = |program: &str| fs::read_to_string(format!("/proc/{program}/smaps_rollup"));
    // A program that has just ended has no memory.
    let memory: String = programs.lines().filter_map(|program| memory(program).ok()).collect();
    let sizes = memory.lines().filter(|line| line.contains("_Hugetlb:"));
    sizes.into_iter().any(|line| line.split_whitespace().nth(1) != Some("0"))
}

/// Lists the files that DPDK could leave behind.
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
    // Gateways of other tests may have some for a moment while they start.
    let none_left = |whose: &str| wait_for(whose, || files().is_subset(&files_before).then_some(()));
    let all_back = |whose: &str| wait_for(whose, || (free() >= free_before).then_some(()));
    let config = null_config("hugepages = true\nvdev = [\"net_ring0\", \"net_null0\"]");
    for round in 0..10 {
        let mut gateway = lab.gateway("gw", &config);
        assert!(are_used(&lab), "the gateway does not use huge pages");
        let ports =
            wait_for("packets", || Some(gateway.ports()).filter(|ports| ports[1].rx_packets > 10_000));
        assert_eq!((ports[1].rx_missed, ports[1].rx_errors), (0, 0), "round {round}");
        let status = gateway.stop();
        assert!(status.success(), "round {round}: {status}: {}", gateway.log());
        assert_only_info_logged(&gateway);
        all_back(&format!("the pages of round {round}"));
        none_left(&format!("the files of round {round} to go"));
    }
    // A killed gateway has no time to clean up.
    let killed = lab.gateway("gw", &config);
    assert!(are_used(&lab));
    drop(killed);
    all_back("the pages of a killed gateway");
    none_left("the files of a killed gateway to go");
    // A gateway that cannot start leaves nothing either.
    let too_much =
        null_config("hugepages = true\nmemory = \"1048576MiB\"\nvdev = [\"net_ring0\", \"net_null0\"]");
    assert_refused(&lab, "", &too_much, &["dpdk: ", "Not enough memory available", "1048576MB"]);
    all_back("the pages of a gateway that did not start");
    none_left("the files of a gateway that did not start to go");
}

#[test]
fn reports_missing_huge_pages_at_the_start() {
    let lab = Lab::new(&["gw"]);
    // The machine's pages are only hidden from this gateway, because others may need them.
    fs::write(lab.path("hidden"), "mount -t tmpfs none /sys/kernel/mm/hugepages && exec \"$@\"").unwrap();
    let config = null_config("hugepages = true\nvdev = [\"net_ring0\", \"net_null0\"]");
    let words = ["dpdk: no huge page is free", "scripts/dpdk-setup", "hugepages = false"];
    assert_refused(&lab, "unshare -m sh hidden ", &config, &words);
}
