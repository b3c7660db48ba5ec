//! strongSwan's daemon in a namespace, and commands to it. It is the installed one, or the one that was
//! built with the prefix in the environment variable `WAYFARER_STRONGSWAN`.

use crate::lab::{Lab, Program, wait_for};
use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output},
};

/// The daemon, which ends on drop. It does ESP in user space, so the kernel needs no IPsec.
pub(crate) struct Charon {
    dir: PathBuf,
    _daemon: Program,
}

const PLUGINS: &str = "random nonce x509 revocation constraints pubkey pkcs1 pkcs7 pkcs8 pkcs12 pem openssl aes sha1 \
                       sha2 hmac kdf gcm ctr ccm chapoly curve25519 md5 mgf1 drbg gmp ml kernel-libipsec kernel-netlink \
                       socket-default vici updown resolve attr eap-identity eap-mschapv2";

/// The installation that `WAYFARER_STRONGSWAN` names, if it is set.
fn prefix() -> Option<PathBuf> {
    env::var_os("WAYFARER_STRONGSWAN").map(PathBuf::from)
}

/// Returns whether this strongSwan knows ML-KEM: from version 6 on.
pub(crate) fn knows_ml_kem() -> bool {
    let library = "lib/ipsec/plugins/libstrongswan-ml.so";
    prefix().unwrap_or_else(|| "/usr".into()).join(library).exists()
}

impl Charon {
    /// Starts the daemon with connections in the format of swanctl.conf(5), and additional options.
    pub(crate) fn start(lab: &Lab, space: &str, connections: &str, options: &str) -> Self {
        let dir = lab.path(&format!("charon-{space}"));
        let swanctl = dir.join("swanctl");
        for folder in ["x509", "x509ca", "private", "conf.d"] {
            fs::create_dir_all(swanctl.join(folder)).unwrap();
        }
        let pki = lab.path("pki");
        let mut files = vec![("ca.crt".to_owned(), "x509ca")];
        if let Some((_, rest)) = connections.split_once("certs = ") {
            let file = rest.lines().next().unwrap_or_default().trim_matches('"');
            let name = file.strip_suffix(".crt").expect("a certificate's file");
            files.extend([(file.to_owned(), "x509"), (format!("{name}.key"), "private")]);
        }
        for (file, folder) in files {
            fs::copy(pki.join(&file), swanctl.join(folder).join(&file)).unwrap();
        }
        fs::write(swanctl.join("swanctl.conf"), connections).unwrap();
        // An earlier daemon may have left its socket.
        let _ = fs::remove_file(dir.join("vici"));
        let conf = format!(
            "charon {{\n load = {PLUGINS}\n keep_alive = 20s\n retransmit_tries = 5\n retransmit_timeout = 1.0\n \
             retransmit_base = 1.4\n {options}\n filelog {{ log {{ path = {dir}/log\n default = 1\n flush_line = yes }} }}\n \
             plugins {{ vici {{ socket = unix://{dir}/vici }}\n kernel-libipsec {{ allow_peer_ts = yes }} }} }}\n",
            dir = dir.display(),
        );
        fs::write(dir.join("strongswan.conf"), conf).unwrap();
        let charon =
            prefix().map_or("/usr/lib/ipsec/charon".into(), |prefix| prefix.join("libexec/ipsec/charon"));
        // A private /run for the pid file. The mount is private because `ip netns exec` makes a
        // mount namespace too.
        let start = format!(
            "mount -t tmpfs tmpfs /run; exec env STRONGSWAN_CONF={dir}/strongswan.conf SWANCTL_DIR={dir}/swanctl \
             {charon} --use-syslog >/dev/null 2>&1",
            dir = dir.display(),
            charon = charon.display(),
        );
        let daemon = Program::start(lab.command(space, "bash -c").arg(start));
        let this = Self { dir, _daemon: daemon };
        wait_for("charon", || this.dir.join("vici").exists().then_some(()));
        this.swanctl("--load-all --noprompt");
        this
    }

    /// Runs swanctl with a time limit, and returns its output, even if it fails.
    pub(crate) fn try_swanctl(&self, arguments: &str) -> Output {
        let mut command = Command::new("timeout");
        let swanctl = prefix().map_or("swanctl".into(), |prefix| prefix.join("sbin/swanctl"));
        command.arg("60").arg(swanctl).args(arguments.split(' '));
        command
            .env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"))
            .env("SWANCTL_DIR", self.dir.join("swanctl"));
        command.arg("--uri").arg(format!("unix://{}/vici", self.dir.display())).output().unwrap()
    }

    /// Runs swanctl, which must succeed, and returns its standard output.
    pub(crate) fn swanctl(&self, arguments: &str) -> String {
        let output = self.try_swanctl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "swanctl {arguments}: {text}\n{}", self.log());
        text
    }

    /// Counts the lines of the daemon's log with this text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.whole_log().lines().filter(|line| line.contains(text)).count()
    }

    fn whole_log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Returns the last lines of the daemon's log.
    pub(crate) fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}
