//! Passwords: bcrypt, in the form that etcd keeps. Hashing takes tens of milliseconds on purpose; callers do it where it may block.

use crate::types::Error;
use bcrypt::Version;
use bytes::Bytes;

/// `bcrypt-cost`: the least, the usual and the highest.
pub const COST_MIN: u32 = 4;
/// What holds if nothing is said, or nonsense.
pub const COST_DEFAULT: u32 = 10;
/// A hash of this cost takes days.
pub const COST_MAX: u32 = 31;

/// Salt and hash that no password has, to take as long for a user that does not exist as for one that does.
const NOBODYS: &str = "7EqJtq98hPqEX7fNZaFWoOhi5Cr7RZ0Yf8L4jAIq5bVkJz4qQ4x2e";

/// The hash of `password`, made with `salt`.
///
/// # Errors
/// [`Error::Invalid`] for a password above 72 bytes: bcrypt does not look further. etcd words it so.
pub fn hash(password: &[u8], cost: u32, salt: [u8; 16]) -> Result<Bytes, Error> {
    if password.len() > 72 {
        return Err(Error::Invalid("bcrypt: password length exceeds 72 bytes".to_owned()));
    }
    let parts = bcrypt::hash_with_salt(password, within(cost), salt);
    let parts = parts.map_err(|error| Error::Invalid(format!("the password cannot be hashed: {error}")))?;
    Ok(parts.format_for_version(Version::TwoA).into())
}

fn within(cost: u32) -> u32 {
    if (COST_MIN..=COST_MAX).contains(&cost) { cost } else { COST_DEFAULT }
}

/// Whether `password` has this hash. Without one it takes as long as with one of that `cost`, and is false.
pub fn matches(password: &[u8], hash: Option<&[u8]>, cost: u32) -> bool {
    let known = hash.and_then(|hash| std::str::from_utf8(hash).ok()).filter(|hash| !hash.is_empty());
    match known {
        Some(known) => bcrypt::verify(password, known).unwrap_or(false),
        None => {
            let _ = bcrypt::verify(password, &nobodys(cost));
            false
        }
    }
}

fn nobodys(cost: u32) -> String {
    format!("$2a${:02}${NOBODYS}", within(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_its_hash_and_no_other() {
        let own = hash(b"secret", COST_MIN, [7; 16]).expect("short enough");
        assert!(own.starts_with(b"$2a$04$"), "Go reads no other version");
        let has = |password: &[u8], hash: Option<&[u8]>| matches(password, hash, COST_MIN);
        assert!(has(b"secret", Some(&own)) && !has(b"Secret", Some(&own)));
        assert!(!has(b"secret", None) && !has(b"secret", Some(b"")) && !has(b"", Some(b"nonsense")));
        assert!(bcrypt::verify("x", &nobodys(COST_MIN)).is_ok(), "it costs as much as a real one");
        assert!(hash(&[b'x'; 73], COST_MIN, [7; 16]).is_err());
    }

    #[test]
    fn a_hash_of_another_program_is_read() {
        // Of the paper's reference implementation; Go's test has it as well.
        let known = b"$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(matches(b"allmine", Some(known), COST_MIN) && !matches(b"notmine", Some(known), COST_MIN));
    }
}
