//! The endpoint's counters.

macro_rules! counters {
    ($($name:ident $text:literal $meaning:literal,)*) => {
        /// The endpoint's counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $(#[doc = $meaning] $name,)* }

        impl Counter {
            /// All counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns the meaning.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

counters! {
    Messages "messages" "messages received",
    Malformed "malformed" "malformed messages",
    Version "version" "messages with an unsupported major version",
    UnknownSpi "unknown_spi" "messages that belong to no known IKE SA",
    UnknownExchange "unknown_exchange" "messages of an unknown or unexpected exchange",
    Forged "forged" "messages that failed authentication",
    Repeated "repeated" "repeated requests that were answered again",
    Resent "resent" "requests of ours that were sent again",
    Init "init" "first messages of peers",
    Cookie "cookie" "first messages that were answered with a cookie",
    InitRefused "init_refused" "first messages that were refused",
    Busy "busy" "first messages dropped because too many key exchanges are in progress",
    Crowded "crowded" "half-open peers dropped to make room for others",
    Established "established" "peers that were authenticated",
    Failed "failed" "peers that were not authenticated",
    EapRefused "eap_refused" "peers that failed to prove by EAP who they are",
    NoServer "no_server" "peers refused because no RADIUS server answered",
    Ended "ended" "established peers that ended",
    Rekeyed "rekeyed" "rekeys of IKE and child SAs",
    Moved "moved" "moves of peers",
    Unconfirmed "unconfirmed" "moves and address probes that the peer did not confirm",
    NatRefused "nat_refused" "connections, moves and paths refused because of a NAT where none is allowed",
    NoRoom "no_room" "requests of peers refused because a limit is reached",
    TooOften "too_often" "repeated responses and refusals not sent because of rate limits",
}
