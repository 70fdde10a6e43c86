//! Any bytes as a database: it is read or refused, and what was read can be written again.

use super::{
    Error, PAGE_BYTES, Reader, Writer,
    page::{HEADER, META, fnv1a},
};
use std::{collections::BTreeMap, io::Cursor, ops::ControlFlow};

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Bits of the first byte.
const RESEALED: u8 = 1;

/// The same file with meta pages whose checksums fit, so that what they say matters.
pub(crate) fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    const FIRST: usize = HEADER + 8;
    let size = file.get(FIRST..FIRST + 4).and_then(|size| size.try_into().ok()).map_or(0, u32::from_le_bytes);
    for at in [0, size as usize] {
        if let Some(meta) = file.get_mut(at..).and_then(|page| page.get_mut(HEADER..HEADER + META)) {
            let sum = fnv1a(&meta[..META - 8]);
            meta[META - 8..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    file
}

/// All that a file holds.
fn read(file: &[u8]) -> Result<Buckets, Error> {
    let reader = Reader::open(file)?;
    let mut buckets = Buckets::new();
    for bucket in reader.buckets()? {
        let rows = buckets.entry(bucket.name.clone()).or_default();
        let mut bytes = 0;
        reader.scan(&bucket, &mut |key, value| {
            bytes += key.len() + value.len();
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        assert!(bytes <= file.len(), "{bytes} bytes of rows in a file of {}", file.len());
    }
    Ok(buckets)
}

fn write(buckets: &Buckets) -> Result<Vec<u8>, Error> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut out)?;
    for (name, rows) in buckets {
        writer.bucket(name)?;
        rows.iter().try_for_each(|(key, value)| writer.put(key, value))?;
    }
    writer.finish()?;
    Ok(out.into_inner())
}

/// Reads the file that `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some((how, file)) = data.split_first() else { return };
    let file = if how & RESEALED != 0 { resealed(file.to_vec()) } else { file.to_vec() };
    let Ok(buckets) = read(&file) else { return };
    match write(&buckets) {
        Ok(file) => assert_eq!(read(&file).expect("it has just been written"), buckets),
        // A key that is longer than bbolt takes.
        Err(Error::Refused { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// A file of bbolt's, and small ones of our own with trees of each shape.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let rows = |count: u32, bytes: usize| {
        (0..count).map(|number| (number.to_be_bytes().to_vec(), vec![b'v'; bytes])).collect::<BTreeMap<_, _>>()
    };
    let shapes = [rows(0, 0), rows(2, 5), rows(3, PAGE_BYTES), rows(40, 50), rows(400, 20)];
    let mut files = shapes.map(|rows| write(&Buckets::from([(b"key".to_vec(), rows)])).expect("memory")).to_vec();
    files.push(include_bytes!("testdata/bbolt-1.5.0.db").to_vec());
    files.into_iter().map(|file| [&[RESEALED][..], &file].concat()).collect()
}
