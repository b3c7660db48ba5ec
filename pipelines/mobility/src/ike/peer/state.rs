//! What is known of a peer.

use super::{
    child::Child,
    creation::{KexBegin, KexFinish, OwnCreate, PeerCreate, Target},
    failure::Failure,
    ike_sa::IkeSa,
    initiator::Initiator,
    move_check::MoveCheck,
    request::{QueuedRequest, Request, Retry},
    responder::Responder,
};
use crate::{
    crypto::Secret,
    identity::Identity,
    ike::{
        connection::Connection,
        context::Context,
        counter::Counter,
        event::{ChildId, PeerId, Reason},
        nat::{IKE_PORT, NAT_T_PORT},
        schedule::shared_key_auth,
        suite::IkeSuite,
    },
    path::{Addresses, Nat, Path},
    rate::Rate,
    task::{Task, TaskId},
};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{net::IpAddr, time::Duration};

/// How far a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not proved who it is, or we have not.
    Connecting,
    /// It is connected.
    Up,
    /// It is over.
    Ended,
}

/// One peer.
#[derive(Debug)]
pub(in crate::ike) struct Peer {
    pub(in crate::ike) id: PeerId,
    /// Its connection of the configuration, once known.
    pub(in crate::ike) connection: Option<usize>,
    pub(in crate::ike) phase: Phase,
    /// Its IKE SAs: one, but while one takes another's place.
    pub(in crate::ike) ike_sas: Vec<IkeSa>,
    /// Our SPI of the one that our requests go by.
    pub(in crate::ike) active: u64,
    pub(in crate::ike) addresses: Addresses,
    /// Where its first message came from: there it has shown that it is, by what follows. The share
    /// of that network is what its tasks count against, wherever it says that it is.
    pub(in crate::ike) from: IpAddr,
    pub(in crate::ike) nat: Nat,
    /// What its ID payload says.
    pub(in crate::ike) identity: Option<Identity>,
    /// Who EAP proved it to be.
    pub(in crate::ike) account: Option<Box<Identity>>,
    /// What stands for all its names, where it proved several.
    pub(in crate::ike) all_names: Option<Box<Identity>>,
    pub(in crate::ike) children: Vec<Child>,
    /// Addresses that it got from pools, with the pool.
    pub(in crate::ike) leases: Vec<(usize, IpAddr)>,
    /// Inner addresses that the gateway gave us.
    pub(in crate::ike) assigned: Vec<IpAddr>,
    pub(in crate::ike) mobike: bool,
    /// We began the first of its IKE SAs: MOBIKE's initiator, whoever changes keys (RFC 4555 §1.3).
    pub(in crate::ike) is_initiator: bool,
    /// No NAT may be on the way, because we or the peer forbid it (RFC 4555 §3.9).
    pub(in crate::ike) no_nats: bool,
    /// It has our vendor ID.
    pub(in crate::ike) knows_us: bool,
    pub(in crate::ike) wanted: VecDeque<QueuedRequest>,
    pub(in crate::ike) waiting: Vec<(TaskId, PendingTask)>,
    /// Where it is said to be, and has not confirmed.
    pub(in crate::ike) moving: Option<Box<MoveCheck>>,
    /// Our update of addresses that is to be tried again.
    pub(in crate::ike) retry: Option<Box<Retry>>,
    /// Where it said that it is no more, and when.
    pub(in crate::ike) left: Option<Box<(Addresses, Duration)>>,
    pub(in crate::ike) since: Duration,
    /// When both had proved who they are.
    pub(in crate::ike) up_at: Duration,
    pub(in crate::ike) heard_at: Duration,
    pub(in crate::ike) asked_at: Option<Duration>,
    pub(in crate::ike) rekey_at: Option<Duration>,
    /// When its IKE SA is over; none: it never proved who it is.
    pub(in crate::ike) expire_at: Option<Duration>,
    pub(in crate::ike) keepalive_at: Option<Duration>,
    /// When it is forgotten, after its end.
    pub(in crate::ike) forget_at: Option<Duration>,
    pub(in crate::ike) moves: u64,
    pub(in crate::ike) moved_at: Option<Duration>,
    pub(in crate::ike) rekeys: u64,
    /// When the endpoint's timer for it goes off.
    pub(in crate::ike) timer: Option<Duration>,
    /// Its end was counted.
    pub(in crate::ike) was_counted: bool,
    /// Its requests for child SAs and new keys.
    pub(in crate::ike) creates: Rate,
    /// It takes the place of itself, with its addresses.
    pub(in crate::ike) takes_over: bool,
}

/// How far a peer is.
#[derive(Debug)]
pub(in crate::ike) enum Phase {
    /// We began.
    Initiator(Box<Initiator>),
    /// It began.
    Responder(Box<Responder>),
    /// Both have proved who they are.
    Established,
    /// It is over; only repetitions of its last request are still answered, and our last one
    /// repeated.
    Ended,
}

/// What goes on when a task is done.
#[derive(Debug)]
pub(in crate::ike) enum PendingTask {
    /// A step of the handshake, whose state waits for it.
    Handshake,
    /// Our request, its key exchange begun.
    CreateKexBegin(Box<KexBegin>),
    /// The peer's answer to it.
    CreateKexFinish(Box<KexFinish>),
    /// The peer's request.
    PeerCreate(Box<PeerCreate>),
}

impl PendingTask {
    /// Returns the exchange of ours that it is a step of.
    pub(in crate::ike) fn own_create(&mut self) -> Option<&mut OwnCreate> {
        match self {
            Self::CreateKexBegin(step) => Some(&mut step.create),
            Self::CreateKexFinish(step) => Some(&mut step.create),
            _ => None,
        }
    }

    /// As [`Self::own_create`], once its task is not to be done any more.
    pub(in crate::ike) fn into_own_create(self) -> Option<OwnCreate> {
        match self {
            Self::CreateKexBegin(step) => Some(step.create),
            Self::CreateKexFinish(step) => Some(step.create),
            _ => None,
        }
    }
}

impl Peer {
    pub(in crate::ike) fn new(id: PeerId, now: Duration, addresses: Addresses) -> Self {
        Self {
            id,
            connection: None,
            phase: Phase::Ended,
            ike_sas: Vec::new(),
            active: 0,
            addresses,
            from: addresses.remote.ip(),
            nat: Nat::default(),
            identity: None,
            account: None,
            all_names: None,
            children: Vec::new(),
            leases: Vec::new(),
            assigned: Vec::new(),
            mobike: false,
            is_initiator: false,
            no_nats: false,
            knows_us: false,
            wanted: VecDeque::new(),
            waiting: Vec::new(),
            moving: None,
            retry: None,
            left: None,
            since: now,
            up_at: now,
            heard_at: now,
            asked_at: None,
            rekey_at: None,
            expire_at: None,
            keepalive_at: None,
            forget_at: None,
            creates: Rate::default(),
            moves: 0,
            moved_at: None,
            rekeys: 0,
            timer: None,
            was_counted: false,
            takes_over: false,
        }
    }

    pub(in crate::ike) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Whether it has not proved who it is.
    pub(in crate::ike) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::Responder(_))
    }

    pub(in crate::ike) fn connection<'a>(&self, cx: &Context<'a>) -> Option<&'a Connection> {
        cx.connections.get(self.connection?)
    }

    /// The IKE SA that our requests go by.
    pub(in crate::ike) fn active(&mut self) -> Option<&mut IkeSa> {
        let active = self.active;
        self.ike_sas.iter_mut().find(|s| s.local_spi() == active)
    }

    /// Returns the IKE SA of its handshake, which is there from IKE_SA_INIT on.
    pub(in crate::ike) fn handshake_sa(&mut self) -> Result<&mut IkeSa, Failure> {
        self.ike_sas.first_mut().ok_or(Reason::Protocol.into())
    }

    /// How ESP goes to it.
    pub(in crate::ike) fn path(&self, connection: &Connection) -> Path {
        let mut addresses = self.addresses;
        for end in [&mut addresses.local, &mut addresses.remote] {
            if end.port() == IKE_PORT {
                end.set_port(NAT_T_PORT);
            }
        }
        Path::new(addresses, self.nat.any() || connection.force_udp)
    }

    pub(in crate::ike) fn start(&mut self, cx: &mut Context<'_>, task: Task, waiting: PendingTask) {
        let id = cx.start(self.id, self.is_established(), self.from, task);
        self.waiting.push((id, waiting));
    }

    pub(in crate::ike) fn heard(&mut self, cx: &Context<'_>) {
        self.heard_at = cx.now;
        self.asked_at = None;
    }

    pub(in crate::ike) fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// All SPIs of ours that lead to it.
    pub(in crate::ike) fn all_spis(&self) -> impl Iterator<Item = u64> {
        self.ike_sas.iter().map(IkeSa::local_spi).chain([self.active])
    }

    /// Forgets it at once, without a word.
    pub(in crate::ike) fn forget(&mut self) {
        self.forget_at = Some(Duration::ZERO);
    }

    pub(in crate::ike) fn state(&self) -> State {
        match self.phase {
            Phase::Established => State::Up,
            Phase::Ended => State::Ended,
            Phase::Initiator(_) | Phase::Responder(_) => State::Connecting,
        }
    }

    /// Bytes of memory that it takes while it is half open.
    pub(in crate::ike) fn half_open_memory(&self) -> usize {
        let responder = match &self.phase {
            Phase::Responder(responder) => responder.memory(),
            _ => 0,
        };
        let ike_sas = self.ike_sas.capacity() * size_of::<IkeSa>();
        let keys = self.ike_sas.iter().map(|ike_sa| ike_sa.keys.memory()).sum::<usize>();
        size_of::<Self>() + responder + ike_sas + keys
    }

    pub(in crate::ike) fn since(&self) -> Duration {
        self.since
    }

    pub(in crate::ike) fn suite(&self) -> Option<&IkeSuite> {
        self.ike_sas.iter().find(|s| s.local_spi() == self.active).map(|s| &s.suite)
    }

    pub(in crate::ike) fn active_spis(&self) -> Option<[u64; 2]> {
        self.ike_sas.iter().find(|s| s.local_spi() == self.active).map(|s| [s.spi_i, s.spi_r])
    }

    pub(in crate::ike) fn inner(&self) -> impl Iterator<Item = IpAddr> {
        self.leases.iter().map(|(_, address)| *address).chain(self.assigned.iter().copied())
    }

    pub(in crate::ike) fn child_ids(&self) -> impl Iterator<Item = ChildId> {
        self.children.iter().map(|child| child.id)
    }

    /// Whether an exchange of ours is under way by which another takes the IKE SA's place.
    pub(in crate::ike) fn is_rekeying_ike_sa(&mut self) -> bool {
        self.own_create(|target| target == Target::IkeSa).is_some()
    }

    /// Returns the exchange of ours that makes what `is_it` takes.
    pub(in crate::ike) fn own_create(&mut self, is_it: impl Fn(Target) -> bool) -> Option<&mut OwnCreate> {
        let waiting = self.waiting.iter_mut().filter_map(|(_, task)| task.own_create());
        let sent = self.ike_sas.iter_mut().filter_map(|s| match &mut s.outstanding.as_mut()?.request {
            Request::Create(sent) => Some(&mut sent.create),
            _ => None,
        });
        waiting.chain(sent).find(|create| is_it(create.target))
    }

    /// Puts a request in the queue, once; moves go before all else.
    pub(in crate::ike) fn want(&mut self, wanted: QueuedRequest) {
        if self.wanted.contains(&wanted) {
            return;
        }
        match wanted {
            QueuedRequest::Update | QueuedRequest::Routability(_) => self.wanted.push_front(wanted),
            _ => self.wanted.push_back(wanted),
        }
    }

    /// Whether both have shown that they are at the same address and port: there is one device
    /// only.
    pub(in crate::ike) fn shares_remote_with(&self, old: &Self) -> bool {
        self.confirmed().remote == old.confirmed().remote
    }

    /// Whether this peer is to go and `old` to stay, though it came later: where each side has
    /// called the other at the same time both must keep the same one of the two.
    pub(in crate::ike) fn gives_way_to(&self, old: &Self) -> bool {
        let crossed = self.is_initiator != old.is_initiator && self.since <= old.up_at;
        crossed && self.active_spis() < old.active_spis()
    }

    /// When the IKE SA's keys are to be changed.
    pub(in crate::ike) fn schedule_ike_sa(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let rekey_at = cx.now + cx.jittered(connection.lifetimes.ike_sa);
        self.rekey_at = Some(rekey_at);
        self.expire_at = Some(rekey_at + connection.lifetimes.grace);
    }

    pub(in crate::ike) fn count_rekey(&mut self, cx: &mut Context<'_>) {
        self.rekeys += 1;
        cx.count(Counter::Rekeyed);
    }

    /// Returns AUTH data by a shared key, or by the MSK of an EAP conversation (RFC 7296 §2.16).
    pub(in crate::ike) fn shared_key(&self, cx: &Context<'_>, key: &[u8], octets: &[u8]) -> Secret {
        self.ike_sas.first().map(|s| shared_key_auth(cx.crypto, s.suite.prf, key, octets)).unwrap_or_default()
    }
}
