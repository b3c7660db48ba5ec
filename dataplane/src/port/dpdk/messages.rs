//! Finds the message that matters in DPDK's output, which is long, and is not where a user would
//! look for it.

#![allow(unsafe_code, reason = "file descriptors")]

use std::{
    ffi::c_int,
    fs::File,
    io::{self, Read, Seek},
    os::fd::{AsRawFd, FromRawFd},
};

/// Parts of lines that DPDK writes at every start, or about things that nobody misses.
const USUAL: [&str; 13] = [
    "Detected",
    "selecting IOVA",
    "Selected IOVA",
    "VFIO support",
    "No free",
    "Multi-process",
    "TELEMETRY",
    "Probe PCI driver",
    "qdisc",
    "rte flow support",
    "to secondary",
    "already stopped",
    "no mounted hugetlbfs",
];

/// Returns the reason of a failure from all messages written meanwhile: the first complaint.
pub(super) fn complaint(output: &str) -> Option<&str> {
    complaints(output).find(|line| line.contains(": ")).or_else(|| complaints(output).next())
}

/// Returns the reason why there is no `device` from all messages of EAL's start: the first
/// complaint of its driver.
pub(super) fn why_missing<'a>(output: &'a str, device: &str) -> Option<&'a str> {
    let ends = |line: &str| line.contains("failed to initialize ") || line.contains("cannot be used");
    let mut first = None;
    for line in complaints(output) {
        if ends(line) {
            if line.split(' ').any(|word| word == device) {
                return first;
            }
            first = None;
        } else {
            first = first.or(Some(line));
        }
    }
    None
}

fn complaints(output: &str) -> impl Iterator<Item = &str> {
    let is_usual = |line: &str| USUAL.iter().any(|usual| line.contains(usual));
    output.lines().map(str::trim).filter(move |line| !line.is_empty() && !is_usual(line))
}

/// Runs `f` and captures what it writes to standard output and error, because DPDK writes long
/// explanations there. For the start of a program, when there is only one thread.
pub(super) fn quietly<T>(f: impl FnOnce() -> T) -> io::Result<(T, String)> {
    // SAFETY: a new memory file, owned here.
    let mut kept = unsafe {
        let fd = libc::memfd_create(c"dpdk".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    let restored =
        [libc::STDOUT_FILENO, libc::STDERR_FILENO].map(|fd| Redirection::new(fd, kept.as_raw_fd()));
    let done = f();
    drop(restored);
    let mut output = Vec::new();
    kept.rewind()?;
    kept.read_to_end(&mut output)?;
    Ok((done, String::from_utf8_lossy(&output).into_owned()))
}

/// A file descriptor that is redirected until this value is dropped.
struct Redirection {
    fd: c_int,
    before: c_int,
}

impl Redirection {
    fn new(fd: c_int, to: c_int) -> Self {
        // SAFETY: descriptors of this process. If a call fails, nothing changes.
        let before = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if before >= 0 {
            // SAFETY: as above.
            unsafe { libc::dup2(to, fd) };
        }
        Self { fd, before }
    }
}

impl Drop for Redirection {
    fn drop(&mut self) {
        if self.before >= 0 {
            // SAFETY: `before` is owned by this value.
            unsafe {
                libc::dup2(self.before, self.fd);
                libc::close(self.before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of DPDK 22.11, with two devices that it cannot make and one that it can.
    const SAID: &str = "EAL: Detected CPU lcores: 2
EAL: Physical addresses are unavailable, selecting IOVA as VA mode.
EAL: Selected IOVA mode 'VA'
tap_nl_dump_ext_ack(): Specified qdisc kind is unknown
eth_dev_tap_create():  Disabling rte flow support: No such file or directory(2)
tun_alloc(): Unable to set TUNSETIFF for lo: Invalid argument
eth_dev_tap_create(): TAP Unable to initialize net_tap1
vdev_probe(): failed to initialize net_tap1 device
vdev_probe(): failed to initialize net_null0 device
EAL: Probe PCI driver: net_virtio (1af4:1041) device: 0000:00:03.0 (socket -1)
eth_virtio_pci_init(): Failed to init PCI device
EAL: Requested device 0000:00:03.0 cannot be used
EAL: Bus (vdev) probe failed.
";

    #[test]
    fn each_device_has_its_own_reason() {
        let why = |device| why_missing(SAID, device);
        assert_eq!(why("net_tap1"), Some("tun_alloc(): Unable to set TUNSETIFF for lo: Invalid argument"));
        assert_eq!(why("0000:00:03.0"), Some("eth_virtio_pci_init(): Failed to init PCI device"));
        assert_eq!((why("net_null0"), why("net_tap0"), why("net_tap")), (None, None, None));
    }

    #[test]
    fn reports_the_first_of_several_complaints() {
        let output =
            "EAL: Detected NUMA nodes: 1\nwayfarer: unrecognized option '--nonsense'\n\nUsage: wayfarer\n";
        assert_eq!(complaint(output), Some("wayfarer: unrecognized option '--nonsense'"));
        assert_eq!(complaint("EAL: Detected NUMA nodes: 1\n \nout of luck\n"), Some("out of luck"));
        assert_eq!(complaint("EAL: Detected NUMA nodes: 1\n \n"), None);
    }
}
