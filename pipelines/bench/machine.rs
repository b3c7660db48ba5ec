//! The machine that a figure was measured on.

use serde::Serialize;
use std::{env::consts::ARCH, fs};

/// The circumstances of a figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// The number of cores that this process may use; 0 if the system does not say.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The load average over the last minute. This program's own threads count as well.
    pub load: f64,
}

impl Machine {
    /// Describes this machine as it is now.
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            processor: processor(&read("/proc/cpuinfo")),
            cores: super::cores().len(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load(&read("/proc/loadavg")),
        }
    }
}

/// Finds the name in the text of /proc/cpuinfo. Not every architecture has one there.
fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| Some(line.split_once(':')?.1.trim()));
    name.unwrap_or(ARCH).to_owned()
}

/// Finds the average over one minute in the text of /proc/loadavg.
fn load(loadavg: &str) -> f64 {
    loadavg.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 2\nmodel name\t: Some CPU: 2 GHz\nmodel name\t: other\n";
        assert_eq!(processor(cpuinfo), "Some CPU: 2 GHz");
        assert_eq!(processor("CPU part\t: 0xd0c\n"), ARCH);
        assert_eq!((load("1.25 0.80 0.60 2/345 678\n"), load("")), (1.25, 0.0));
        let now = Machine::now();
        assert!(now.cores > 0 && !now.kernel.is_empty() && !now.processor.is_empty(), "{now:?}");
    }
}
