//! get, put, del, compaction.

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, Format},
};
use crate::{
    client::{
        DeleteOptions, GetOptions, PutOptions,
        kv::{OPEN_END, end_of_prefix},
    },
    go::{self, quote},
    pb::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest,
        range_request::{SortOrder, SortTarget},
    },
};
use bytes::Bytes;
use std::{ffi::OsString, io::Read as _, os::unix::ffi::OsStringExt as _, time::Duration};

/// Reads keys.
#[derive(clap::Args, Debug)]
pub struct Get {
    /// The key, and the end of the range (exclusive)
    #[arg(value_name = "KEY [RANGE_END]")]
    keys: Vec<OsString>,
    /// Linearizable(l) or Serializable(s)
    #[arg(long, default_value = "l")]
    consistency: String,
    /// Order of results: ASCEND or DESCEND
    #[arg(long, default_value = "")]
    order: String,
    /// Sort target: CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(long, default_value = "")]
    sort_by: String,
    /// Maximum number of results; 0 means all
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    pub limit: i64,
    /// Get keys with matching prefix
    #[arg(long)]
    prefix: bool,
    /// Get keys that are greater than or equal to the given key using byte compare
    #[arg(long)]
    from_key: bool,
    /// Specify the kv revision
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    rev: i64,
    /// Get only the keys
    #[arg(long)]
    keys_only: bool,
    /// Get only the count
    #[arg(long)]
    count_only: bool,
    /// Only write values when using the "simple" output format
    #[arg(long)]
    print_value_only: bool,
    /// Have the answer sent in pieces (RangeStream), for ranges that are too large for one message
    #[arg(long)]
    stream: bool,
    /// Lower bound for the creation revision
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    min_create_rev: i64,
    /// Upper bound for the creation revision
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    max_create_rev: i64,
    /// Lower bound for the last modification's revision
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    min_mod_rev: i64,
    /// Upper bound for the last modification's revision
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    max_mod_rev: i64,
}

impl Get {
    /// The request that the arguments describe.
    pub fn request(self) -> Result<RangeRequest, Failure> {
        let (key, range_end) = span("get", self.keys, self.prefix, self.from_key)?;
        let serializable = match self.consistency.as_str() {
            "s" => true,
            "l" => false,
            other => return Err(Failure::unsupported(format!("unknown consistency flag {other:?}"))),
        };
        let order = match self.order.to_uppercase().as_str() {
            "" => SortOrder::None,
            "ASCEND" => SortOrder::Ascend,
            "DESCEND" => SortOrder::Descend,
            _ => return Err(Failure::unsupported(format!("bad sort order {}", self.order))),
        };
        let target = match self.sort_by.to_uppercase().as_str() {
            "" | "KEY" => SortTarget::Key,
            "CREATE" => SortTarget::Create,
            "MODIFY" => SortTarget::Mod,
            "VALUE" => SortTarget::Value,
            "VERSION" => SortTarget::Version,
            _ => return Err(Failure::unsupported(format!("bad sort target {}", self.sort_by))),
        };
        if self.keys_only && self.count_only {
            return Err(Failure::args("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
        }
        let options = GetOptions {
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: order as i32,
            sort_target: target as i32,
            serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev,
            max_mod_revision: self.max_mod_rev,
            min_create_revision: self.min_create_rev,
            max_create_revision: self.max_create_rev,
        };
        Ok(options.request(key))
    }
}

/// Sets a key.
#[derive(clap::Args, Debug)]
pub struct Put {
    /// The key and the value; without a value it is read from standard input
    #[arg(value_name = "KEY [VALUE]")]
    words: Vec<OsString>,
    /// Lease ID (in hexadecimal) to attach to the key
    #[arg(long, default_value = "0")]
    lease: String,
    /// Return the previous key-value pair before modification
    #[arg(long)]
    prev_kv: bool,
    /// Updates the key using its current value
    #[arg(long)]
    ignore_value: bool,
    /// Updates the key using its current lease
    #[arg(long)]
    ignore_lease: bool,
}

impl Put {
    /// The request that the arguments describe; `input` is asked for a value that is not among them.
    pub fn request(self, input: impl FnOnce() -> Result<Bytes, Failure>) -> Result<PutRequest, Failure> {
        let mut words = self.words.into_iter().map(bytes);
        let missing = || Failure::args("put command needs 1 argument and input from stdin or 2 arguments");
        let key = words.next().ok_or_else(missing)?;
        let given = words.next();
        if self.ignore_value && given.is_some() {
            return Err(Failure::args("put command needs only 1 argument when 'ignore-value' is set"));
        }
        let lease = super::lease::id(&self.lease)
            .map_err(|cause| Failure::args(format!("bad lease ID ({cause}), expecting ID in Hex")))?;
        let value = match given {
            Some(value) => value,
            None if self.ignore_value => Bytes::new(),
            // An empty input is far more often a mistake in a script than a wish for an empty value.
            None => Some(input()?).filter(|value| !value.is_empty()).ok_or_else(missing)?,
        };
        let options = PutOptions {
            lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        };
        Ok(options.request(key, value))
    }
}

/// Removes keys.
#[derive(clap::Args, Debug)]
pub struct Del {
    /// The key, and the end of the range (exclusive)
    #[arg(value_name = "KEY [RANGE_END]")]
    keys: Vec<OsString>,
    /// Return deleted key-value pairs
    #[arg(long)]
    prev_kv: bool,
    /// Delete keys with matching prefix
    #[arg(long)]
    prefix: bool,
    /// Delete keys that are greater than or equal to the given key using byte compare
    #[arg(long)]
    from_key: bool,
    /// Do not wait for second thoughts before a range is deleted
    #[arg(long)]
    range: bool,
}

impl Del {
    /// The request that the arguments describe.
    pub fn request(self) -> Result<DeleteRangeRequest, Failure> {
        let (key, range_end) = span("del", self.keys, self.prefix, self.from_key)?;
        Ok(DeleteOptions { range_end, prev_kv: self.prev_kv }.request(key))
    }
}

/// Compacts history.
#[derive(clap::Args, Debug)]
pub struct Compaction {
    /// The revision below which history is forgotten
    #[arg(value_name = "REVISION")]
    revision: Vec<String>,
    /// Wait until the old revisions are physically removed
    #[arg(long)]
    physical: bool,
}

pub async fn get(global: &Global, args: Get) -> Result<(), Failure> {
    let mut printer = global.printer()?;
    printer.values_only = args.print_value_only;
    let simple = printer.format == Format::Simple;
    let (values_only, count_only) = (args.print_value_only, args.count_only);
    let in_pieces = args.stream;
    let request = args.request()?;
    if values_only && !simple {
        return Err(Failure::args("print-value-only is only for `--write-out=simple`"));
    }
    if count_only && simple {
        return Err(Failure::args("--count-only is only for `--write-out=fields`"));
    }
    let client = global.client().await?;
    let answer = if in_pieces { client.range_in_pieces(request).await? } else { client.range(request).await? };
    printer.print(&Answer::Get(answer))
}

pub async fn put(global: &Global, args: Put) -> Result<(), Failure> {
    let request = args.request(|| {
        let mut value = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut value)
            .map_err(|error| Failure::io(format!("standard input: {error}")))?;
        Ok(value.into())
    })?;
    let options = PutOptions {
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    };
    let answer = global.client().await?.put(request.key, request.value, options).await?;
    global.printer()?.print(&Answer::Put(answer))
}

/// How long `del` with two keys waits for second thoughts.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

pub async fn del(global: &Global, args: Del) -> Result<(), Failure> {
    let warns = args.keys.len() == 2 && !args.range;
    let DeleteRangeRequest { key, range_end, prev_kv } = args.request()?;
    if warns {
        eprintln!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.",
            quote(&key),
            quote(&range_end)
        );
        tokio::time::sleep(SECOND_THOUGHTS).await;
    }
    let answer = global.client().await?.delete(key, DeleteOptions { range_end, prev_kv }).await?;
    global.printer()?.print(&Answer::Delete(answer))
}

pub async fn compaction(global: &Global, args: Compaction) -> Result<(), Failure> {
    let [revision] = args.revision.as_slice() else {
        return Err(Failure::args("compaction command needs 1 argument"));
    };
    let revision = go::int_of(revision, 10).map_err(Failure::error)?;
    global.client().await?.compact(revision, args.physical).await?;
    println!("compacted revision {revision}");
    Ok(())
}

/// An argument's bytes; keys and values need not be text.
pub fn bytes(argument: OsString) -> Bytes {
    argument.into_vec().into()
}

/// The key and range end that the arguments of `command` mean.
pub fn span(command: &str, keys: Vec<OsString>, prefix: bool, from_key: bool) -> Result<(Bytes, Bytes), Failure> {
    if prefix && from_key {
        return Err(Failure::args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    let given = keys.len();
    let mut keys = keys.into_iter().map(bytes);
    let (key, end) = match (given, keys.next(), keys.next()) {
        (1 | 2, Some(key), end) => (key, end),
        // As etcdctl has it, get alone passes over further words.
        (_, Some(key), end) if command == "get" => (key, end),
        _ => {
            let text = format!("{command} command needs one argument as key and an optional argument as range_end");
            return Err(Failure::args(text));
        }
    };
    let zero = || Bytes::from_static(OPEN_END);
    match (prefix || from_key, end) {
        (true, Some(_)) => {
            Err(Failure::args("too many arguments, only accept one argument when `--prefix` or `--from-key` is set"))
        }
        // The empty key means "from the very first" here; on the wire that is a zero byte.
        (true, None) if key.is_empty() => Ok((zero(), zero())),
        (true, None) if prefix => Ok((key.clone(), end_of_prefix(&key))),
        (true, None) => Ok((key, zero())),
        (false, end) => Ok((key, end.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_ranges() {
        let span =
            |keys: &[&str], prefix, from_key| span("get", keys.iter().map(OsString::from).collect(), prefix, from_key);
        let pair = |key: &'static str, end: &'static str| Ok((Bytes::from(key), Bytes::from(end)));
        assert_eq!(span(&["a"], false, false), pair("a", ""));
        assert_eq!(span(&["a", "c"], false, false), pair("a", "c"));
        assert_eq!(span(&["a"], true, false), pair("a", "b"));
        assert_eq!(span(&[""], true, false), pair("\0", "\0"));
        assert_eq!(span(&["a"], false, true), pair("a", "\0"));
        assert!(span(&[], false, false).is_err());
        assert_eq!(span(&["a", "b", "c"], false, false), pair("a", "b"));
        assert!(span(&["a", "b"], true, false).is_err());
        assert!(span(&["a"], true, true).is_err());
    }
}
