//! What the system refuses and how programs end, in the words of Go's library: scripts for etcdctl read them.

use crate::go::quote;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::{
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// A path, which may be empty: the system has its own word for that.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Why the system refused.
pub fn cause(error: &io::Error) -> String {
    of_system(error.to_string())
}

/// What other rooms say of the system's refusals, without what Go's library does not say: numbers, and capitals.
pub fn of_system(text: String) -> String {
    let Some((before, after)) = text.split_once(" (os error ") else { return text };
    let Some((_, after)) = after.split_once(')') else { return text };
    let start = before.rfind([':', '(']).map_or(0, |at| at + 1);
    format!("{}{}{after}", &before[..start], before[start..].to_lowercase())
}

/// Why the system refused to do `what` with a file.
pub fn refused(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{what} {}: {}", path.display(), cause(error))
}

/// Why a program could not be started.
pub fn not_started(program: &std::ffi::OsStr, error: &io::Error) -> String {
    let (name, is_path) = (program.to_string_lossy(), program.as_bytes().contains(&b'/'));
    match error.kind() {
        ErrorKind::NotFound if !is_path => {
            format!("exec: {}: executable file not found in $PATH", quote(program.as_bytes()))
        }
        _ => format!("fork/exec {name}: {}", cause(error)),
    }
}

/// How a program ended that did not succeed.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            let name = SIGNALS.iter().find(|(number, _)| *number == signal);
            let name = name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned());
            format!("signal: {name}{core}")
        }
        (None, None) => status.to_string(),
    }
}

const SIGNALS: [(i32, &str); 15] = [
    (1, "hangup"),
    (2, "interrupt"),
    (3, "quit"),
    (4, "illegal instruction"),
    (5, "trace/breakpoint trap"),
    (6, "aborted"),
    (7, "bus error"),
    (8, "floating point exception"),
    (9, "killed"),
    (10, "user defined signal 1"),
    (11, "segmentation fault"),
    (12, "user defined signal 2"),
    (13, "broken pipe"),
    (14, "alarm clock"),
    (15, "terminated"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_told_in_gos_words() {
        let missing = std::fs::File::open("/no/such/file").expect_err("nothing there");
        assert_eq!(refused("open", Path::new("/a"), &missing), "open /a: no such file or directory");
        assert_eq!(of_system(format!("cannot (/A: {missing})")), "cannot (/A: no such file or directory)");
        assert_eq!(of_system("Nothing of it".to_owned()), "Nothing of it");
        assert_eq!(not_started("a b".as_ref(), &missing), "exec: \"a b\": executable file not found in $PATH");
        assert_eq!(not_started("/a".as_ref(), &missing), "fork/exec /a: no such file or directory");
        assert_eq!(ended(ExitStatus::from_raw(15)), "signal: terminated");
        assert_eq!(ended(ExitStatus::from_raw(134)), "signal: aborted (core dumped)");
        assert_eq!(ended(ExitStatus::from_raw(2 << 8)), "exit status 2");
    }
}
