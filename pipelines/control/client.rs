//! Asking a running gateway.

use super::protocol::{Answer, Command, Outcome, Reply, Request, VERSION};
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the gateway may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer, in bytes: room for a million tunnels.
const LONGEST: u64 = 1 << 30;

/// Why there is no reply.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens there.
    NoGateway(PathBuf),
    /// The socket's permissions keep us out.
    Denied(PathBuf),
    /// The conversation broke off.
    Io(PathBuf, io::Error),
    /// The gateway did not answer in time.
    Silent(PathBuf),
    /// The gateway speaks this version of the protocol.
    Version(u32),
    /// The answer makes no sense.
    Garbled,
    /// The gateway refused, and said why.
    Refused(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGateway(path) => write!(f, "no gateway at {}", path.display()),
            Self::Denied(path) => {
                write!(f, "permission denied on {}: root or the socket's group may", path.display())
            }
            Self::Io(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Silent(path) => write!(f, "the gateway at {} does not answer", path.display()),
            Self::Version(theirs) => {
                write!(
                    f,
                    "the gateway speaks version {theirs} of the control protocol, this program version {VERSION}"
                )
            }
            Self::Garbled => f.write_str("the answer is not in the control protocol"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClientError {}

/// Asks the gateway whose control socket is at `path`.
///
/// # Errors
/// [`ClientError`].
pub fn ask(path: &Path, command: Command) -> Result<Reply, ClientError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoGateway(path.into()),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path.into()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent(path.into()),
        _ => ClientError::Io(path.into(), e),
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = Request { version: VERSION, command };
    let mut line = serde_json::to_vec(&request).map_err(|_| ClientError::Garbled)?;
    line.push(b'\n');
    // A gateway that is full says so and hangs up before it reads: its answer counts, not the
    // broken pipe.
    let sent = stream.write_all(&line);
    line.clear();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut line).map_err(failed)?;
    if line.is_empty() {
        sent.map_err(failed)?;
        return Err(ClientError::Silent(path.into()));
    }
    let answer: serde_json::Value = serde_json::from_slice(&line).map_err(|_| ClientError::Garbled)?;
    match answer["version"].as_u64().and_then(|theirs| u32::try_from(theirs).ok()) {
        Some(VERSION) => {}
        Some(theirs) => return Err(ClientError::Version(theirs)),
        None => return Err(ClientError::Garbled),
    }
    let answer: Answer = serde_json::from_value(answer).map_err(|_| ClientError::Garbled)?;
    match answer.outcome {
        Outcome::Result(reply) => Ok(reply),
        Outcome::Error(why) => Err(ClientError::Refused(why)),
    }
}
