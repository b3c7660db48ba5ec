//! FreeRADIUS as a child process with its own configuration.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// The secret that the server shares with us.
pub(crate) const SECRET: &str = "a shared secret of the test";

/// A running server, which ends on drop.
pub(crate) struct FreeRadius {
    pub(crate) address: SocketAddr,
    /// The address for accounting.
    pub(crate) accounting: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl FreeRadius {
    /// Starts a server with this version of TLS that accepts alice with the password "secret", and
    /// certificates of the authority ca.pem. `files` are names and contents of ca.pem, server.pem
    /// and server.key.
    pub(crate) fn start(files: [(&str, &str); 3], tls_version: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let dir = folder.path().to_str().expect("the folder's name is UTF-8");
        // FreeRADIUS does not accept port 0.
        let free = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"));
        let [address, accounting] = free.each_ref().map(|s| s.local_addr().expect("a socket has an address"));
        drop(free);
        let config = include_str!("radiusd.conf")
            .replace("FOLDER", dir)
            .replace("SECRET", SECRET)
            .replace("TLS_VERSION", tls_version)
            .replace("PORT", &address.port().to_string())
            .replace("ACCOUNTS", &accounting.port().to_string());
        for (name, content) in files.into_iter().chain([("radiusd.conf", &config[..])]) {
            fs::write(folder.path().join(name), content).expect("a file can be written");
        }
        fs::write(folder.path().join("dictionary"), "").expect("an empty dictionary can be written");
        let mut child = Command::new("/usr/sbin/freeradius")
            .args(["-f", "-l", "stdout", "-d", dir])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Debian package freeradius is installed");
        let mut output = String::new();
        let mut log = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        while !output.contains("Ready to process requests") {
            let len = log.read_line(&mut output).expect("the log is UTF-8");
            assert!(len > 0, "FreeRADIUS did not start:\n{output}");
        }
        // The server must not block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { address, accounting, child, folder }
    }

    /// Returns the accounting records that it has written, with a line for each attribute.
    pub(crate) fn records(&self) -> String {
        fs::read_to_string(self.folder.path().join("detail")).unwrap_or_default()
    }
}

impl Drop for FreeRadius {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
