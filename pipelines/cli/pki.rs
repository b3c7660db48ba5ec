//! `wayfarer pki`.

use super::failure::Failure;
use clap::{Args, Subcommand, ValueEnum};
use std::{
    io::{self, Write},
    path::PathBuf,
};
use wayfarer::pki::{Authority, KeyKind, MOST_DAYS, PkiError, Subject};

/// Days that an authority's certificate is valid.
const AUTHORITY_DAYS: u32 = 3650;

#[derive(Debug, Subcommand)]
pub(super) enum Pki {
    /// Makes an authority: ca.crt, ca.key and an empty revocation list, ca.crl.
    #[command(after_help = "\
Whoever has ca.key can pose as the gateway and as every user: keep it off the gateway if you can.

Example:
  wayfarer pki ca \"Example VPN\"")]
    Ca {
        /// The authority's name, which users see.
        name: String,
        #[command(flatten)]
        files: Files,
        /// Days that the certificate is valid.
        #[arg(long, value_name = "N", default_value_t = AUTHORITY_DAYS,
            value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Issues a gateway's certificate, for all the names and addresses that clients connect to.
    #[command(after_help = "\
The first name is the gateway's identity (`local_id`), unless the configuration says otherwise. Windows demands the name
or address that it connects to among the names, Apple's clients the gateway's identity and at most 825 days.

Examples:
  wayfarer pki gateway vpn.example.org 203.0.113.1 2001:db8::1
  wayfarer pki gateway vpn.example.org --file vpn")]
    Gateway {
        /// Domain names and addresses.
        #[arg(required = true, value_name = "NAME|ADDRESS")]
        names: Vec<String>,
        /// The files to make, without their ending.
        #[arg(long, value_name = "NAME", default_value = "gateway")]
        file: String,
        #[command(flatten)]
        files: Files,
        #[command(flatten)]
        validity: Validity,
    },
    /// Issues a user's or device's certificate, and a .p12 file with it for phones.
    #[command(after_help = "\
Makes NAME.crt, NAME.key and NAME.p12, and prints the password of the last one. A certificate is needed only by
connections with auth = \"certificate\" or \"eap-tls\".

Examples:
  wayfarer pki user alice@example.org
  wayfarer pki user laptop-7 --key rsa3072")]
    User {
        /// The user's identity: a mail address or another name.
        name: String,
        #[command(flatten)]
        files: Files,
        #[command(flatten)]
        validity: Validity,
    },
    /// Adds a certificate to the revocation list, ca.crl.
    #[command(after_help = "\
The gateway reads the list when it starts and when it changes, if the connection has crls = \"pki/ca.crl\". Who is
connected stays so until `wayfarer peer down`.

Example:
  wayfarer pki revoke alice@example.org")]
    Revoke {
        /// The certificate's file, without its ending.
        name: String,
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Debug, Args)]
pub(super) struct Files {
    /// The folder of the authority's files.
    #[arg(long, value_name = "FOLDER", default_value = "pki")]
    dir: PathBuf,
    /// The kind of new private keys.
    #[arg(long, value_enum, default_value_t = Key::Ecdsa256)]
    key: Key,
}

#[derive(Debug, Args)]
pub(super) struct Validity {
    /// Days that the certificate is valid, but no longer than the authority's own.
    #[arg(long, value_name = "N", default_value_t = MOST_DAYS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
    days: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Key {
    /// ECDSA on P-256: all clients know it.
    Ecdsa256,
    /// ECDSA on P-384.
    Ecdsa384,
    /// RSA of 3072 bits: for clients without ECDSA.
    Rsa3072,
}

impl From<Key> for KeyKind {
    fn from(key: Key) -> Self {
        match key {
            Key::Ecdsa256 => Self::Ecdsa256,
            Key::Ecdsa384 => Self::Ecdsa384,
            Key::Rsa3072 => Self::Rsa3072,
        }
    }
}

/// Makes certificates and prints the names of their files.
pub(super) fn run(command: &Pki) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut print =
        |paths: Vec<PathBuf>| paths.iter().try_for_each(|path| writeln!(out, "{}", path.display()));
    match command {
        Pki::Ca { name, files, days } => {
            print(Authority::create(&files.dir, name, *days, files.key.into())?)?;
        }
        Pki::Gateway { names, file, files, validity } => {
            let subject = Subject { names, days: validity.days, key: files.key.into() };
            print(Authority::open(&files.dir)?.gateway(file, &subject)?)?;
        }
        Pki::User { name, files, validity } => {
            let names = std::slice::from_ref(name);
            let subject = Subject { names, days: validity.days, key: files.key.into() };
            let (paths, password) = Authority::open(&files.dir)?.user(&subject)?;
            print(paths)?;
            writeln!(out, "password of {name}.p12: {}", *password)?;
        }
        Pki::Revoke { name, files } => print(vec![Authority::open(&files.dir)?.revoke(name)?])?,
    }
    Ok(())
}

impl From<PkiError> for Failure {
    fn from(why: PkiError) -> Self {
        Self::Pki(why)
    }
}
