//! A new configuration for a running gateway.

use crate::{
    barrier::SharedBarrier,
    config::{self, ConfigError, model::Config},
    slow_path::NewConfig,
};
use crossbeam::channel::{Sender, bounded};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tracing::{error, info, warn};
use wayfarer_dataplane::port::PortError;

/// The reason why a configuration was not reloaded. Nothing has changed then.
#[derive(Debug)]
enum ReloadError {
    /// The file is wrong.
    Config(ConfigError),
    /// This part has changed, and cannot change while the gateway runs.
    NeedsRestart(&'static str),
    /// The host cannot be kept from forwarding what the new configuration protects.
    Barrier(PortError),
    /// The gateway has ended.
    Ended,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::NeedsRestart(part) => write!(f, "{part} has changed, which needs a restart"),
            Self::Barrier(why) => why.fmt(f),
            Self::Ended => f.write_str("the gateway is ending"),
        }
    }
}

/// Reloads the configuration file of a running gateway.
#[derive(Debug)]
pub(super) struct Reloader {
    file: PathBuf,
    to_slow_path: Sender<NewConfig>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The configuration in use.
    config: Config,
    barrier: SharedBarrier,
}

impl Reloader {
    /// Creates a reloader for the gateway of `config`, which was read from `file`.
    pub(super) fn new(
        file: &Path,
        config: Config,
        barrier: SharedBarrier,
        to_slow_path: Sender<NewConfig>,
    ) -> Self {
        Self { file: file.to_owned(), to_slow_path, state: Mutex::new(State { config, barrier }) }
    }

    /// Reads the file, and has the gateway use it.
    ///
    /// # Errors
    /// The reason why nothing has changed, for people.
    pub(super) fn reload(&self) -> Result<(), String> {
        let result = self.try_reload();
        match &result {
            Ok(()) => info!(name: "reloaded", file = %self.file.display(), "the configuration was reloaded"),
            Err(why) => {
                error!(name: "not_reloaded", "the configuration was not reloaded, and nothing has changed: {why}")
            }
        }
        result.map_err(|why| why.to_string())
    }

    /// Starts a thread that reloads at each request, so that the caller need not wait for a disk. A
    /// request that finds the channel full can be left out: the one in it is not begun yet.
    ///
    /// # Errors
    /// The system's error for the thread.
    pub(super) fn start_thread(self: Arc<Self>) -> io::Result<Sender<()>> {
        let (to, requests) = bounded(1);
        // The log has the results.
        let reload = move || requests.into_iter().for_each(|()| drop(self.reload()));
        thread::Builder::new().name("reload".into()).spawn(reload)?;
        Ok(to)
    }

    fn try_reload(&self) -> Result<(), ReloadError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { config, barrier } = &mut *state;
        let new = config::load(&self.file).map_err(ReloadError::Config)?;
        if let Some(part) = config::needs_restart(config, &new) {
            return Err(ReloadError::NeedsRestart(part));
        }
        // Before the gateway: what is new to it must not be forwarded in clear meanwhile.
        let protect =
            |config: &Config| barrier.lock().unwrap_or_else(PoisonError::into_inner).protect(config);
        if let Err((_, why)) = protect(&new) {
            if let Err((port, why)) = protect(config) {
                warn!(port, "the barrier protects more than before: {why}");
            }
            return Err(ReloadError::Barrier(why));
        }
        let (done, is_done) = bounded(1);
        let to_use = NewConfig { neighbours: new.neighbours.clone(), ike: Box::new(new.ike.clone()), done };
        self.to_slow_path.send(to_use).map_err(|_| ReloadError::Ended)?;
        is_done.recv().map_err(|_| ReloadError::Ended)?;
        *config = new;
        Ok(())
    }
}
