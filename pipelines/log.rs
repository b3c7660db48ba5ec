//! The log: one line for each event, as text for people or as JSON for programs.

use serde_json::{Map, Value};
use std::fmt::{self, Debug};
#[cfg(any(test, feature = "bench"))]
use std::{
    io,
    sync::{
        LazyLock,
        mpsc::{self, Sender},
    },
};
#[cfg(any(test, feature = "bench"))]
use tracing::dispatcher;
use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The form of a log's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, in colours if true.
    Text(bool),
    /// JSON: one object a line.
    Json,
}

/// Returns a log of everything from `level` up, which `writer` takes.
pub fn dispatch<W>(level: Level, format: Format, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .log_internal_errors(false)
        .with_writer(writer);
    match format {
        Format::Text(is_coloured) => log.with_ansi(is_coloured).finish().into(),
        Format::Json => log.event_format(Json).finish().into(),
    }
}

/// Returns what this thread logs from [`Level::INFO`] up during `act`, for tests.
///
/// # Panics
/// If that is not UTF-8.
#[cfg(any(test, feature = "bench"))]
pub fn recorded(format: Format, act: impl FnOnce()) -> String {
    /// Sends on what is written.
    struct Sending(Sender<Vec<u8>>);

    impl io::Write for Sending {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// With only one dispatcher, the first thread that comes by a line decides for all threads whether it is
    /// wanted, even if that is a thread without a dispatcher.
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| dispatch(Level::INFO, Format::Json, io::sink));

    LazyLock::force(&SECOND);
    let (to, written) = mpsc::channel();
    dispatcher::with_default(&dispatch(Level::INFO, format, move || Sending(to.clone())), act);
    String::from_utf8(written.try_iter().flatten().collect()).expect("UTF-8")
}

/// Writes an event as a JSON object: `time`, `level`, `event` if the event has a name, `message`,
/// and the event's own fields.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        fields.insert("time", time);
        fields.insert("level", event.metadata().level().as_str());
        // An event without a name is called after its place in the code.
        let name = event.metadata().name();
        if !name.contains(' ') {
            fields.insert("event", name);
        }
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

/// The fields of an event.
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field.name(), value);
    }
}
