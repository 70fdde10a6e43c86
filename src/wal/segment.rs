//! Segment files: their names, and the chain that the names must form.

use super::Index;
use crate::{io::Disk, types::Fault};
use std::path::{Path, PathBuf};

/// Where the next segment is made ready. Names that end in `.tmp` are leftovers for every reader, etcd's tools included.
pub(super) const NEXT: &str = "next.tmp";

/// What a segment is called while its space is given back. Under its own name it would have to be whole.
pub(super) const GONE: &str = "gone.tmp";

/// A segment's name: `{sequence:016x}-{first index:016x}.wal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// Counts up by one from segment to segment.
    pub sequence: u64,
    /// Index that follows the last live entry of the segments before. Entries that overwrite may lie below it.
    pub first: Index,
}

impl Segment {
    pub fn name(self) -> String {
        format!("{:016x}-{:016x}.wal", self.sequence, self.first.0)
    }

    fn parse(name: &str) -> Option<Segment> {
        let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
        let hex = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        let segment = Segment { sequence: hex(sequence)?, first: Index(hex(first)?) };
        // Upper case or a sign would parse too, and then name a second file for the same segment.
        (segment.name() == name).then_some(segment)
    }
}

/// The segments in `dir` by sequence. Other names are left alone.
pub(super) fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Segment>, Fault> {
    let names = disk.list(dir).map_err(|source| Fault::io("list", dir, source))?;
    let mut segments: Vec<Segment> =
        names.iter().filter_map(|path| Segment::parse(path.file_name()?.to_str()?)).collect();
    segments.sort();
    Ok(segments)
}

/// A hole in the sequence means that a file was removed behind our back, and with it entries.
pub(super) fn check_chain(dir: &Path, segments: &[Segment]) -> Result<(), Fault> {
    for pair in segments.windows(2) {
        if Some(pair[1].sequence) != pair[0].sequence.checked_add(1) {
            let what = format!("the segment after {} is missing; restore it or this member", pair[0].name());
            return Err(Fault::Damaged { path: path(dir, pair[1]), offset: None, what });
        }
    }
    Ok(())
}

pub(super) fn path(dir: &Path, segment: Segment) -> PathBuf {
    dir.join(segment.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_etcds() {
        let segment = Segment { sequence: 1, first: Index(0x4bad) };
        assert_eq!(segment.name(), "0000000000000001-0000000000004bad.wal");
        assert_eq!(Segment::parse(&segment.name()), Some(segment));
        for other in
            ["0000000000000001-0000000000004BAD.wal", "next.tmp", "1-2.wal", "+000000000000001-0000000000004bad.wal"]
        {
            assert_eq!(Segment::parse(other), None, "{other}");
        }
    }
}
