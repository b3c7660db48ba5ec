//! EAP with a RADIUS server behind us: packets pass through, whatever their method (RFC 3579).

use super::Primitives;
use std::{
    fmt, io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use wayfarer_mobility::{
    ike::{
        connection::SharedKey,
        crypto::{Crypto, Secret},
        eap::{
            Authenticator, Conversation, Step,
            packet::{Packet, kind},
        },
    },
    radius::{AccessRequest, Answer, Code, MOST_BYTES},
};

/// Most requests of one conversation.
const MOST_ROUNDS: u32 = 64;

/// A RADIUS server.
#[derive(Clone, Debug)]
pub struct RadiusServer {
    /// Where it answers; its port mostly is 1812.
    pub address: SocketAddr,
    /// What it shares with us.
    pub secret: SharedKey,
}

/// What is to be known of RADIUS.
#[derive(Clone, Debug)]
pub struct RadiusConfig {
    /// Servers that know the same peers. While the one that answered last does, the others are not asked.
    pub servers: Vec<RadiusServer>,
    /// What we call ourselves: 1 to 253 bytes.
    pub nas_identifier: String,
    /// Where peers call, if servers want to know.
    pub called_station_id: Option<String>,
    /// How often a request is sent to a server.
    pub tries: u32,
    /// How long an answer is waited for, each time.
    pub patience: Duration,
}

impl RadiusConfig {
    /// With three tries of two seconds for each server.
    pub fn new(servers: Vec<RadiusServer>, nas_identifier: &str) -> Self {
        Self {
            servers,
            nas_identifier: nas_identifier.into(),
            called_station_id: None,
            tries: 3,
            patience: Duration::from_secs(2),
        }
    }
}

/// Lets RADIUS servers judge peers.
#[derive(Clone, Debug)]
pub struct Radius(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: RadiusConfig,
    /// Which server answered last.
    preferred: AtomicUsize,
}

impl Radius {
    /// Asks these servers.
    pub fn new(config: RadiusConfig) -> Self {
        Self(Arc::new(Shared { config, preferred: AtomicUsize::new(0) }))
    }
}

impl Authenticator for Radius {
    fn begin(&self, _: &[u8]) -> Box<dyn Conversation> {
        Box::new(PassThrough {
            shared: self.0.clone(),
            stage: Stage::Nothing,
            identity: Vec::new(),
            rounds: 0,
        })
    }
}

/// One conversation.
struct PassThrough {
    shared: Arc<Shared>,
    stage: Stage,
    /// What the peer calls itself; from the success on, what the server calls it.
    identity: Vec<u8>,
    rounds: u32,
}

enum Stage {
    Nothing,
    IdentityRequest,
    /// The server's challenge is with the peer.
    Challenge(Link),
    Success,
    Over,
}

/// The server that knows of this conversation.
struct Link {
    number: usize,
    socket: UdpSocket,
    /// Identifier of the next request.
    id: u8,
    state: Option<Vec<u8>>,
}

/// What is left of a server's answer.
struct Verdict {
    code: Code,
    eap: Option<Vec<u8>>,
    state: Option<Vec<u8>>,
    user_name: Option<Vec<u8>>,
    /// `None` where its key cannot be read.
    msk: Option<Option<Secret>>,
}

impl PassThrough {
    /// Asks the server of this conversation, or at its beginning one after another; `None` where nobody answers.
    fn ask(&self, link: Option<Link>, eap: &[u8]) -> Option<(Link, Verdict)> {
        if let Some(mut link) = link {
            return self.ask_one(&mut link, eap).map(|verdict| (link, verdict));
        }
        let count = self.shared.config.servers.len();
        let preferred = self.shared.preferred.load(Ordering::Relaxed);
        (0..count).map(|i| (preferred + i) % count).find_map(|number| {
            let mut link = Link::new(number, self.shared.config.servers.get(number)?.address).ok()?;
            let verdict = self.ask_one(&mut link, eap)?;
            self.shared.preferred.store(number, Ordering::Relaxed);
            Some((link, verdict))
        })
    }

    fn ask_one(&self, link: &mut Link, eap: &[u8]) -> Option<Verdict> {
        let RadiusConfig { servers, nas_identifier, called_station_id, tries, patience } =
            &self.shared.config;
        let secret = &servers.get(link.number)?.secret.0;
        let mut authenticator = [0; 16];
        Primitives.random(&mut authenticator);
        let request = AccessRequest {
            user_name: &self.identity,
            nas_identifier: nas_identifier.as_bytes(),
            called_station_id: called_station_id.as_deref().map(str::as_bytes),
            calling_station_id: None,
            state: link.state.as_deref(),
            eap,
        };
        let packet = request.emit(link.id, &authenticator, secret)?;
        let read = |answer: &[u8]| {
            let answer = Answer::parse(answer, link.id, &authenticator, secret).ok()?;
            Some(Verdict {
                code: answer.code,
                eap: answer.eap(),
                state: answer.state().map(<[u8]>::to_vec),
                user_name: answer.user_name().map(<[u8]>::to_vec),
                msk: answer.msk(&authenticator, secret).ok(),
            })
        };
        let verdict = (0..*tries).find_map(|_| link.try_once(&packet, *patience, read))?;
        link.id = link.id.wrapping_add(1);
        link.state.clone_from(&verdict.state);
        Some(verdict)
    }

    /// Sends the peer's packet on and brings back what its server says; `None` where it does not make sense.
    fn pass(&mut self, packet: &[u8]) -> Option<Step> {
        let Some(Packet::Response(response)) = Packet::parse(packet) else { return None };
        let link = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::IdentityRequest if response.kind == kind::IDENTITY => {
                self.identity = response.data.to_vec();
                None
            }
            Stage::Challenge(link) => Some(link),
            _ => return None,
        };
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            return None;
        }
        let (link, verdict) = self.ask(link, packet)?;
        let said = verdict.eap.as_deref().map(Packet::parse);
        match (verdict.code, said) {
            (Code::Challenge, Some(Some(Packet::Request(_)))) => {
                self.stage = Stage::Challenge(link);
                verdict.eap.map(Step::Send)
            }
            (Code::Accept, None | Some(Some(Packet::Success(_)))) => {
                let key = verdict.msk?;
                self.identity = verdict.user_name.unwrap_or(mem::take(&mut self.identity));
                self.stage = Stage::Success;
                Some(Step::Success(Packet::Success(response.id).emit(), key))
            }
            _ => None,
        }
    }
}

impl Link {
    fn new(number: usize, server: SocketAddr) -> io::Result<Self> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        Ok(Self { number, socket, id: 0, state: None })
    }

    /// Sends a request and waits for what `read` takes as its answer. Anything else that comes is as if it had not.
    fn try_once<T>(&self, packet: &[u8], patience: Duration, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + patience;
        self.socket.send(packet).ok()?;
        let mut buffer = [0; MOST_BYTES];
        loop {
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).ok()?;
            match self.socket.recv(&mut buffer) {
                Ok(len) => {
                    if let Some(answer) = buffer.get(..len).and_then(&read) {
                        return Some(answer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

impl Conversation for PassThrough {
    fn handle(&mut self, packet: &[u8]) -> Step {
        if let Stage::Nothing = self.stage {
            self.stage = Stage::IdentityRequest;
            return Step::Send(Packet::identity_request(0).emit());
        }
        let id = packet.get(1).copied().unwrap_or_default();
        self.pass(packet).unwrap_or_else(|| {
            self.stage = Stage::Over;
            Step::Failure(Packet::Failure(id).emit())
        })
    }

    fn identity(&self) -> Option<&[u8]> {
        matches!(self.stage, Stage::Success).then_some(&self.identity)
    }

    fn may_block(&self) -> bool {
        true
    }
}

impl fmt::Debug for PassThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP by RADIUS, {} requests", self.rounds)
    }
}
