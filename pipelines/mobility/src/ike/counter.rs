//! What the endpoint counts.

macro_rules! counters {
    ($($name:ident $text:literal $meaning:literal,)*) => {
        /// What the endpoint counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $(#[doc = $meaning] $name,)* }

        impl Counter {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

counters! {
    Messages "messages" "messages received",
    Malformed "malformed" "messages that break the format",
    Version "version" "messages of another major version",
    UnknownSpi "unknown_spi" "messages of no IKE SA that is there",
    UnknownExchange "unknown_exchange" "messages of an exchange that is not for this time",
    Forged "forged" "messages that failed authentication",
    Repeated "repeated" "requests that were answered again",
    Resent "resent" "requests of ours that were sent again",
    Init "init" "first messages of peers",
    Cookie "cookie" "first messages that were asked for a cookie",
    InitRefused "init_refused" "first messages that were refused",
    Busy "busy" "first messages dropped because too many keys are being exchanged",
    Crowded "crowded" "half-open peers that made room for others",
    Established "established" "peers that proved who they are",
    Failed "failed" "peers that did not",
    Ended "ended" "peers that were established and ended",
    Rekeyed "rekeyed" "rekeys of IKE and child SAs",
    Moved "moved" "moves of peers",
    Unconfirmed "unconfirmed" "moves, or questions about them, that the peer did not confirm",
    NatRefused "nat_refused" "connections, moves and paths refused because a NAT is on the way where none is allowed",
    NoRoom "no_room" "requests of peers refused because they have as much as they may",
    TooOften "too_often" "repetitions and refusals not sent, to keep to their rate",
}
