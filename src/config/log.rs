//! Log lines in the shape that etcd's supervisors and harnesses read: one JSON object a line, as zap writes them.

use super::check::{LogFormat, LogSettings};
use serde_json::Value;
use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    sync::Mutex,
};
use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{ChronoLocal, FormatTime},
    },
    registry::LookupSpan,
};

/// Starts logging as `settings` say. Panics are logged too, as lines of level `panic`.
///
/// # Errors
/// A sentence, if a log file can't be opened or logging was started before.
pub fn init(settings: &LogSettings) -> Result<(), String> {
    let level = match settings.level.as_str() {
        "dpanic" | "panic" | "fatal" => "error",
        level => level,
    };
    let filter = EnvFilter::new(format!("{level},h2=warn,hyper=warn,hyper_util=warn,tower=warn,sled=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Outputs::open(&settings.outputs)?);
    let started = match settings.format {
        LogFormat::Json => builder.event_format(ZapJson).try_init(),
        LogFormat::Console => builder.with_ansi(false).with_target(true).try_init(),
    };
    started.map_err(|error| format!("cannot start logging: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let caller = panic.location().map_or_else(|| "?".to_owned(), |at| format!("{}:{}", at.file(), at.line()));
        let text = panic.payload().downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
        eprintln!("{}", line("panic", &now(), &caller, &text, &[]));
    }));
    Ok(())
}

/// etcd's, but that [`now`] spells UTC as `Z`.
const TS_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.6f%z";

fn now() -> String {
    let mut text = String::new();
    // Formatting the time into a string cannot fail.
    let _ = ChronoLocal::new(TS_FORMAT.to_owned()).format_time(&mut Writer::new(&mut text));
    match text.strip_suffix("+0000") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}

/// A line's object, in zap's order: that of the fields is the one in which the call has them.
fn line(level: &str, ts: &str, caller: &str, message: &str, fields: &[(String, Value)]) -> String {
    let head = [("level", level), ("ts", ts), ("caller", caller), ("msg", message)];
    let head = head.map(|(name, text)| (name, Value::from(text)));
    let head = head.iter().map(|(name, value)| (*name, value));
    let all = head.chain(fields.iter().map(|(name, value)| (name.as_str(), value)));
    let pairs = all.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect::<Vec<_>>();
    format!("{{{}}}", pairs.join(","))
}

/// zap's JSON: `level`, `ts`, `caller`, `msg`, then the fields.
struct ZapJson;

impl<S, N> FormatEvent<S, N> for ZapJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *meta.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let file = meta.file().unwrap_or("?").trim_start_matches("src/");
        let caller = format!("{file}:{}", meta.line().unwrap_or(0));
        writeln!(writer, "{}", line(level, &now(), &caller, &fields.message, &fields.rest))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    /// In the order of the call.
    rest: Vec<(String, Value)>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.rest.push((field.name().replace('_', "-"), value));
    }
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.set(field, format!("{value:?}").into()),
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.set(field, value.into()),
        }
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }
}

/// All places that a log line goes to.
struct Outputs(Mutex<Vec<Box<dyn Write + Send>>>);

impl Outputs {
    fn open(names: &[String]) -> Result<Outputs, String> {
        let open = |name: &String| -> Result<Box<dyn Write + Send>, String> {
            match name.as_str() {
                "default" | "stderr" => Ok(Box::new(io::stderr())),
                "stdout" => Ok(Box::new(io::stdout())),
                path => match OpenOptions::new().create(true).append(true).open(path) {
                    Ok(file) => Ok(Box::new(file)),
                    Err(error) => Err(format!("cannot open log file {path}: {error}")),
                },
            }
        };
        Ok(Outputs(Mutex::new(names.iter().map(open).collect::<Result<_, _>>()?)))
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line { outputs: self, buffer: Vec::new() }
    }
}

/// One line, written whole when it is dropped, so that lines of several threads never mix.
struct Line<'a> {
    outputs: &'a Outputs,
    buffer: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut outputs = self.outputs.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for output in outputs.iter_mut() {
            // There is nowhere left to complain to when the log itself can't be written.
            let _ = output.write_all(&self.buffer).and_then(|()| output.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_zaps_order_and_the_calls() {
        let fields = [("signal".to_owned(), Value::from("a \"b\"\n")), ("address".to_owned(), Value::from(7))];
        let expected = r#"{"level":"info","ts":"T","caller":"a.rs:1","msg":"m","signal":"a \"b\"\n","address":7}"#;
        assert_eq!(line("info", "T", "a.rs:1", "m", &fields), expected);
    }

    #[test]
    fn utc_is_spelled_as_go_spells_it() {
        let now = now();
        let zone = &now["2026-01-01T00:00:00.000000".len()..];
        let is_offset = zone.len() == 5 && zone.starts_with(['+', '-']) && zone != "+0000";
        assert!(zone == "Z" || is_offset, "{now}");
    }
}
