//! The client of a running gateway's control socket.

use super::protocol::{Answer, Command, Outcome, Reply, Request, VERSION};
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest wait for the gateway, beyond the time that its slow path may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longest answer, in bytes: room for a million tunnels.
const LONGEST: u64 = 1 << 30;

/// The reason why there is no reply.
#[derive(Debug)]
pub enum ClientError {
    /// No gateway listens on this socket.
    NoGateway(PathBuf),
    /// The socket's permissions do not let this user connect.
    Denied(PathBuf),
    /// The connection failed.
    Io(PathBuf, io::Error),
    /// The gateway did not answer in time.
    Timeout(PathBuf),
    /// The gateway speaks this other version of the protocol.
    Version(u32),
    /// The answer is not in the control protocol.
    MalformedAnswer,
    /// The gateway refused, for this reason.
    Refused(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGateway(path) => write!(f, "no gateway at {}", path.display()),
            Self::Denied(path) => {
                write!(
                    f,
                    "permission denied on {}: only root and the socket's group may use it",
                    path.display()
                )
            }
            Self::Io(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Timeout(path) => write!(f, "the gateway at {} does not answer", path.display()),
            Self::Version(version) => {
                write!(
                    f,
                    "the gateway speaks version {version} of the control protocol, \
             but this program speaks version {VERSION}"
                )
            }
            Self::MalformedAnswer => f.write_str("the gateway's answer does not follow the control protocol"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClientError {}

/// Sends `command` to the gateway whose control socket is at `path`, and returns its reply.
///
/// # Errors
/// [`ClientError`], if there is no gateway, it does not answer in time, or it refuses.
pub fn ask(path: &Path, command: Command) -> Result<Reply, ClientError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoGateway(path.into()),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path.into()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout(path.into()),
        _ => ClientError::Io(path.into(), e),
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE + command.patience())).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = Request { version: VERSION, command };
    let mut line = serde_json::to_vec(&request).map_err(|_| ClientError::MalformedAnswer)?;
    line.push(b'\n');
    // A gateway with too many clients answers and hangs up before it reads. Then its answer counts,
    // not the broken pipe.
    let sent = stream.write_all(&line);
    line.clear();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut line).map_err(failed)?;
    if line.is_empty() {
        sent.map_err(failed)?;
        return Err(ClientError::Timeout(path.into()));
    }
    let answer: serde_json::Value =
        serde_json::from_slice(&line).map_err(|_| ClientError::MalformedAnswer)?;
    match answer["version"].as_u64().and_then(|version| u32::try_from(version).ok()) {
        Some(VERSION) => {}
        Some(version) => return Err(ClientError::Version(version)),
        None => return Err(ClientError::MalformedAnswer),
    }
    let answer: Answer = serde_json::from_value(answer).map_err(|_| ClientError::MalformedAnswer)?;
    match answer.outcome {
        Outcome::Result(reply) => Ok(reply),
        Outcome::Error(why) => Err(ClientError::Refused(why)),
    }
}
