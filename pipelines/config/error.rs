//! Errors in a configuration, each in one line.

use crate::credentials::CredentialError;
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};
use wayfarer_dataplane::crypto::Suite;

/// The result of checking a part of a configuration.
pub(super) type ConfigResult<T> = Result<T, ConfigError>;

/// A rule that a configuration breaks, and the place where it does.
///
/// ```text
/// conf/gateway.toml:12: tunnel.window = 10: must be from 64 to 65536
/// conf/gateway.toml:13: tunnel: unknown key "windw"; did you mean "window"?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the file.
    pub file: Box<Path>,
    /// Line in the file, counted from 1; `None` if the error concerns the whole file.
    pub line: Option<usize>,
    /// Key with its tables, like `tunnel.inbound.spi`. Empty at the top level.
    pub key: Box<str>,
    /// Value, as written.
    pub value: Option<Box<str>>,
    /// The broken rule.
    pub rule: Rule,
    /// A suggestion for the value or key.
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
        match (&self.hint, self.rule.alternatives()) {
            (Some(hint), _) => write!(f, "; did you mean {hint:?}?"),
            (None, Some(words)) => write!(f, "; there are {words}"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A rule of configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// The file cannot be read.
    Unreadable(io::ErrorKind),
    /// The file is not TOML: the TOML parser's message.
    Syntax(Box<str>),
    /// The key does not exist.
    UnknownKey(Box<str>),
    /// The word is not one of these.
    UnknownWord(Box<str>),
    /// A key is missing.
    MissingKey(Box<str>),
    /// A key is missing that something else needs: the key, and what needs it.
    Needs(&'static str, Box<str>),
    /// A key has no meaning together with this.
    Pointless(Box<str>),
    /// The value has the wrong type: the type needed.
    Type(Box<str>),
    /// The value must be a number from the first to the second.
    Range(u64, u64),
    /// The value must be a number of at least 1.
    Count,
    /// The value must be a time.
    Duration,
    /// The value must be at least this time.
    Shortest(&'static str),
    /// The value must be a number of bytes.
    Size,
    /// The value must be a multiple of this.
    Multiple(u64),
    /// The list or text must not be empty.
    Empty,
    /// There are more pairs of prefixes than this.
    TooMany(usize),
    /// All child SAs of a connection together have more pairs of prefixes than this.
    AllPairs(usize),
    /// A connection has more child SAs than this.
    Children(usize),
    /// The value must be an IP address.
    Address,
    /// The value must be a unicast address.
    Unicast,
    /// The value must be a prefix.
    Prefix,
    /// The prefix length exceeds the bits of the address.
    PrefixLength,
    /// Bits are set beyond the prefix length.
    HostBits,
    /// The value must be a peer's address.
    Remote,
    /// The value must be a peer's address or host name.
    Peer,
    /// `"any"` is not the only item.
    LoneAny,
    /// A peer with a host name may have any identity.
    NamedPeer,
    /// The value must be a unicast MAC address.
    Mac,
    /// The value must be a name.
    Name,
    /// The value must be the name of a network device.
    Device,
    /// The value must be a DSCP.
    Dscp,
    /// The value must be an IP protocol.
    Protocol,
    /// The value must be a port or a range of ports.
    Ports,
    /// The protocol has no ports.
    PortlessProtocol,
    /// The ESP cipher does not exist.
    Cipher,
    /// The SPI is reserved (RFC 4303 §2.1).
    ReservedSpi,
    /// The value must be unique, and this line has it already.
    Duplicate(usize),
    /// No port has this address.
    NotOurs,
    /// The address belongs to the gateway.
    Own,
    /// One address is IPv4, the other IPv6.
    Family,
    /// These two keys have no prefixes of the same family.
    NoPair(&'static str),
    /// The value must be a VLAN, or one within another.
    Vlan,
    /// The value must be a priority of a VLAN tag.
    Pcp,
    /// The port has the device of the port in this line, but other settings of the device.
    SharedDevice(usize),
    /// No port has this name.
    UnknownPort,
    /// No home agent has this name.
    UnknownHomeAgent,
    /// Only Mobile IPv4 is there.
    MobileIpv4,
    /// The lifetime is none that a registration can have.
    BindingLifetime,
    /// The home address is not within the home network.
    NotHome,
    /// The name of a terminal is too short or too long.
    Nai,
    /// The first packet of a peer whose home agent says where it is shows that, and nothing else.
    AnyRemote,
    /// A link of IKE does not follow a home agent.
    IkeHomeAgent,
    /// The value must be IPv4.
    Ipv4,
    /// The port of the NAT does not have this IPv4 address.
    NotOnPort,
    /// The port of the NAT has no IPv4 address.
    NoAddress,
    /// The inside of the NAT holds its address outside.
    OutsideInside(Ipv4Addr),
    /// The range holds this UDP port of the gateway.
    OwnUdpPort(u16),
    /// The gateway receives ESP or IKE on this UDP port.
    TakenUdpPort,
    /// The NAT of this line translates some of the same packets.
    SameInside(usize),
    /// The NAT of this line has some of these ports of the same address.
    SamePorts(usize),
    /// There are more NATs than this.
    TooManyNats(usize),
    /// No subnet of a port, or of the port named, contains this address.
    OffSubnet,
    /// The list has more items than this.
    TooLong(usize),
    /// No port has `kind = "dpdk"`.
    NoDpdkPort,
    /// `[dpdk]` has no such device: the devices that it has.
    UnknownDpdkDevice(Box<str>),
    /// A port of this kind cannot be used together with a DPDK port.
    BesideDpdk,
    /// `gateway.workers` lists other cores.
    OtherCores,
    /// The value must be PCI addresses.
    Pci,
    /// The value must be virtual devices.
    Vdev,
    /// The word is not an option of EAL or the value of one.
    EalOption(Box<str>),
    /// The option of EAL has its own key: the option and the key.
    OptionWithKey(&'static str, &'static str),
    /// The gateway sets this option of EAL itself, or the option would end it.
    RefusedOption(&'static str),
    /// The port of this name can serve only one worker.
    OneWorker(Box<str>),
    /// This key needs a peer with a fixed address.
    FixedRemote(&'static str),
    /// The port is not one of `gateway.encap_ports`.
    NotEncapPort,
    /// A soft limit is above the hard limit.
    SoftAboveHard,
    /// An environment variable is not set.
    Variable(Box<str>),
    /// The text contains `${` without `}`.
    OpenVariable,
    /// A key file cannot be read.
    KeyUnreadable(io::ErrorKind),
    /// The key file is a folder or a device.
    KeyNotAFile,
    /// The key file contains neither hexadecimal digits nor a raw key: number of bytes needed, and
    /// found.
    KeyNotHex(usize, usize),
    /// The key file contains a key of another length: number of bytes needed, and number of
    /// hexadecimal digits found.
    KeyLength(usize, usize),
    /// The file with a secret is empty.
    NoSecret,
    /// The file with a secret is longer than this many bytes.
    LongSecret(usize),
    /// The file with a secret begins with `0x`, and pairs of hexadecimal digits do not follow.
    SecretNotHex,
    /// This line of the file is not a name with a password.
    Users(usize),
    /// The user of this name has an empty password.
    NoPassword(Box<str>),
    /// These names of users differ only in case.
    SameUser(Box<str>, Box<str>),
    /// The file with a certificate, private key or revocation list cannot be used.
    Credential(CredentialError),
    /// The certificate is not for the identity.
    OtherIdentity,
    /// The certificate has no subject.
    NoSubject,
    /// The value must be an identity.
    Identity,
    /// `"any"` or a pattern of identities is not the only item.
    LonePattern,
    /// The value must be a domain name.
    Domain,
    /// The value must be a server's address and port.
    Server,
    /// No algorithm has this name: the name, and those that exist.
    Algorithm(Box<str>, Box<str>),
    /// The proposal is not complete or not consistent, for this reason.
    Proposal(&'static str),
    /// The value must be a range of addresses.
    Pool,
    /// The range contains this address of the gateway.
    OwnInPool(IpAddr),
    /// The range overlaps the one in this line.
    Overlap(usize),
    /// No pool has this name.
    UnknownPool,
    /// No connection whose peers a RADIUS server authenticates has this name.
    UnknownConnection,
    /// The two sides cannot authenticate in this way, for this reason.
    Auth(&'static str),
    /// IKE needs UDP port 4500 among `gateway.encap_ports`.
    NatTraversal,
}

impl Rule {
    /// Returns the words that the value could be, if the rule itself does not say them.
    fn alternatives(&self) -> Option<String> {
        match self {
            Self::Cipher => Some(Suite::ALL.iter().map(Suite::to_string).collect::<Vec<_>>().join(", ")),
            Self::Algorithm(_, names) => Some(names.to_string()),
            _ => None,
        }
    }
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
            Self::Count => f.write_str("must be at least 1"),
            Self::Duration => {
                f.write_str("must be a time above zero, like \"500ms\", \"30s\", \"5m\", \"1h\"")
            }
            Self::Shortest(shortest) => write!(f, "must be at least \"{shortest}\""),
            Self::Size => f.write_str("must be a number of bytes, like 1500, \"64KiB\", \"1GiB\""),
            Self::Multiple(of) => write!(f, "must be a multiple of {of}"),
            Self::Empty => f.write_str("must not be empty"),
            Self::TooMany(most) => write!(f, "has more than {most} pairs of local and remote prefixes"),
            Self::AllPairs(most) => {
                write!(f, "its child SAs have more than {most} pairs of local and remote prefixes together")
            }
            Self::Children(most) => write!(f, "has more than {most} child SAs"),
            Self::Address => f.write_str("must be an IP address"),
            Self::Unicast => f.write_str("must be a unicast address"),
            Self::Prefix => f.write_str("must be a prefix like \"10.0.0.0/8\" or an address"),
            Self::PrefixLength => {
                f.write_str("the prefix is longer than the address: at most /32 for IPv4, /128 for IPv6")
            }
            Self::HostBits => f.write_str("bits are set beyond the prefix length"),
            Self::Remote => {
                f.write_str("must be \"any\", \"address\", \"address:port\" or \"[IPv6 address]:port\"")
            }
            Self::Peer => f.write_str(
                "must be \"any\", or addresses and host names, each with or without a port, like \"192.0.2.1\", \"gw.example.org:4500\" or \"[2001:db8::1]:4500\"",
            ),
            Self::LoneAny => f.write_str("\"any\" must be the only item"),
            Self::NamedPeer => f.write_str(
                "must name the peer, which has a host name in remote: it may come from any address, so only its identity tells it from others",
            ),
            Self::Mac => f.write_str("must be a unicast MAC address, like \"02:00:00:00:00:01\""),
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
            Self::NotOurs => f.write_str("no [[port]] has this address"),
            Self::Own => f.write_str("is the gateway's own address"),
            Self::Family => f.write_str("one address is IPv4, the other IPv6"),
            Self::NoPair(keys) => write!(f, "{keys} have no prefixes of the same family"),
            Self::Vlan => f.write_str(
                "must be a VLAN like 100, or two like [100, 200]: that of the 802.1ad tag, then that of the 802.1Q tag",
            ),
            Self::Pcp => f.write_str("must be \"dscp\" or a number from 0 to 7"),
            Self::SharedDevice(line) => write!(
                f,
                "has the device of the port in line {line}, so it needs the same kind, mac, optional, promiscuous and count"
            ),
            Self::UnknownPort => f.write_str("no [[port]] has this name"),
            Self::UnknownHomeAgent => f.write_str("no [[siu]] has this name"),
            Self::MobileIpv4 => f.write_str("must be IPv4, the only family of the home agent"),
            Self::BindingLifetime => f.write_str("must be from 1s to 65534s, or \"none\" for no end"),
            Self::NotHome => f.write_str("must be within \"network\" of [home_agent]"),
            Self::Nai => f.write_str("must have 1 to 255 bytes"),
            Self::AnyRemote => f.write_str("must be \"any\" with roam = \"home_agent\""),
            Self::IkeHomeAgent => f.write_str("only a [[tunnel]] can follow a home agent"),
            Self::Ipv4 => f.write_str("must be IPv4, the only family that [[nat]] translates"),
            Self::NotOnPort => f.write_str("must be one of the IPv4 addresses of the [[nat]]'s port"),
            Self::NoAddress => f.write_str("this [[port]] has no IPv4 address: add one to its \"addresses\""),
            Self::OutsideInside(address) => {
                write!(f, "holds {address}, the address outside: list only the inner networks")
            }
            Self::OwnUdpPort(port) => {
                write!(f, "holds UDP port {port}, which is the gateway's own: begin above it, or end below")
            }
            Self::TakenUdpPort => f.write_str("the gateway receives ESP or IKE on this port: take another"),
            Self::SameInside(line) => {
                write!(f, "overlaps \"inside\" of the [[nat]] of line {line}, which has the same port")
            }
            Self::SamePorts(line) => {
                write!(f, "the [[nat]] of line {line} has some of these ports of the same address: divide them")
            }
            Self::TooManyNats(most) => write!(f, "there must not be more than {most} [[nat]]"),
            Self::OffSubnet => {
                f.write_str("must be in a subnet of a [[port]], and of \"port\" if that is set")
            }
            Self::TooLong(most) => write!(f, "must not have more than {most} items"),
            Self::NoDpdkPort => f.write_str("no [[port]] has kind = \"dpdk\""),
            Self::UnknownDpdkDevice(none) if none.is_empty() => {
                f.write_str("[dpdk] does not have this device: its \"allow\" and \"vdev\" name none")
            }
            Self::UnknownDpdkDevice(names) => write!(f, "[dpdk] does not have this device, only {names}"),
            Self::BesideDpdk => f.write_str(
                "cannot be used together with kind = \"dpdk\", whose frames have their own memory",
            ),
            Self::OtherCores => f.write_str("must list the same cores as gateway.workers"),
            Self::Pci => f.write_str(
                "must be PCI addresses like \"0000:03:00.0\", each optionally followed by \",key=value\"",
            ),
            Self::Vdev => f.write_str("must be virtual devices like \"net_tap0,iface=wf0\""),
            Self::EalOption(word) => {
                write!(
                    f,
                    "{word:?} must be one word that begins with \"-\", or the value of the option before"
                )
            }
            Self::OptionWithKey(option, key) => write!(f, "{option} must be set by the key {key}"),
            Self::RefusedOption(option) => {
                write!(f, "{option} is not allowed: the gateway sets it itself, or it would end the gateway")
            }
            Self::OneWorker(port) => write!(f, "must be one core, because port {port} has only one queue"),
            Self::FixedRemote(key) => write!(f, "{key} needs a peer with a fixed address"),
            Self::NotEncapPort => {
                f.write_str("must be one of gateway.encap_ports, or the peer's ESP would not be received")
            }
            Self::SoftAboveHard => f.write_str("the soft limit must not be above the hard limit"),
            Self::Variable(name) => write!(f, "environment variable {name:?} is not set"),
            Self::OpenVariable => f.write_str("\"${\" needs a closing \"}\""),
            Self::KeyUnreadable(why) => write!(f, "key file cannot be read: {why}"),
            Self::KeyNotAFile => f.write_str("key file is not a regular file"),
            Self::KeyNotHex(wanted, got) => {
                write!(
                    f,
                    "key file must hold {} hexadecimal digits or {wanted} raw bytes, but it holds {got} bytes",
                    2 * wanted
                )
            }
            Self::KeyLength(wanted, got) => {
                write!(
                    f,
                    "key file must hold {} hexadecimal digits ({wanted} bytes), but it holds {got}",
                    2 * wanted
                )
            }
            Self::NoSecret => f.write_str("file is empty"),
            Self::LongSecret(most) => write!(f, "file is longer than {most} bytes"),
            Self::SecretNotHex => f.write_str("file must hold pairs of hexadecimal digits after \"0x\""),
            Self::Users(line) => {
                write!(f, "line {line} of the file must be like alice = \"password\"")
            }
            Self::NoPassword(user) => write!(f, "user \"{user}\" has an empty password"),
            Self::SameUser(one, other) => {
                write!(f, "users \"{one}\" and \"{other}\" differ only in upper and lower case")
            }
            Self::Credential(why) => write!(f, "{why}"),
            Self::OtherIdentity => f.write_str("the certificate is not for this identity"),
            Self::NoSubject => f.write_str("the certificate has no subject"),
            Self::Identity => f.write_str(
                "must be an address, a domain name, a mail address, a distinguished name such as \"CN=gw.example.org, O=Example\", or \"@#\" and hexadecimal digits",
            ),
            Self::LonePattern => f.write_str("\"any\" and \"*\" must be the only item"),
            Self::Domain => f.write_str("must be a domain name like \"example.org\""),
            Self::Server => f.write_str("must be \"address:port\""),
            Self::Algorithm(word, _) => write!(f, "no such algorithm: {word:?}"),
            Self::Proposal(why) => f.write_str(why),
            Self::Pool => f.write_str(
                "must be a prefix like \"10.98.0.0/24\" or a range like \"10.98.0.10-10.98.0.99\"",
            ),
            Self::OwnInPool(own) => write!(f, "holds {own}, the gateway's own address"),
            Self::Overlap(line) => write!(f, "overlaps the pool of line {line}"),
            Self::UnknownPool => f.write_str("no [[pool]] has this name"),
            Self::UnknownConnection => {
                f.write_str("no [[connection]] with auth = \"eap-radius\" has this name")
            }
            Self::Auth(why) => f.write_str(why),
            Self::NatTraversal => {
                f.write_str("must contain 4500, which every [[connection]] needs (RFC 7296 §2.23)")
            }
        }
    }
}

/// Returns the candidate nearest to `text`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // `psk` stands for `psk_file`, which is no typing error.
    let begins = |candidate: &str| candidate.strip_prefix(text).is_some_and(|rest| rest.starts_with('_'));
    let distance = |candidate: &str| match begins(candidate) {
        true => 0,
        false => strsim::damerau_levenshtein(text, candidate),
    };
    let close = |candidate: &&str| distance(candidate) <= 2.max(candidate.len() / 3);
    // Longer texts are not typing errors, and the distance takes time quadratic in their length.
    let candidates = candidates.filter(|_| text.len() <= 64);
    candidates.filter(close).min_by_key(|candidate| distance(candidate))
}
