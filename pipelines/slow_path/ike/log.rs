//! The log's lines about peers: one for each link that comes up, moves, ends or fails, in plain
//! words.

use super::{
    failed::{FailedPeer, FailedPeers},
    peers::{Ended, Traffic},
};
use crate::slow_path::{line_limit::LeftOut, tunnels::MoveError};
use std::{
    borrow::Cow,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tracing::{
    field::{DisplayValue, display},
    info, warn,
};
use wayfarer_dataplane::sa::Path;
use wayfarer_mobility::{
    aaa::grant::Ip6Prefix,
    identity::Identity,
    ike::{
        bounds,
        endpoint::Endpoint,
        event::{MoveCause, PeerId},
        leases::GrantError,
        method::Method,
        reason::Reason,
        wire::{TrafficSelector, notify},
    },
    rate::{NetworkRates, Rate},
};

/// Logged for an authenticated peer without a name.
const UNNAMED: &str = "the RADIUS server accepted a peer, but reported no name for it, or only the one that the peer itself \
                       claimed: the peer has no name and matches no connection with a remote_id; see trust_identity";
/// Lines about failed connections that one network may cause at once, and the time until one more.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(10);
/// The same for all networks together, because a stranger can forge addresses of many.
const BURST_OF_ALL: u32 = 500;
const REFILL_OF_ALL: Duration = Duration::from_millis(200);
/// Time after which lines that were left out are told of, if no other line does.
const TELL_AFTER: Duration = Duration::from_secs(60);

/// The peer that a line is about, as far as it is known, in the form of the line's fields.
#[derive(Clone, Debug, Default)]
pub(super) struct About<'a> {
    /// Its address.
    pub(super) peer: Option<DisplayValue<SocketAddr>>,
    /// What it calls itself.
    pub(super) claimed: Option<DisplayValue<&'a Identity>>,
    /// The identity that it proved.
    pub(super) proved: Option<DisplayValue<&'a Identity>>,
    /// The name of its connection.
    pub(super) connection: Option<&'a str>,
    /// How it authenticated, or tried to.
    pub(super) method: Option<DisplayValue<Method>>,
}

impl<'a> About<'a> {
    /// Returns what is known of a peer from an event about it.
    pub(super) fn new(
        peer: SocketAddr,
        (claimed, proved): (Option<&'a Identity>, Option<&'a Identity>),
        connection: Option<&'a str>,
        method: Option<Method>,
    ) -> Self {
        Self {
            peer: Some(display(peer)),
            claimed: claimed.map(display),
            proved: proved.map(display),
            connection,
            method: method.map(display),
        }
    }

    /// Returns what is known of a peer.
    pub(super) fn of(endpoint: &'a Endpoint, peer: PeerId) -> Self {
        let Some(view) = endpoint.peer(peer) else { return Self::default() };
        let connection = view.connection().and_then(|index| endpoint.connection(index));
        let names = (view.claimed(), view.proved());
        Self::new(view.addresses().remote, names, connection.map(|c| &c.name[..]), view.method())
    }

    /// Returns it as a peer that failed at `at` for this reason.
    fn failed(self, at: Duration, remote: SocketAddr, reason: String) -> FailedPeer {
        let Self { claimed, proved, connection, method, .. } = self;
        FailedPeer {
            at,
            remote,
            claimed: claimed.map(|id| id.to_string()),
            proved: proved.map(|id| id.to_string()),
            connection: connection.map(str::to_owned),
            method: method.map(|method| method.to_string()),
            reason,
        }
    }
}

/// Writes the lines. Anybody can fail to connect, so these lines are limited for each network and
/// in all, and those that were left out are counted.
#[derive(Debug, Default)]
pub(super) struct PeerLog {
    networks: NetworkRates,
    all: Rate,
    left_out: LeftOut,
    /// When lines that were left out are told of.
    tell_at: Duration,
    /// The last peers that did not connect or got no child SA, also those that have no line.
    failed: FailedPeers,
}

impl PeerLog {
    /// Logs that a peer did not connect, and remembers it.
    pub(super) fn failed(&mut self, now: Duration, remote: SocketAddr, about: About<'_>, reason: Reason) {
        let is_admitted = self.networks.admits(now, remote.ip(), BURST, REFILL)
            && self.all.admits(now, BURST_OF_ALL, REFILL_OF_ALL);
        let About { peer, claimed, proved, connection, method } = about;
        if let Some(left_out) = self.left_out.before(is_admitted) {
            self.tell_at = now + TELL_AFTER;
            info!(
                name: "peer_not_connected",
                peer, claimed, proved, connection, method, %reason, left_out, "peer not connected"
            );
            if reason == Reason::Unnamed {
                warn!(name: "peer_without_name", peer, connection, "{UNNAMED}");
            }
        }
        let about = About { peer, claimed, proved, connection, method };
        self.failed.insert(about.failed(now, remote, reason.to_string()));
    }

    /// Remembers a connected peer that has no child SA, because we refused one by this error notify.
    pub(super) fn got_no_child(&mut self, now: Duration, remote: SocketAddr, about: About<'_>, refusal: u16) {
        let name = name_of(refusal);
        let reason = format!("connected, but its child SA was refused: {name} ({refusal})");
        self.failed.insert(about.failed(now, remote, reason));
    }

    /// Logs how many lines were left out, if no other line has told for a while.
    pub(super) fn turn(&mut self, now: Duration) {
        if self.tell_at <= now && self.left_out.count() > 0 {
            self.tell_at = now + TELL_AFTER;
            let left_out = self.left_out.take();
            info!(name: "lines_left_out", left_out, "more peers did not connect than the log may have lines about");
        }
    }

    /// Returns the last peers that did not connect or got no child SA, the newest first.
    pub(super) fn failures(&self) -> impl Iterator<Item = &FailedPeer> {
        self.failed.iter()
    }
}

/// Logs that a peer connected.
pub(super) fn connected(about: About<'_>, identity: &Identity) {
    let About { peer, claimed, proved, connection, method } = about;
    info!(name: "peer_connected", peer, claimed, proved, connection, method, "peer connected");
    if identity.is_unnamed() {
        warn!(name: "peer_without_name", peer, connection, "{UNNAMED}");
    }
}

/// Logs that the link of a connected peer ended.
pub(super) fn ended(now: Duration, about: About<'_>, ended: &Ended, reason: Reason) {
    let About { peer, claimed, proved, connection, method } = about;
    let Ended { since, left_out, .. } = ended;
    let Traffic { received_packets, received_bytes, sent_packets, sent_bytes } = ended.traffic;
    info!(
        name: "peer_gone",
        peer, claimed, proved, connection, method, %reason,
        duration_s = now.saturating_sub(*since).as_secs(),
        packets_in = received_packets,
        bytes_in = received_bytes,
        packets_out = sent_packets,
        bytes_out = sent_bytes,
        left_out,
        "peer gone"
    );
}

/// Logs that a peer moved. `problem` says why not all of its tunnels did.
pub(super) fn moved(
    about: About<'_>,
    cause: MoveCause,
    [from, to]: [Path; 2],
    problem: Option<MoveError>,
    left_out: Option<u64>,
) {
    let About { proved, connection, .. } = about;
    let ([_, peer], problem) = (to.ends(), problem.map(display));
    info!(name: "peer_moved", %peer, proved, connection, %cause, %from, %to, problem, left_out, "peer moved");
}

/// Logs that a peer was seen by a path that policy does not follow.
pub(super) fn not_followed(about: About<'_>, to: Path, left_out: Option<u64>) {
    let (About { proved, connection, .. }, [_, peer]) = (about, to.ends());
    let reason = MoveError::Policy;
    info!(name: "peer_not_followed", %peer, proved, connection, %to, %reason, left_out, "peer not followed");
}

/// Logs that outer packets to a peer have at most `mtu` bytes from now on, as probes of its path have
/// found.
pub(super) fn path_mtu(about: About<'_>, mtu: u16, left_out: Option<u64>) {
    let About { peer, proved, connection, .. } = about;
    info!(name: "path_mtu", peer, proved, connection, mtu, left_out, "probes have found the MTU of the path");
}

/// Logs that a RADIUS server granted what a peer does not get.
pub(super) fn grant_refused(about: About<'_>, reason: GrantError) {
    let About { peer, claimed, proved, connection, .. } = about;
    warn!(
        name: "grant_refused",
        peer, claimed, proved, connection, "the RADIUS server granted what the peer cannot have: {reason}"
    );
}

/// Logs that a RADIUS server granted a prefix that is not used.
pub(super) fn prefix_ignored(about: About<'_>, prefix: Ip6Prefix) {
    let (About { peer, claimed, proved, connection, .. }, shortest) = (about, Ip6Prefix::SHORTEST);
    warn!(
        name: "prefix_ignored",
        peer, claimed, proved, connection, %prefix,
        "the RADIUS server granted a prefix shorter than /{shortest}, which is ignored: a peer gets one address, and \
         no network behind it"
    );
}

/// Logs that a child SA is missing, and the time until it is asked for.
pub(super) fn child_missing(about: About<'_>, child: &str, wait: Duration) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "child_missing",
        peer, proved, connection, child,
        wait_s = wait.as_secs_f64(),
        "a child SA is missing and will be asked for again"
    );
}

/// Logs why we could not authenticate again to a peer, and the time until we try again.
pub(super) fn renewal_failed(about: About<'_>, reason: &Reason, wait: Duration) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "renewal_failed",
        peer, proved, connection, %reason,
        wait_s = wait.as_secs_f64(),
        "cannot authenticate again; the link goes on, and another attempt follows"
    );
}

/// Logs that no packets come from a peer through the NAT on the way.
pub(super) fn esp_silent(about: About<'_>) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "esp_silent",
        peer, proved, connection,
        "no packets come from the peer through the NAT: it may send them without UDP, or where we were; we \
         authenticate again"
    );
}

/// Logs that a peer sees us at another end of the NAT in front of us.
pub(super) fn mapping_changed(about: About<'_>, left_out: Option<u64>) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "mapping_changed",
        peer, proved, connection, left_out,
        "the NAT in front of us gives our packets another address or port, which the peer is told"
    );
}

/// Logs that a peer refused a child SA or, if `child` is `None`, new keys of its IKE SA.
pub(super) fn create_failed(about: About<'_>, child: Option<&str>, refusal: Option<u16>) {
    let About { peer, proved, connection, .. } = about;
    let reason = refusal.map_or("unusable answer", name_of);
    let what = if child.is_some() { "cannot create or rekey a child SA" } else { "cannot rekey the IKE SA" };
    info!(name: "sa_refused", peer, proved, connection, child, reason, "{what}");
}

/// Returns the name of an error notify.
fn name_of(refusal: u16) -> &'static str {
    notify::name(refusal).unwrap_or("unknown")
}

/// Logs that we refused a child SA by this error notify. `asked` has the first selectors that the peer
/// asked for, those of our side first.
pub(super) fn child_refused(
    about: About<'_>,
    refusal: u16,
    asked: [Option<TrafficSelector>; 2],
    left_out: Option<u64>,
) {
    let About { peer, proved, connection, .. } = about;
    let (reason, [asked_local, asked_remote]) =
        (name_of(refusal), asked.map(|selector| selector.map(display)));
    info!(
        name: "child_refused",
        peer, proved, connection, reason, asked_local, asked_remote, left_out,
        "refused a child SA that the peer asked for"
    );
}

/// Logs that a child SA was refused because of its many selectors.
pub(super) fn selectors_refused(about: About<'_>, local: usize, remote: usize, left_out: Option<u64>) {
    let (About { peer, proved, connection, .. }, most) = (about, bounds::CHILD_RULES);
    warn!(
        name: "selectors_refused",
        peer, proved, connection, local, remote, left_out,
        "refused a child SA: its traffic selectors need more than {most} pairs of prefixes"
    );
}

/// Logs that a peer agreed to a child SA without some of our prefixes.
pub(super) fn child_narrowed(about: About<'_>, child: &str, prefixes: usize, left_out: Option<u64>) {
    let About { peer, proved, connection, .. } = about;
    warn!(
        name: "child_narrowed",
        peer, proved, connection, child, prefixes, left_out, "the peer left out some of our prefixes"
    );
}

/// Logs that a peer answered with more traffic than we asked for.
pub(super) fn child_widened(about: About<'_>, child: &str) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "child_widened",
        peer, proved, connection, child,
        "the peer agreed to more traffic than we asked for; only what we asked for is carried"
    );
}

/// Logs that a child SA cannot be installed, so that its peer is closed.
pub(super) fn child_not_installed(about: About<'_>, child: &str, reason: impl Display) {
    let About { peer, proved, connection, .. } = about;
    warn!(name: "child_not_installed", peer, proved, connection, child, %reason, "the child SA cannot be installed");
}

/// Logs what the gateway of a peer assigned to us.
pub(super) fn configured(about: About<'_>, addresses: &[IpAddr], dns: &[IpAddr], domains: &[String]) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "configured",
        peer, proved, connection, ?addresses, ?dns, ?domains, "the gateway assigned inner addresses"
    );
}

/// Logs that a gateway assigned an address that is in use here, so that it is closed.
pub(super) fn address_in_use(about: About<'_>, address: IpAddr) {
    let About { peer, proved, connection, .. } = about;
    warn!(
        name: "address_in_use",
        peer, proved, connection, %address,
        "the gateway assigned an inner address that this host or one of its routers already has"
    );
}

/// Logs that a RADIUS server ends the link of a peer.
pub(super) fn disconnected(about: About<'_>, server: SocketAddr) {
    let About { peer, proved, connection, .. } = about;
    info!(name: "radius_disconnect", peer, proved, connection, %server, "a RADIUS server disconnects a peer");
}

/// Logs that a RADIUS server changes what it granted to a peer.
pub(super) fn regranted(
    about: About<'_>,
    server: SocketAddr,
    session_timeout: Option<u32>,
    filters: &[Cow<'_, str>],
) {
    let About { peer, proved, connection, .. } = about;
    info!(
        name: "radius_change",
        peer, proved, connection, %server, session_timeout, ?filters, "a RADIUS server changes a peer"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Format, recorded};
    use serde_json::Value;
    use wayfarer_dataplane::sa::Encap;

    #[test]
    fn every_line_about_a_peer_names_it_and_its_connection() {
        let (peer, name) = (SocketAddr::from(([192, 0, 2, 7], 4500)), Identity::from_name(b"alice\n"));
        let about = || About::new(peer, (Some(&name), Some(&name)), Some("people"), Some(Method::Psk));
        let path = |remote: [u8; 4]| Path {
            local: [203, 0, 113, 1].into(),
            remote: remote.into(),
            encap: Encap::Udp { local: 4500, remote: 4500 },
        };
        let (from, to) = (path([192, 0, 2, 1]), path([192, 0, 2, 7]));
        let link = Ended {
            connection: 0,
            since: Duration::ZERO,
            traffic: Traffic { received_bytes: 7, ..Traffic::default() },
            left_out: Some(3),
        };
        let text = recorded(Format::Json, || {
            connected(about(), &name);
            moved(about(), MoveCause::Announced, [from, to], None, None);
            not_followed(about(), to, None);
            path_mtu(about(), 1400, None);
            ended(Duration::from_secs(5), about(), &link, Reason::Deleted);
            PeerLog::default().failed(Duration::ZERO, peer, about(), Reason::NoProposal);
            grant_refused(about(), GrantError::UnknownFilter("net".into()));
            child_missing(about(), "net", Duration::from_secs(2));
            esp_silent(about());
            mapping_changed(about(), None);
            child_refused(about(), notify::TS_UNACCEPTABLE, [None; 2], None);
            child_widened(about(), "net");
            create_failed(about(), Some("net"), None);
            create_failed(about(), None, Some(notify::NO_PROPOSAL_CHOSEN));
            child_not_installed(about(), "net", "no room");
            configured(about(), &[], &[], &["a\nb".to_owned()]);
            address_in_use(about(), to.remote);
            disconnected(about(), peer);
            regranted(about(), peer, Some(60), &["net".into()]);
            prefix_ignored(about(), Ip6Prefix::new([0; 16].into(), 56).unwrap());
        });
        let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(all.len(), 20);
        for line in &all {
            assert_eq!((&line["peer"], &line["connection"]), (&"192.0.2.7:4500".into(), &"people".into()));
            assert_eq!(line["proved"], "alice\\n", "{line}");
            assert!(line["event"].is_string(), "{line}");
        }
        let gone = &all[4];
        assert_eq!(
            (&gone["duration_s"], &gone["bytes_in"], &gone["left_out"]),
            (&5.into(), &7.into(), &3.into())
        );
    }

    fn fail(log: &mut PeerLog, now: Duration, remote: SocketAddr) {
        log.failed(now, remote, About::new(remote, (None, None), Some("office"), None), Reason::NoProposal);
    }

    #[test]
    fn one_network_does_not_silence_another() {
        let mut log = PeerLog::default();
        let now = Duration::from_secs(100);
        let text = recorded(Format::Text(false), || {
            for host in 0..100 {
                fail(&mut log, now, ([192, 0, 2, host], 500).into());
            }
            fail(&mut log, now, ([198, 51, 100, 1], 500).into());
        });
        assert_eq!(text.lines().count(), BURST as usize + 1);
        assert_eq!(log.failures().count(), 100, "also those without a line are remembered");
    }

    #[test]
    fn many_networks_fill_the_log_no_faster_than_all_may() {
        let mut log = PeerLog::default();
        let now = Duration::from_secs(100);
        for n in 0..5000u32 {
            fail(&mut log, now, SocketAddr::from((((n / 5) << 8).to_be_bytes(), 500)));
        }
        assert_eq!(log.left_out.count(), 5000 - u64::from(BURST_OF_ALL));
        log.turn(now + TELL_AFTER / 2);
        assert_ne!(log.left_out.count(), 0, "the next failure may tell");
        log.turn(now + TELL_AFTER);
        assert_eq!(log.left_out.count(), 0);
    }
}
