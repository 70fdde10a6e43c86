//! Checked iteration over one segment's bytes, and what the bytes around a bad spot tell about its cause.
//!
//! A sector (512 bytes) reaches the medium whole or not at all, and holds every write to it up to some moment. Hence what a
//! crash leaves of an unsynced write is sectors of it missing (still the zeros of preallocation), never half a sector.

use super::record::{self, Kind, PREFIX_MAX, Record, WORD};

const SECTOR: usize = 512;
const ZEROS: [u8; 4096] = [0; 4096];

/// What stands in the way of the next record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where the record starts.
    pub offset: usize,
    pub what: &'static str,
    /// Whether missing sectors explain it. If not, bytes have changed.
    pub torn: bool,
}

/// Walks the records of one segment, checking each.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// End of the last good record.
    pub offset: usize,
    /// Checksum so far; `None` until the first record has brought the seed.
    pub crc: Option<u32>,
}

impl<'a> Reader<'a> {
    /// `crc` is where the segment before ended; `None` believes the seed in this one.
    pub fn new(bytes: &'a [u8], crc: Option<u32>) -> Reader<'a> {
        Reader { bytes, offset: 0, crc }
    }

    /// The next record, or `None` at the end: the end of the file or a zero word followed by a zero rest of its sector.
    pub fn next(&mut self) -> Result<Option<Record<'a>>, Damage> {
        let rest = &self.bytes[self.offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let Some(word) = rest.first_chunk::<WORD>() else {
            return if rest.iter().all(|&byte| byte == 0) {
                Ok(None)
            } else {
                Err(self.incomplete("half a length word"))
            };
        };
        if *word == [0; WORD] {
            return if self.sector_rest_is_zero() {
                Ok(None)
            } else {
                Err(self.changed("a length of zero before data"))
            };
        }
        let Some((len, padding)) = record::split_word(u64::from_le_bytes(*word)) else {
            return Err(self.changed("an impossible length"));
        };
        let Some(end) = len.checked_add(padding + WORD).filter(|&end| end <= rest.len()) else {
            return Err(self.incomplete("a record that ends after the file"));
        };
        let prefix = match record::prefix(&rest[WORD..WORD + len]) {
            Some(prefix) if prefix.len.checked_add(prefix.data_len) == Some(len) => prefix,
            _ if self.prefix_may_be_missing() => return Err(self.bad(end, "a record without a beginning")),
            // The prefix shares its sector with the length word: if one is there, so is the other.
            _ => return Err(self.changed("a record whose fields contradict its length")),
        };
        let data = &rest[WORD + prefix.len..WORD + len];
        self.check_sum(&prefix, data, end)?;
        if rest[WORD + len..end].iter().any(|&byte| byte != 0) {
            return Err(self.changed("padding that is not zero"));
        }
        self.crc = Some(prefix.crc);
        self.offset += end;
        Ok(Some(Record { kind: prefix.kind, crc: prefix.crc, data }))
    }

    fn check_sum(&self, prefix: &record::Prefix, data: &[u8], end: usize) -> Result<(), Damage> {
        match self.crc {
            Some(crc) if crc32c::crc32c_append(crc, data) == prefix.crc => Ok(()),
            // A barrier has no data, so no sector of it can be missing.
            Some(_) if prefix.kind == Kind::Crc => Err(self.changed("a checksum that does not continue the log")),
            Some(_) => Err(self.bad(end, "a checksum that does not match")),
            None if prefix.kind == Kind::Crc => Ok(()),
            None => Err(self.changed("a segment that does not start with a checksum")),
        }
    }

    /// Bytes from the current position to the last one that is set.
    pub fn data_after(&self) -> Option<usize> {
        let rest = &self.bytes[self.offset..];
        // By pages first: most of a preallocated segment is zeros.
        let pages = rest.chunks(ZEROS.len()).rposition(|page| page != &ZEROS[..page.len()])?;
        let end = (pages + 1) * ZEROS.len();
        rest[..end.min(rest.len())].iter().rposition(|&byte| byte != 0).map(|at| at + 1)
    }

    /// Looks for a barrier after the current position. The writer puts one at the start of the first batch after a sync, so
    /// finding one proves that all before it had been synced: a bad record there is damage, never a torn write.
    ///
    /// A barrier counts together with the record after it, whose checksum continues the barrier's.
    pub fn barrier_after(&self) -> Option<usize> {
        (self.offset + WORD..self.bytes.len().saturating_sub(WORD)).step_by(WORD).find(|&at| {
            // Most of what is scanned is zeros or data: decide on the three fixed bytes first.
            if self.bytes[at + WORD..].get(..3) != Some(&[0x08, Kind::Crc as u8, 0x10]) {
                return false;
            }
            let Some(barrier) = frame(&self.bytes[at..]).filter(|frame| frame.kind == Kind::Crc) else { return false };
            let mut after = Reader { bytes: self.bytes, offset: at, crc: Some(barrier.crc) };
            after.next().is_ok() && matches!(after.next(), Ok(Some(_)))
        })
    }

    fn sector_rest_is_zero(&self) -> bool {
        let end = (self.offset + 1).next_multiple_of(SECTOR).min(self.bytes.len());
        self.bytes[self.offset..end].iter().all(|&byte| byte == 0)
    }

    fn prefix_may_be_missing(&self) -> bool {
        self.offset % SECTOR + WORD + PREFIX_MAX > SECTOR
    }

    fn changed(&self, what: &'static str) -> Damage {
        Damage { offset: self.offset, what, torn: false }
    }

    /// A record that the file is too short for. It is torn if its fields agree with its length, for then the length is
    /// right, and it is the size of the file that did not reach the medium.
    fn incomplete(&self, what: &'static str) -> Damage {
        let rest = &self.bytes[self.offset..];
        let torn = match rest.first_chunk::<WORD>().map(|word| record::split_word(u64::from_le_bytes(*word))) {
            None => true,
            Some(None) => false,
            Some(Some((len, _))) => match record::prefix(&rest[WORD..]) {
                Some(prefix) => prefix.len.checked_add(prefix.data_len) == Some(len),
                None => self.prefix_may_be_missing() || rest.len() < WORD + PREFIX_MAX,
            },
        };
        Damage { offset: self.offset, what, torn }
    }

    /// A record of `len` bytes, word and padding included, with a wrong checksum: torn if a sector of it is missing. The
    /// sector of the length word is not, since the word is there.
    fn bad(&self, len: usize, what: &'static str) -> Damage {
        let first = (self.offset + 1).next_multiple_of(SECTOR);
        let torn = (first..self.offset + len).step_by(SECTOR).any(|start| {
            let end = (start + SECTOR).min(self.bytes.len());
            self.bytes[start..end].iter().all(|&byte| byte == 0)
        });
        Damage { offset: self.offset, what, torn }
    }
}

/// The record at the start of `bytes`, its checksum unchecked.
fn frame(bytes: &[u8]) -> Option<Record<'_>> {
    let (len, _) = record::split_word(u64::from_le_bytes(*bytes.first_chunk::<WORD>()?))?;
    let record = bytes.get(WORD..WORD.checked_add(len)?)?;
    let prefix = record::prefix(record)?;
    (prefix.len.checked_add(prefix.data_len)? == len).then(|| Record {
        kind: prefix.kind,
        crc: prefix.crc,
        data: &record[prefix.len..],
    })
}
