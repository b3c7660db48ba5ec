//! What is wrong with a configuration, in one line.

use crate::credentials::CredentialError;
use std::{fmt, io, net::IpAddr, path::Path};

/// What a check of a configuration comes to.
pub(super) type ConfigResult<T> = Result<T, ConfigError>;

/// One rule that a configuration breaks, and where.
///
/// ```text
/// conf/gateway.toml:12: tunnel.window = 10: must be from 64 to 65536
/// conf/gateway.toml:13: tunnel: unknown key "windw"; did you mean "window"?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: Box<Path>,
    /// The line in it, from 1 on; `None` where the whole file is meant.
    pub line: Option<usize>,
    /// The key, with those of the tables around it: `tunnel.inbound.spi`. Empty at the top.
    pub key: Box<str>,
    /// The value as written.
    pub value: Option<Box<str>>,
    /// The rule broken.
    pub rule: Rule,
    /// What may have been meant.
    pub hint: Option<Box<str>>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        match (&*self.key, &self.value) {
            ("", None) => {}
            ("", Some(value)) => write!(f, " {value}:")?,
            (key, None) => write!(f, " {key}:")?,
            (key, Some(value)) => write!(f, " {key} = {value}:")?,
        }
        write!(f, " {}", self.rule)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; did you mean {hint:?}?"))
    }
}

impl std::error::Error for ConfigError {}

/// A rule of configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// The file cannot be read.
    Unreadable(io::ErrorKind),
    /// It is not TOML; in the words of the TOML parser.
    Syntax(Box<str>),
    /// There is no such key.
    UnknownKey(Box<str>),
    /// There is no such word for the key; the words there are.
    UnknownWord(Box<str>),
    /// A key is missing.
    MissingKey(Box<str>),
    /// A key is missing that another one makes necessary.
    Needs(&'static str, Box<str>),
    /// A key has no meaning beside another one.
    Pointless(Box<str>),
    /// The value has another type; in the words of the TOML parser.
    Type(Box<str>),
    /// A number within bounds is wanted.
    Range(u64, u64),
    /// A number from 1 on is wanted.
    Count,
    /// A time is wanted.
    Duration,
    /// A number of bytes is wanted.
    Size,
    /// A multiple is wanted.
    Multiple(u64),
    /// At least one item is wanted.
    Empty,
    /// There are more combinations than this.
    TooMany(usize),
    /// An address is wanted.
    Address,
    /// The address of one station is wanted.
    Unicast,
    /// A prefix is wanted.
    Prefix,
    /// The prefix is longer than an address.
    PrefixLength,
    /// Bits are set behind the prefix.
    HostBits,
    /// A peer's address is wanted.
    Remote,
    /// A MAC address is wanted.
    Mac,
    /// A name is wanted.
    Name,
    /// The name of a network device is wanted.
    Device,
    /// A DSCP is wanted.
    Dscp,
    /// A protocol is wanted.
    Protocol,
    /// Ports are wanted.
    Ports,
    /// The protocol has no ports.
    PortlessProtocol,
    /// There is no such suite of ESP algorithms.
    Cipher,
    /// The SPI is reserved (RFC 4303 §2.1).
    ReservedSpi,
    /// Something that must be unique was there before, in this line.
    Duplicate(usize),
    /// No port has this address.
    NotOurs,
    /// The address is the gateway's own.
    Own,
    /// Two addresses are of different families.
    Family,
    /// No pair of prefixes of these keys is of one family.
    NoPair(&'static str),
    /// There is no port of that name.
    UnknownPort,
    /// No port has a subnet with this address.
    OffSubnet,
    /// The list is too long.
    TooLong(usize),
    /// No port is of a kind that this table is for.
    NoDpdkPort,
    /// The device is neither allowed nor made; those that are.
    UnknownDpdkDevice(Box<str>),
    /// A port of this kind cannot be beside one of DPDK's.
    BesideDpdk,
    /// `gateway.workers` names other cores.
    OtherCores,
    /// A PCI address is wanted.
    Pci,
    /// A virtual device is wanted.
    Vdev,
    /// An option of EAL is wanted; what there is.
    EalOption(Box<str>),
    /// An option of EAL that has a key of its own.
    OptionWithKey(&'static str, &'static str),
    /// An option of EAL that is the gateway's own affair, or would end it.
    RefusedOption(&'static str),
    /// One worker only can serve this kind of port.
    OneWorker(Box<str>),
    /// A fixed peer is wanted, because of this key.
    FixedRemote(&'static str),
    /// The port is not among `gateway.encap_ports`.
    NotEncapPort,
    /// A soft limit is above the hard one.
    SoftAboveHard,
    /// An environment variable is not set.
    Variable(Box<str>),
    /// `${` without `}`.
    OpenVariable,
    /// A key file cannot be read.
    KeyUnreadable(io::ErrorKind),
    /// A key file is a folder or a device.
    KeyNotAFile,
    /// A key file holds neither hexadecimal digits nor a raw key: bytes wanted, bytes there.
    KeyNotHex(usize, usize),
    /// A key file holds a key of another length: bytes wanted, hexadecimal digits there.
    KeyLength(usize, usize),
    /// A file with a secret is empty.
    NoSecret,
    /// A file with a secret is longer than this many bytes.
    LongSecret(usize),
    /// A file with a secret has `0x`, and then no pairs of hexadecimal digits.
    SecretNotHex,
    /// A file does not hold names and passwords; the line where that shows.
    Users(usize),
    /// The user of this name has an empty password.
    NoPassword(Box<str>),
    /// These names of users differ by upper and lower case only.
    SameUser(Box<str>, Box<str>),
    /// A file with a certificate, private key or revocation list is not what it must be.
    Credential(CredentialError),
    /// The certificate is not for the identity.
    OtherIdentity,
    /// The certificate has no subject.
    NoSubject,
    /// An identity is wanted.
    Identity,
    /// A pattern of identities does not stand alone.
    LonePattern,
    /// A domain name is wanted.
    Domain,
    /// A server's address is wanted.
    Server,
    /// No algorithm is called so.
    Algorithm(Box<str>),
    /// A proposal is no whole; what it does.
    Proposal(&'static str),
    /// A range of addresses is wanted.
    Pool,
    /// The gateway's own address is in the range.
    OwnInPool(IpAddr),
    /// The range overlaps that of this line.
    Overlap(usize),
    /// There is no pool of that name.
    UnknownPool,
    /// No way to prove who the peer, or we, are.
    Auth(&'static str),
    /// IKE needs this UDP port to be taken.
    NatTraversal,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::Syntax(why) => write!(f, "not valid TOML: {why}"),
            Self::UnknownKey(key) => write!(f, "unknown key {key:?}"),
            Self::UnknownWord(words) => write!(f, "must be {words}"),
            Self::MissingKey(key) => write!(f, "missing key {key:?}"),
            Self::Needs(key, because) => write!(f, "missing key {key:?}, which {because} needs"),
            Self::Pointless(because) => write!(f, "has no meaning with {because}"),
            Self::Type(why) => write!(f, "{why}"),
            Self::Range(first, last) => write!(f, "must be from {first} to {last}"),
            Self::Count => f.write_str("must be a number from 1 on"),
            Self::Duration => {
                f.write_str("must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\"")
            }
            Self::Size => f.write_str("must be a number of bytes, like 1500, \"64KiB\", \"1GiB\""),
            Self::Multiple(of) => write!(f, "must be a multiple of {of}"),
            Self::Empty => f.write_str("must not be empty"),
            Self::TooMany(most) => write!(f, "makes more than {most} pairs of prefixes"),
            Self::Address => f.write_str("must be an IP address"),
            Self::Unicast => f.write_str("must be the address of one station"),
            Self::Prefix => f.write_str("must be a prefix like \"10.0.0.0/8\" or an address"),
            Self::PrefixLength => {
                f.write_str("prefix longer than an address: at most /32 for IPv4, /128 for IPv6")
            }
            Self::HostBits => f.write_str("bits are set behind the prefix"),
            Self::Remote => {
                f.write_str("must be \"any\", \"address\", \"address:port\" or \"[IPv6 address]:port\"")
            }
            Self::Mac => f.write_str("must be the MAC address of one station, like \"02:00:00:00:00:01\""),
            Self::Name => f.write_str("must be 1 to 64 bytes of letters, digits and punctuation"),
            Self::Device => f.write_str("must be the name of a network device, at most 15 characters"),
            Self::Dscp => f.write_str("must be \"copy\" or a number from 0 to 63"),
            Self::Protocol => {
                f.write_str("must be tcp, udp, icmp, icmpv6, sctp, gre, ipip or a number from 0 to 255")
            }
            Self::Ports => f.write_str("must be a port or a range of ports, like 80 or \"1000-2000\""),
            Self::PortlessProtocol => f.write_str("only tcp, udp and sctp have ports"),
            Self::Cipher => f.write_str("no such cipher"),
            Self::ReservedSpi => f.write_str("must be from 0x100 to 0xffffffff: lower SPIs are reserved"),
            Self::Duplicate(line) => write!(f, "already used in line {line}"),
            Self::NotOurs => f.write_str("not among the addresses of any [[port]]"),
            Self::Own => f.write_str("is the gateway's own address"),
            Self::Family => f.write_str("one address is IPv4, the other IPv6"),
            Self::NoPair(keys) => write!(f, "no prefix of {keys} is of the same family"),
            Self::UnknownPort => f.write_str("no [[port]] has this name"),
            Self::OffSubnet => f.write_str("not within the subnet of the port"),
            Self::TooLong(most) => write!(f, "must not have more than {most} items"),
            Self::NoDpdkPort => f.write_str("no [[port]] is of kind = \"dpdk\""),
            Self::UnknownDpdkDevice(none) if none.is_empty() => {
                f.write_str("not a device of [dpdk], whose allow and vdev name none")
            }
            Self::UnknownDpdkDevice(names) => write!(f, "not a device of [dpdk], which are {names}"),
            Self::BesideDpdk => f.write_str("cannot be beside kind = \"dpdk\", which has frames of its own"),
            Self::OtherCores => f.write_str("differs from gateway.workers, which says the same"),
            Self::Pci => f.write_str(
                "must be PCI addresses like \"0000:03:00.0\", each with \",key=value\" behind or not",
            ),
            Self::Vdev => f.write_str("must be virtual devices like \"net_tap0,iface=wf0\""),
            Self::EalOption(word) => {
                write!(f, "{word:?} neither begins with \"-\" nor is the value of the option before")
            }
            Self::OptionWithKey(option, key) => write!(f, "{option} has a key of its own: {key}"),
            Self::RefusedOption(option) => {
                write!(f, "{option} cannot be given: the gateway sets it, or would be ended by it")
            }
            Self::OneWorker(port) => write!(f, "must be one core, for port {port} has one queue"),
            Self::FixedRemote(key) => write!(f, "{key} needs the address of the peer"),
            Self::NotEncapPort => f.write_str("not among gateway.encap_ports, so answers would not be taken"),
            Self::SoftAboveHard => f.write_str("the soft limit is above the hard one"),
            Self::Variable(name) => write!(f, "environment variable {name:?} is not set"),
            Self::OpenVariable => f.write_str("\"${\" without \"}\""),
            Self::KeyUnreadable(why) => write!(f, "key file cannot be read: {why}"),
            Self::KeyNotAFile => f.write_str("key file is not a regular file"),
            Self::KeyNotHex(wanted, got) => {
                write!(
                    f,
                    "key file must hold {} hexadecimal digits or {wanted} raw bytes, it holds {got} bytes",
                    2 * wanted
                )
            }
            Self::KeyLength(wanted, got) => {
                write!(
                    f,
                    "key file must hold {} hexadecimal digits ({wanted} bytes), it holds {got}",
                    2 * wanted
                )
            }
            Self::NoSecret => f.write_str("file is empty"),
            Self::LongSecret(most) => write!(f, "file is longer than {most} bytes"),
            Self::SecretNotHex => f.write_str("file must hold pairs of hexadecimal digits after \"0x\""),
            Self::Users(line) => {
                write!(f, "file must hold lines like alice = \"password\", which line {line} is not")
            }
            Self::NoPassword(user) => write!(f, "user \"{user}\" has an empty password"),
            Self::SameUser(one, other) => {
                write!(f, "users \"{one}\" and \"{other}\" are the same but for upper and lower case")
            }
            Self::Credential(why) => write!(f, "{why}"),
            Self::OtherIdentity => f.write_str("the certificate is not for this identity"),
            Self::NoSubject => f.write_str("the certificate has no subject"),
            Self::Identity => f.write_str(
                "must be an address, a domain name, a mail address, or \"@#\" and hexadecimal digits",
            ),
            Self::LonePattern => f.write_str("\"any\" and \"*\" must be the only item"),
            Self::Domain => f.write_str("must be a domain name like \"example.org\""),
            Self::Server => f.write_str("must be \"address:port\""),
            Self::Algorithm(word) => write!(f, "no such algorithm: {word:?}"),
            Self::Proposal(why) => f.write_str(why),
            Self::Pool => f.write_str(
                "must be a prefix like \"10.98.0.0/24\" or a range like \"10.98.0.10-10.98.0.99\"",
            ),
            Self::OwnInPool(own) => write!(f, "holds {own}, the gateway's own address"),
            Self::Overlap(line) => write!(f, "overlaps the pool of line {line}"),
            Self::UnknownPool => f.write_str("no [[pool]] has this name"),
            Self::Auth(why) => f.write_str(why),
            Self::NatTraversal => {
                f.write_str("must have 4500, which a [[connection]] needs (RFC 7296 §2.23)")
            }
        }
    }
}

/// The candidate that `text` was probably meant to be.
pub(super) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |candidate: &&str| strsim::damerau_levenshtein(text, candidate) <= 2.max(candidate.len() / 3);
    // Longer texts are no typo, and the distance takes time quadratic in their length.
    let candidates = candidates.filter(|_| text.len() <= 64);
    candidates.filter(close).min_by_key(|candidate| strsim::damerau_levenshtein(text, candidate))
}
