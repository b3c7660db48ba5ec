//! FreeRADIUS as a child process, with a configuration of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// What it shares with us.
pub(crate) const SECRET: &str = "a shared secret of the test";

/// A running server. It ends when this is dropped.
pub(crate) struct FreeRadius {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl FreeRadius {
    /// Starts one that knows alice, whose password is "secret", and everybody for whom ca.pem
    /// vouches, by this version of TLS. `files` are ca.pem, server.pem and server.key with what
    /// they hold.
    pub(crate) fn start(files: [(&str, &str); 3], tls_version: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("its name is text");
        // It takes no port 0.
        let address =
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|s| s.local_addr()).expect("a free port");
        let config = include_str!("radiusd.conf")
            .replace("FOLDER", dir)
            .replace("SECRET", SECRET)
            .replace("TLS_VERSION", tls_version)
            .replace("PORT", &address.port().to_string());
        for (name, content) in files.into_iter().chain([("radiusd.conf", &config[..])]) {
            fs::write(folder.path().join(name), content).expect("a file");
        }
        fs::write(folder.path().join("dictionary"), "").expect("an empty dictionary");
        let mut child = Command::new("/usr/sbin/freeradius")
            .args(["-f", "-l", "stdout", "-d", dir])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Debian package freeradius");
        let mut said = String::new();
        let mut log = BufReader::new(child.stdout.take().expect("its output"));
        while !said.contains("Ready to process requests") {
            let len = log.read_line(&mut said).expect("its log is text");
            assert!(len > 0, "FreeRADIUS did not start:\n{said}");
        }
        // It must not stop for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { address, child, _folder: folder }
    }
}

impl Drop for FreeRadius {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
