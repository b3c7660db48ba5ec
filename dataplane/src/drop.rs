//! The reasons why packets are dropped. Every dropped packet counts for exactly one reason.

/// The severity of a drop for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Part of normal work.
    Info,
    /// Caused by a configuration, or by load.
    Warning,
    /// A peer broke the protocol, or somebody attacks.
    Error,
}

macro_rules! drop_reasons {
    ($($name:ident $severity:ident $meaning:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $meaning] $name,)* }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns what the reason means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// Returns how serious the reason is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// Returns the name of the reason in counters and tables.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

drop_reasons! {
    RuntFrame           Error   "shorter than an Ethernet header",
    ForeignMac          Info    "addressed to another station's MAC",
    UnknownEthertype    Info    "neither IPv4, IPv6 nor ARP",
    Multicast           Info    "IP multicast or broadcast, which a gateway does not forward",
    IpTruncated         Error   "IP header cut short",
    IpVersion           Error   "IP version does not fit the EtherType or is neither 4 nor 6",
    IpHeaderLength      Error   "IP header length too small or beyond the packet, more than 8 IPv6 extension headers, or two fragment headers",
    IpTotalLength       Error   "IP total length below its header or beyond the frame",
    IpChecksum          Error   "IPv4 header checksum wrong",
    FragmentTimeout     Warning "fragment that waited for the rest of its packet in vain",
    FragmentOverlap     Error   "fragment of a packet whose fragments overlap or contradict each other (RFC 5722)",
    FragmentDuplicate   Info    "fragment that came twice",
    FragmentLength      Error   "fragment that is empty, not whole units of 8 bytes, or ends beyond the longest packet",
    FragmentCrowded     Warning "fragment that was waiting and made room for a newer one of its group, or beyond the 64 that a packet may have",
    FragmentEcn         Error   "fragment of a packet with a congestion mark that its sender does not know (RFC 3168)",
    FragmentHeaders     Error   "fragment with more than 256 bytes of IPv6 extension headers before its fragment header",
    FragmentTiny        Error   "first fragment that is too short to show the ports or the type of ICMP, or one that waited for it (RFC 1858, RFC 7112)",
    ReassembledTooLong  Warning "fragment of a packet that is longer than 65472 bytes, or 65280 if it is to be encrypted",
    OuterOptions        Error   "IPv4 options before ESP or IKE, or IPv6 extension headers that a receiver must not skip (RFC 8200)",
    UdpLength           Error   "UDP header cut short, or its length field wrong",
    Keepalive           Info    "NAT keepalive",
    NotForUs            Info    "to the gateway's own address, and no port leads to the host's stack",
    EspTruncated        Error   "ESP shorter than its header, IV and ICV",
    SpiReserved         Error   "SPI 0 to 255, which RFC 4303 reserves",
    UnknownSpi          Warning "no inbound SA has this SPI",
    WrongDestination    Error   "the SA of this SPI belongs to another local address",
    PinnedSource        Error   "the SA is pinned to another source address",
    SequenceZero        Error   "sequence number 0, which is never sent",
    ReplayStale         Warning "sequence number left of the window",
    ReplayDuplicate     Warning "sequence number seen before",
    NotAuthentic        Error   "integrity check failed",
    PadLength           Error   "pad length beyond the payload",
    NextHeader          Error   "next header does not fit the SA's mode",
    Dummy               Info    "dummy packet (next header 59) of traffic flow confidentiality",
    InnerMalformed      Error   "the decrypted content is not a valid IP packet",
    InnerSelector       Error   "authentic, but outside the SA's selectors",
    IcmpQuote           Error   "ICMP error about a packet that did not go through the tunnel it came by, or that it does not show (RFC 4301 section 6.2)",
    EcnForbidden        Error   "outer congestion mark on an inner packet that cannot carry it (RFC 6040)",
    SaExpired           Warning "the SA's hard lifetime is over",
    SequenceExhausted   Warning "the SA has no sequence number left",
    NoPolicy            Warning "no policy covers it",
    Discard             Info    "a policy discards it",
    Unprotected         Error   "arrived in clear, but policy requires protection",
    NoEndpoint          Warning "the peer's address is not known yet",
    FragmentPorts       Warning "later fragment that hides the ports that policy goes by, and cannot wait for the first one",
    TransportFragment   Warning "fragment, which transport mode must not carry (RFC 4303 section 3.3.4)",
    SourcePort          Error   "the route back to its source does not use the port that it came in by (RFC 3704)",
    Martian             Error   "source or destination that no router forwards: unspecified, loopback, link-local, group",
    TooBig              Info    "too big for its tunnel or link, and must not be fragmented",
    HopLimit            Info    "hop limit ran out",
    NoRoute             Warning "no route to the destination",
    NeighbourFailed     Warning "the next hop did not answer ARP or neighbour discovery",
    NatPorts            Warning "from inside a NAT that has no free port left",
    NatLimit            Warning "from inside a NAT, whose sender has as many mappings as it may (mappings)",
    NatUnknown          Info    "to a port or about a packet of a NAT that no mapping has",
    NatProtocol         Warning "from inside a NAT, neither TCP, UDP, an ICMP query nor an ICMP error, or cut short",
    NoBuffer            Warning "no free frame",
    NoHeadroom          Error   "frame too short for the headers of its tunnel",
    TxRingFull          Warning "the port's transmit ring was full",
    PortGone            Warning "to leave by a port whose device is gone, or has not appeared yet",
    PortDown            Warning "to leave by a port whose device is down: switched off, or its cable carries no signal",
    DeviceRefused       Warning "refused by the device that it was to leave by, for example because it is longer than the device's MTU",
    PuntRingFull        Warning "the ring to the slow path was full, or this traffic's share of it",
    PathMtu             Info    "ICMP too big about ESP that no SA has sent lately by its path, or whose MTU changes nothing",
    ControlFormat       Warning "message of IKE, ARP, neighbour discovery or a home agent with a wrong checksum, length or content",
    NoKeyExchange       Info    "control message, but no key exchange is configured",
    NoBinding           Warning "by a Mobile IP tunnel from where no terminal with this home address is registered",
    NoRegistration      Info    "registration of Mobile IP that is malformed, or of a terminal that the home agent does not know",
    NoHomeAgent         Warning "security information update from an address that no home agent (siu) has",
    SlowPathLimit       Warning "beyond the slow path's limit on answers or waiting packets",
    ExceptionLimit      Warning "for the kernel by the exception path, beyond its rate",
    WorkerFault         Error   "held by a worker when it failed: a bug in this program, please report it",
}

/// The number of reasons.
pub const REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_its_own_index() {
        for (i, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, i);
            assert!(!reason.meaning().ends_with('.'), "{}", reason.name());
        }
        assert_eq!(DropReason::RuntFrame.name(), "RuntFrame");
        assert_eq!(DropReason::NotAuthentic.severity(), Severity::Error);
    }
}
