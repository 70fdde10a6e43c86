//! What a durable store adds to each value, so that bytes which the disk has changed are never served.

use super::{Result, Table};
use crate::types::Fault;
use bytes::Bytes;
use std::path::Path;

/// Bytes of the trailer.
pub(super) const LEN: usize = 4;

/// CRC32C over table, key and value. The key's length stands between key and value, so that no byte can change sides.
fn sum(table: Table, key: &[u8], value: &[u8]) -> u32 {
    let head = crc32c::crc32c(&[table as u8]);
    let with_key = crc32c::crc32c_append(head, key);
    let with_len = crc32c::crc32c_append(with_key, &(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(with_len, value)
}

/// Puts the value and its trailer into `row`, which is overwritten.
pub(super) fn seal(table: Table, key: &[u8], value: &[u8], row: &mut Vec<u8>) {
    row.clear();
    row.extend_from_slice(value);
    row.extend_from_slice(&sum(table, key, value).to_le_bytes());
}

/// The value of a sealed row.
///
/// # Errors
/// [`Fault::Damaged`] if the trailer does not belong to table, key and value.
pub(super) fn open(table: Table, key: &[u8], row: &[u8], path: &Path) -> Result<Bytes> {
    if let Some((value, trailer)) = row.split_last_chunk::<LEN>()
        && u32::from_le_bytes(*trailer) == sum(table, key, value)
    {
        return Ok(Bytes::copy_from_slice(value));
    }
    Err(Fault::Damaged {
        path: path.to_owned(),
        offset: None,
        what: format!(
            "the row {} of table {table:?} does not match its checksum; this member must be restored from a backup or replaced",
            key.escape_ascii()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let mut row = Vec::new();
        seal(Table::Versions, b"key", b"some value", &mut row);
        let path = Path::new("store");
        assert_eq!(open(Table::Versions, b"key", &row, path).unwrap(), "some value");
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Table::Versions, b"key", &bad, path).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_row_does_not_pass_under_another_name() {
        let mut row = Vec::new();
        seal(Table::Versions, b"key", b"value", &mut row);
        let path = Path::new("store");
        assert!(open(Table::Leases, b"key", &row, path).is_err());
        assert!(open(Table::Versions, b"ke", &row, path).is_err());
        let text = open(Table::Versions, b"k\0", &row[..3], path).unwrap_err().to_string();
        assert!(text.contains("store is damaged") && text.contains("k\\x00"), "{text}");
    }
}
