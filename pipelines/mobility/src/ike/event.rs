//! Events that the endpoint reports to its driver.

use super::{
    leases::GrantError,
    method::Method,
    reason::Reason,
    suite::{EspSuite, IkeSuite},
    wire::TrafficSelector,
};
use crate::{
    aaa::grant::Ip6Prefix,
    crypto::Secret,
    identity::Identity,
    path::{Addresses, Nat, Path},
};
use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Number of a peer while it is connected. Rekeys and moves do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// Number of a child SA, which consists of one ESP SA in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u64);

/// Number of a look-up of a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookUpId(pub u64);

/// Longest time that a look-up may take.
pub const LOOK_UP_TIME: Duration = Duration::from_secs(10);

/// What becomes of the addresses that a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many are tried next.
    New(usize),
    /// Those that can be reached were tried before in this round.
    Known,
    /// There are none, or none can be reached from our addresses.
    Unreachable,
    /// Nobody waits for them any more.
    TooLate,
}

/// A child SA: one ESP SA in each direction.
#[derive(Debug)]
pub struct ChildSa {
    /// Name of its policy in the connection.
    pub name: String,
    /// SPI of packets to us.
    pub spi_in: u32,
    /// SPI of packets to the peer.
    pub spi_out: u32,
    /// The algorithms.
    pub suite: EspSuite,
    /// Keying material of packets to us: cipher, then integrity.
    pub key_in: Secret,
    /// Keying material of packets to the peer.
    pub key_out: Secret,
    /// Our side of the traffic.
    pub local: Vec<TrafficSelector>,
    /// The peer's side of the traffic.
    pub remote: Vec<TrafficSelector>,
    /// True for transport mode.
    pub transport: bool,
    /// The path to the peer.
    pub path: Path,
    /// The child SA that this one replaces.
    pub replaces: Option<ChildId>,
    /// True if it may be used for sending at once. Otherwise, the first inbound packet or
    /// [`Event::ChildUse`] permits it: the peer may not have the keys yet (RFC 7296 §2.8).
    pub send: bool,
}

/// How a move became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveCause {
    /// The peer announced it by MOBIKE.
    Announced,
    /// A packet of the peer showed it.
    Seen,
    /// We moved: our own address changed.
    Own,
    /// The peer did not confirm where it went last, so it is taken back.
    Unconfirmed,
}

impl fmt::Display for MoveCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announced => "mobike",
            Self::Seen => "seen",
            Self::Own => "own",
            Self::Unconfirmed => "unconfirmed",
        })
    }
}

/// An event.
#[derive(Debug)]
pub enum Event {
    /// We connect to a peer with this host name, whose addresses are needed. The driver answers by
    /// `Endpoint::handle_addresses`.
    LookUp {
        /// Number of the look-up.
        id: LookUpId,
        /// The host name.
        name: String,
    },
    /// We begin to connect to a peer. The driver may answer by `Endpoint::handle_source`, before the
    /// peer's first task is done.
    Dialled {
        /// The peer.
        peer: PeerId,
    },
    /// The addresses of a host name did not come within [`LOOK_UP_TIME`]. The peer's next end is
    /// tried.
    LookUpTimedOut {
        /// The host name.
        name: String,
    },
    /// A peer was authenticated.
    PeerUp {
        /// The peer.
        peer: PeerId,
        /// Index of its connection in the configuration.
        connection: usize,
        /// The identity that it proved.
        identity: Identity,
        /// The identity that is charged for what it uses up. All peers of a connection that could be one
        /// under several names have the same.
        principal: Identity,
        /// The identity that it claimed, if EAP proved another one.
        claimed: Option<Identity>,
        /// How it authenticated.
        method: Option<Method>,
        /// Its addresses.
        addresses: Addresses,
    },
    /// A connection ended, or failed. Its child SAs ended before.
    PeerDown {
        /// The peer.
        peer: PeerId,
        /// Index of its connection in the configuration, if it got that far.
        connection: Option<usize>,
        /// The identity that it claimed, if it got that far.
        claimed: Option<Identity>,
        /// The identity that it proved, if it got that far.
        proved: Option<Identity>,
        /// How it authenticated or tried to, if it got that far.
        method: Option<Method>,
        /// The peer's last address.
        remote: SocketAddr,
        /// True if it never connected, and was to replace a connected peer by authenticating again:
        /// [`Event::RenewalFailed`] follows.
        is_renewal: bool,
        /// The reason.
        reason: Reason,
    },
    /// A first message was refused, so that there is no peer.
    InitRefused {
        /// The sender's address.
        remote: SocketAddr,
        /// The reason.
        reason: Reason,
    },
    /// The gateway assigned our configuration.
    Configured {
        /// The peer.
        peer: PeerId,
        /// The inner addresses.
        addresses: Vec<IpAddr>,
        /// The DNS servers.
        dns: Vec<IpAddr>,
        /// The domains that these servers answer for.
        domains: Vec<String>,
    },
    /// A peer does not get what a RADIUS server granted.
    GrantRefused {
        /// The peer.
        peer: PeerId,
        /// The reason.
        reason: GrantError,
    },
    /// A RADIUS server granted a prefix that is too short for a peer's inner address.
    PrefixIgnored {
        /// The peer.
        peer: PeerId,
        /// The prefix.
        prefix: Ip6Prefix,
    },
    /// A child SA must be installed.
    ChildUp {
        /// The peer.
        peer: PeerId,
        /// Number of the child SA.
        child: ChildId,
        /// The child SA.
        sa: ChildSa,
    },
    /// A child SA that the peer asked for was refused, because its traffic selectors need more than a
    /// child SA may have ([`bounds`](super::bounds)).
    SelectorsRefused {
        /// The peer.
        peer: PeerId,
        /// Number of selectors that the peer sent for our side.
        local: usize,
        /// Number of selectors that it sent for its own.
        remote: usize,
    },
    /// A child SA that the peer asked for was refused for another reason.
    ChildRefused {
        /// The peer.
        peer: PeerId,
        /// The error notify that the peer gets.
        refusal: u16,
        /// The first selector that the peer sent for our side, if it sent one.
        local: Option<TrafficSelector>,
        /// The first selector that it sent for its own side.
        remote: Option<TrafficSelector>,
    },
    /// The peer agreed to a child SA of ours without some of our prefixes, or to new keys for one without
    /// some of the prefixes that it had.
    ChildNarrowed {
        /// The peer.
        peer: PeerId,
        /// Name of the child SA's policy.
        name: String,
        /// Number of the prefixes of both sides that are left out; with new keys also those of which a
        /// part is.
        left_out: usize,
    },
    /// The peer answered with more traffic than we asked for. The child SA is for what we asked for.
    ChildWidened {
        /// The peer.
        peer: PeerId,
        /// Name of the child SA's policy.
        name: String,
    },
    /// A child SA that must be up ended or was refused. It is asked for again.
    ChildMissing {
        /// The peer.
        peer: PeerId,
        /// Name of its policy in the connection.
        name: String,
        /// Time until then.
        wait: Duration,
    },
    /// The peer refused to create or rekey an SA, or its answer cannot be used. We try again later.
    CreateFailed {
        /// The peer.
        peer: PeerId,
        /// Name of the child SA's policy; `None` for the IKE SA.
        child: Option<String>,
        /// The peer's error notify.
        refusal: Option<u16>,
    },
    /// We could not authenticate again to a peer, which stays connected. We try again later.
    RenewalFailed {
        /// The peer.
        peer: PeerId,
        /// The reason.
        reason: Reason,
        /// Time until then.
        wait: Duration,
    },
    /// A child SA replaces one of a peer that its own peer replaces. Once it is used for sending, the
    /// old one no longer is; and it is used once the old one ends. If the old one is rekeyed before, the
    /// same is true of the new one in its place.
    ChildFollows {
        /// Number of the child SA.
        child: ChildId,
        /// Number of the old one.
        old: ChildId,
    },
    /// This child SA must be used for sending from now on.
    ChildUse {
        /// Number of the child SA.
        child: ChildId,
    },
    /// A child SA must be removed.
    ChildDown {
        /// Number of the child SA.
        child: ChildId,
    },
    /// The link moved: all child SAs of the peer use this path from now on.
    PeerMoved {
        /// The peer.
        peer: PeerId,
        /// The path before.
        from: Path,
        /// The new path.
        path: Path,
        /// How the move became known.
        cause: MoveCause,
        /// True if the peer has confirmed the path. If not, the driver limits what is sent until it
        /// has.
        confirmed: bool,
        /// The NATs on the path.
        nat: Nat,
    },
    /// The peer answered our update of addresses.
    MoveAnswered {
        /// The peer.
        peer: PeerId,
        /// Why the peer, or we, refused the move, which is tried again then; `None` if it is done.
        refusal: Option<Reason>,
    },
    /// The peer has confirmed the path that it moved to.
    PathConfirmed {
        /// The peer.
        peer: PeerId,
    },
    /// Nothing has come from the peer for long. The driver answers with what its data plane saw.
    LivenessDue {
        /// The peer.
        peer: PeerId,
    },
    /// A NAT is on the way, and it must be known whether the peer's packets come. The driver answers by
    /// `Endpoint::handle_traffic`.
    TrafficDue {
        /// The peer.
        peer: PeerId,
    },
    /// We send packets to the peer, and none come through the NAT: the peer may go on as before we moved
    /// behind it, or send to an earlier end of ours. We authenticate again.
    EspSilent {
        /// The peer.
        peer: PeerId,
    },
    /// The NAT in front of us gives our packets another address or port than before, by the peer's word. We
    /// announce our end, or have just announced it because of silence.
    MappingChanged {
        /// The peer.
        peer: PeerId,
    },
    /// It is time to look for the MTU of a peer's path. The driver answers by
    /// `Endpoint::handle_path_probe_due`.
    PathProbeDue {
        /// The peer.
        peer: PeerId,
    },
    /// Probes have found the MTU of a peer's path.
    PathMtu {
        /// The peer.
        peer: PeerId,
        /// The path.
        path: Path,
        /// The longest outer packet that it takes, in bytes; `None` if it takes as long ones as we send.
        mtu: Option<u16>,
        /// True if something longer did not pass. If not, a cipher's blocks leave no longer probe.
        is_limit: bool,
        /// True if the search is over. If not, longer packets may pass too.
        is_over: bool,
    },
    /// Messages with this SPI of ours belong to a known peer from now on, or no longer.
    Spi {
        /// The SPI.
        spi: u64,
        /// True if it is known.
        known: bool,
    },
    /// The peer may send by this SPI of ours from now on, or no longer, although its answer to our
    /// request for the child SA has not come. The driver may keep such packets until
    /// [`Event::ChildUp`].
    ChildSpi {
        /// The SPI.
        spi: u32,
        /// True if its child SA is awaited.
        awaited: bool,
    },
    /// An IKE SA has new keys. Reported only if a key log is configured.
    IkeSaKeys {
        /// SPIs, the initiator's first.
        spis: [u64; 2],
        /// The algorithms.
        suite: IkeSuite,
        /// SK_ei and SK_er.
        encr: [Secret; 2],
        /// SK_ai and SK_ar.
        integ: [Secret; 2],
    },
}
