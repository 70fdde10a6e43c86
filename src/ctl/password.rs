//! Passwords that are asked for: typed on a terminal without being shown, or the next line of whatever else standard input is.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Asks, and waits for a line. As in etcdctl blanks around a password are no part of it, and the end of the input is an empty one.
pub fn ask(prompt: &str) -> io::Result<String> {
    if io::stdin().is_terminal() {
        return rpassword::prompt_password(prompt);
    }
    print!("{prompt}");
    io::stdout().flush()?;
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    println!();
    let line = String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))?;
    Ok(line.trim().to_owned())
}
