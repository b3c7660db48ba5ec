//! The gateway's end of the control socket. The socket file's permissions are the access control:
//! whoever may open it may send any command. The slow path only ever sees well-formed commands, one
//! at a time from each connection.

use super::protocol::{Answer, Command, MOST_CLIENTS, Outcome, Reply, Request, VERSION};
use crate::slow_path::ControlRequest;
use crossbeam::channel::{Sender, bounded};
use nix::{
    fcntl::AT_FDCWD,
    sys::{
        socket::{Shutdown, shutdown},
        stat::{FchmodatFlags, Mode, fchmodat},
    },
};
use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read, Write},
    net,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longest request, in bytes.
pub const LONGEST_LINE: usize = 64 << 10;
/// How long a client may take for a request, or be idle.
const IDLE: Duration = Duration::from_secs(30);
/// How long a client may take to read an answer.
const UNREAD: Duration = Duration::from_secs(5);
/// Pause after a failed accept, which lacks descriptors or memory that others must free first.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Reloads the gateway's configuration, and returns why nothing changed if it cannot. It may wait for
/// a disk.
pub type Reload = dyn Fn() -> Result<(), String> + Send + Sync;

/// The parts of the gateway that carry out commands.
#[derive(Clone)]
struct Gateway {
    slow_path: Sender<ControlRequest>,
    reload: Arc<Reload>,
}

/// The reason why there is no control socket.
#[derive(Debug)]
pub enum ControlError {
    /// Another gateway answers on this socket.
    Busy(PathBuf),
    /// The file is not a socket.
    NotASocket(PathBuf),
    /// The system refused an operation.
    Io(PathBuf, io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(path) => write!(f, "another gateway answers at {}", path.display()),
            Self::NotASocket(path) => write!(
                f,
                "cannot create the control socket {}: a file of this name exists and is not a socket",
                path.display()
            ),
            Self::Io(path, why) => write!(f, "control socket {}: {why}", path.display()),
        }
    }
}

impl std::error::Error for ControlError {}

/// A running control socket. Dropping it disconnects all clients and removes the file.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    inode: (u64, u64),
    shared: Arc<SharedState>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SharedState {
    listener: UnixListener,
    stop: AtomicBool,
    clients: Mutex<BTreeMap<u64, UnixStream>>,
}

impl SharedState {
    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, UnixStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Listens at `path`, and passes commands to `slow_path`, except for [`Command::Reload`], for which
    /// it calls `reload`. A socket that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`ControlError`], if another gateway listens there, the file is not a socket, or the system
    /// refuses.
    pub fn start(
        path: &Path,
        slow_path: Sender<ControlRequest>,
        reload: Arc<Reload>,
    ) -> Result<Self, ControlError> {
        let failed = |e| ControlError::Io(path.into(), e);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(failed)?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Without following a symbolic link that somebody may have put in the socket's place.
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink).map_err(|e| failed(e.into()))?;
        let inode = inode(path).map_err(failed)?;
        let (stop, clients) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(SharedState { listener, stop, clients });
        let mut server = Self { path: path.into(), inode, shared: shared.clone(), acceptor: None };
        let acceptor = thread::Builder::new().name("control".into());
        let gateway = Gateway { slow_path, reload };
        server.acceptor = Some(acceptor.spawn(move || accept(&shared, &gateway)).map_err(failed)?);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // Wakes the accepting thread. It cannot fail, because the socket is listening.
        let _ = shutdown(self.shared.listener.as_raw_fd(), Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for client in self.shared.clients().values() {
            // Fails only if the client has disconnected already.
            let _ = client.shutdown(net::Shutdown::Both);
        }
        // Only this gateway's own file: another gateway may have replaced it.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|about| (about.dev(), about.ino()))
}

/// Removes the socket of a gateway that is gone from `path`.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |e| ControlError::Io(path.into(), e);
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(about) if !about.file_type().is_socket() => return Err(ControlError::NotASocket(path.into())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ControlError::Busy(path.into())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(e) => Err(failed(e)),
    }
}

fn accept(shared: &Arc<SharedState>, gateway: &Gateway) {
    for number in 0.. {
        let accepted = shared.listener.accept();
        if shared.stop.load(SeqCst) {
            return;
        }
        let served = accepted.and_then(|(stream, _)| admit(shared, gateway, number, stream));
        if let Err(why) = served {
            tracing::warn!(%why, "a control connection failed");
            thread::sleep(BACK_OFF);
        }
    }
}

/// Starts a thread for a client, or tells the client that there are too many.
fn admit(shared: &Arc<SharedState>, gateway: &Gateway, number: u64, stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(UNREAD))?;
    let mut clients = shared.clients();
    if clients.len() >= MOST_CLIENTS {
        drop(clients);
        // Fails only if the client is gone. One line always fits into the socket's buffer.
        let _ = answer(&stream, refusal("too many control connections; try again"));
        return Ok(());
    }
    clients.insert(number, stream.try_clone()?);
    drop(clients);
    let (of_thread, gateway) = (shared.clone(), gateway.clone());
    let serve = move || {
        // An error ends this client's connection only.
        let _ = serve(&stream, &gateway);
        of_thread.clients().remove(&number);
    };
    thread::Builder::new().name("control client".into()).spawn(serve).map(drop).inspect_err(|_| {
        shared.clients().remove(&number);
    })
}

/// Answers line by line, until the client disconnects or breaks the protocol.
fn serve(stream: &UnixStream, gateway: &Gateway) -> io::Result<()> {
    let mut lines = Lines { stream, buffer: vec![] };
    loop {
        match lines.next()? {
            Line::Whole(line) if line.trim_ascii().is_empty() => {}
            Line::Whole(line) => answer(stream, respond(&line, gateway))?,
            Line::TooLong => {
                return answer(
                    stream,
                    refusal(&format!("a request must not be longer than {LONGEST_LINE} bytes")),
                );
            }
            Line::End => return Ok(()),
        }
    }
}

fn respond(line: &[u8], gateway: &Gateway) -> Answer {
    match parse(line) {
        // A slow disk must not delay the slow path.
        Ok(Command::Reload) => {
            let outcome = (gateway.reload)().map_or_else(Outcome::Error, |()| Outcome::Result(Reply::Done));
            Answer { version: VERSION, outcome }
        }
        Ok(command) => ask(command, &gateway.slow_path),
        Err(answer) => answer,
    }
}

/// Parses one line into a command.
///
/// # Errors
/// The answer to send, if the line is not a request of this version.
pub fn parse(line: &[u8]) -> Result<Command, Answer> {
    let bad = |e: serde_json::Error| refusal(&format!("not a valid request: {e}"));
    let request: serde_json::Value = serde_json::from_slice(line).map_err(bad)?;
    match request.get("version").map(serde_json::Value::as_u64) {
        Some(Some(version)) if version == u64::from(VERSION) => {}
        Some(Some(theirs)) => {
            let why = format!("the request has version {theirs}, but this gateway speaks version {VERSION}");
            return Err(refusal(&why));
        }
        _ => {
            return Err(refusal(&format!(
                "the request has no version; this gateway speaks version {VERSION}"
            )));
        }
    }
    serde_json::from_value(request).map(|request: Request| request.command).map_err(bad)
}

fn ask(command: Command, slow_path: &Sender<ControlRequest>) -> Answer {
    let deadline = Instant::now() + command.patience();
    let (to, from) = bounded(1);
    let answer = slow_path
        .send_deadline((command, to), deadline)
        .ok()
        .and_then(|()| from.recv_deadline(deadline).ok());
    answer.unwrap_or_else(|| refusal("the gateway is too busy to answer"))
}

fn refusal(why: &str) -> Answer {
    Answer { version: VERSION, outcome: Outcome::Error(why.to_owned()) }
}

fn answer(mut stream: &UnixStream, answer: Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Splits a client's bytes into lines.
struct Lines<'a> {
    stream: &'a UnixStream,
    buffer: Vec<u8>,
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<Line> {
        let deadline = Instant::now() + IDLE;
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.buffer.split_off(searched + end + 1);
                return Ok(Line::Whole(std::mem::replace(&mut self.buffer, rest)));
            }
            searched = self.buffer.len();
            if searched >= LONGEST_LINE {
                return Ok(Line::TooLong);
            }
            // A timeout of zero would mean no timeout.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut stream = self.stream.take((LONGEST_LINE - searched) as u64);
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(Line::End),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
