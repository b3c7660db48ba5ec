//! The search for the MTUs of the paths of links with keys by hand. Those of IKE's peers are found by
//! requests of IKE.

use super::{
    Event, FoundMtu, LinkId, Links, Timer,
    probing::{self, Search},
    records::Link,
};
use crate::{
    primitives::OsRandom,
    slow_path::{link_log, tunnels::Tunnel},
};
use std::time::Duration;
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Encap, Path, TunnelId},
    wire::probe::{Kind, Probe},
};
use wayfarer_mobility::{
    path_mtu::Finding,
    path_prober::{OwnProbe, PathProber, Step},
};

/// Time from the beginning of one search to that of the next, of any link: many links may have come up at
/// once.
const GAP: Duration = Duration::from_millis(1);

impl Links {
    /// Looks for the MTU of a link's path from now on, if its keys are set by hand and that is wanted.
    pub(super) fn search_path(&mut self, now: Duration, link: LinkId) {
        let LinkId::Manual(id) = link else { return };
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let Some(path) = searched_path(tunnel) else {
            if let Some(link) = self.links.get_mut(link) {
                link.probing.search = None;
            }
            return;
        };
        let Some(link) = self.links.begin(now, link, &self.tunnels) else { return };
        let probing = &mut link.probing;
        if probing.search.as_ref().is_some_and(|search| *search.prober.path() == path) {
            return;
        }
        let prober = PathProber::new(now, path, path.local.is_ipv4(), &OsRandom);
        let (_, sent) = tunnel.outbound.life.carried();
        probing.search = Some(Box::new(Search::new(prober, sent)));
        self.go_on(now, id);
    }

    /// Returns true if a link may look for the MTU of its path.
    pub(super) fn may_search(&self, link: LinkId) -> bool {
        match link {
            LinkId::Ike(_) => true,
            LinkId::Manual(_) => self.links.get(link).is_some_and(|link| link.probing.search.is_some()),
        }
    }

    /// Has a search check that a router reports an MTU, which anybody can have done unless it is `certain`.
    pub(super) fn search_by_report(&mut self, now: Duration, id: TunnelId, mtu: u16, certain: bool) {
        let link = self.links.get_mut(LinkId::Manual(id));
        if let Some(search) = link.and_then(|link| link.probing.search.as_mut()) {
            search.prober.handle_report(now, mtu, certain);
            self.go_on(now, id);
        }
    }

    /// Handles a timer of a tunnel's search that was to expire at `when`.
    pub(super) fn handle_search_timer(&mut self, now: Duration, when: Duration, id: TunnelId) {
        let link = self.links.get_mut(LinkId::Manual(id));
        let search = link.and_then(|link| link.probing.search.as_mut());
        if search.is_some_and(|search| search.timer.take_if(|timer| *timer == when).is_some()) {
            self.go_on(now, id);
        }
    }

    /// Handles a probe of a tunnel's peer, or the answer to one of ours.
    ///
    /// # Errors
    /// `Dummy` if the tunnel has no such probes, `SlowPathLimit` if the peer sends too many.
    pub(in crate::slow_path) fn handle_probe(
        &mut self,
        now: Duration,
        id: TunnelId,
        probe: Probe,
    ) -> Result<(), DropReason> {
        let link = self.links.begin(now, LinkId::Manual(id), &self.tunnels);
        let (Some(tunnel), Some(link)) = (self.tunnels.get(id), link) else { return Err(DropReason::Dummy) };
        match probe.kind {
            Kind::Request => {
                if !link.probing.admits_answer(now) {
                    return Err(DropReason::SlowPathLimit);
                }
                let answer = Probe { kind: Kind::Answer, ..probe };
                self.events.extend(tunnel.path().map(|path| dummy(tunnel, &path, answer, None)));
                link.probing.search.iter_mut().for_each(|search| search.prober.handle_probe(now));
            }
            Kind::Answer => {
                let search = link.probing.search.as_mut();
                let prober = search.map(|search| &mut search.prober).ok_or(DropReason::Dummy)?;
                let path = *prober.path();
                if let Some(finding) = prober.handle_answer(now, probe.token, &OsRandom) {
                    self.use_finding(now, id, path, finding);
                }
            }
        }
        self.go_on(now, id);
        Ok(())
    }

    /// Takes all steps of a tunnel's search that are due.
    fn go_on(&mut self, now: Duration, id: TunnelId) {
        let Self { tunnels, links, timers, events, next_search, .. } = self;
        let (Some(tunnel), Some(link)) = (tunnels.get(id), links.get_mut(LinkId::Manual(id))) else {
            return;
        };
        let Link { probing, lines, .. } = link;
        // Nothing more may be sent by an expired tunnel.
        probing.search.take_if(|_| tunnel.is_expired());
        let Some(search) = &mut probing.search else { return };
        let (received, _) = tunnel.inbound.life.carried();
        while let Some(step) = search.prober.handle_timeout(now, &OsRandom) {
            match step {
                Step::Due => {
                    let (_, sent) = tunnel.outbound.life.carried();
                    let sent = search.take_traffic(sent, received);
                    let turn = || {
                        let turn = now.max(*next_search);
                        *next_search = turn + GAP;
                        turn
                    };
                    search.prober.begin(now, tunnel.outbound.mtu() as u16, sent, turn, &OsRandom);
                }
                Step::Send(OwnProbe { token, size }) => {
                    let (path, probe) = (*search.prober.path(), Probe { kind: Kind::Request, token });
                    events.push_back(dummy(tunnel, &path, probe, size));
                }
                Step::Unanswered => {
                    let is_deaf = !search.prober.has_answered() && search.has_heard(received);
                    if is_deaf
                        && !std::mem::replace(&mut probing.has_told_silence, true)
                        && let Some(left_out) = lines.admits(now)
                    {
                        link_log::no_answers(tunnel, left_out);
                    }
                }
            }
        }
        let at = search.prober.poll_timeout();
        if search.timer.is_none_or(|timer| at < timer) {
            search.timer = Some(at);
            timers.insert((at, Timer::Search(id)));
        }
    }

    /// Uses what a search has found of `path`.
    fn use_finding(&mut self, now: Duration, id: TunnelId, path: Path, finding: Finding) {
        let Finding { mtu, is_limit, is_over } = finding;
        let limit = mtu.filter(|_| is_limit);
        self.set_probed_mtu(LinkId::Manual(id), FoundMtu { path, mtu, is_limit });
        let (Some(tunnel), Some(link)) = (self.tunnels.get(id), self.links.get_mut(LinkId::Manual(id)))
        else {
            return;
        };
        if let Some(search) = link.probing.search.as_mut().filter(|_| is_over)
            && std::mem::replace(&mut search.told_mtu, limit) != limit
            && let Some(left_out) = link.lines.admits(now)
        {
            link_log::probed_mtu(tunnel, left_out);
        }
    }
}

/// Returns the path of a tunnel whose MTU is to be found, if that is wanted. Routers cut what they may.
fn searched_path(tunnel: &Tunnel) -> Option<Path> {
    let path = tunnel.path().filter(|_| tunnel.is_used && !tunnel.is_expired() && !tunnel.may_be_cut())?;
    tunnel.path_probing.includes(path.encap != Encap::None).then_some(path)
}

/// Returns the event that sends a probe by `path`, in an outer packet of this size.
fn dummy(tunnel: &Tunnel, path: &Path, probe: Probe, size: Option<u16>) -> Event {
    let sa = tunnel.outbound.clone();
    let packet = probing::packet(probe, path, sa.overhead, size);
    Event::Dummy(sa, packet)
}
