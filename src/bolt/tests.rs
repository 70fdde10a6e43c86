//! Files of bbolt and our own: read as they were written, and refused when damaged.

use super::{
    page::{Kind, META, Meta, put_header},
    *,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, io::Cursor, ops::ControlFlow};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Rows>;

fn write(buckets: &Buckets) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut out).expect("memory");
    for (name, rows) in buckets {
        writer.bucket(name).expect("in order");
        for (key, value) in rows {
            writer.put(key, value).expect("in order");
        }
    }
    let bytes = writer.finish().expect("memory");
    let out = out.into_inner();
    assert_eq!(out.len() as u64, bytes);
    out
}

fn read(file: &[u8]) -> Result<Buckets> {
    let reader = Reader::open(file)?;
    let mut buckets = Buckets::new();
    for bucket in reader.buckets()? {
        let mut rows = Rows::new();
        reader.scan(&bucket, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        buckets.insert(bucket.name, rows);
    }
    Ok(buckets)
}

fn numbered(count: u32, value: &[u8]) -> Rows {
    (0..count).map(|number| (number.to_be_bytes().to_vec(), value.to_vec())).collect()
}

fn example() -> Buckets {
    let named = [
        ("empty", Rows::new()),
        ("huge", numbered(3, &vec![b'h'; 3 * PAGE_BYTES])),
        ("inline", numbered(2, b"small")),
        ("many", numbered(30_000, b"some value")),
        ("one page", numbered(40, &[b'v'; 50])),
    ];
    named.into_iter().map(|(name, rows)| (name.as_bytes().to_vec(), rows)).collect()
}

#[test]
fn what_was_written_is_read() {
    for buckets in [Buckets::new(), example()] {
        assert_eq!(read(&write(&buckets)).expect("sound"), buckets);
    }
}

/// bbolt 1.5.0, pages of 1024 bytes: `large` (300 keys, some deleted again), `small` (3 keys, inline), `empty`, `long` (3000 bytes).
#[test]
fn a_file_of_bbolt_is_read() {
    let buckets = read(include_bytes!("testdata/bbolt-1.5.0.db")).expect("sound");
    let names = buckets.keys().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>();
    assert_eq!(names, ["empty", "large", "long", "small"]);
    let expected = (0..300).filter(|number| number % 7 != 0);
    let expected =
        expected.map(|number| (format!("key{number:04}").into_bytes(), format!("value{number}").into_bytes()));
    assert_eq!(buckets[&b"large"[..]], expected.collect());
    assert_eq!(buckets[&b"long"[..]], Rows::from([(b"k".to_vec(), vec![b'x'; 3_000])]));
    assert_eq!(buckets[&b"small"[..]].len(), 3);
    assert!(buckets[&b"empty"[..]].is_empty());
}

/// The bytes of a small file, page by page: whoever changes them must have asked bbolt what it thinks of it.
#[test]
fn a_small_file_has_these_bytes() {
    let rows = Rows::from([(b"a".to_vec(), b"1".to_vec()), (b"bc".to_vec(), Vec::new())]);
    let file = write(&Buckets::from([(b"meta".to_vec(), rows)]));
    let hex = |range: std::ops::Range<usize>| file[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(file.len(), 4 * PAGE_BYTES);
    let meta = "edda0ced02000000001000000000000002000000000000000000000000000000030000000000000004000000000000000000000000000000";
    assert_eq!(hex(0..16), "00000000000000000400000000000000");
    assert_eq!(hex(16..16 + META - 8), meta);
    assert_eq!(hex(PAGE_BYTES..PAGE_BYTES + 16), "01000000000000000400000000000000");
    let root = concat!(
        "0200000000000000",
        "0200",
        "0100",
        "00000000",
        "01000000",
        "10000000",
        "04000000",
        "44000000",
        "6d657461",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0200",
        "0200",
        "00000000",
        "00000000",
        "20000000",
        "01000000",
        "01000000",
        "00000000",
        "12000000",
        "02000000",
        "00000000",
        "6131",
        "6263",
    );
    assert_eq!(hex(2 * PAGE_BYTES..2 * PAGE_BYTES + root.len() / 2), root);
    assert_eq!(hex(3 * PAGE_BYTES..3 * PAGE_BYTES + 16), "03000000000000001000000000000000");
}

#[test]
fn no_branch_has_a_single_child() {
    // Keys so long that a branch holds two or three; counts around every border of a level.
    for count in 1..40_u8 {
        let rows = (0..count).map(|number| ([&[number][..], &[b'k'; 1_500]].concat(), vec![b'v'; 3_000])).collect();
        let buckets = Buckets::from([(b"b".to_vec(), rows)]);
        let file = write(&buckets);
        let branches =
            file.chunks(PAGE_BYTES).filter(|page| page[8..10] == [1, 0] && page[16..] != [0; PAGE_BYTES - 16]);
        for branch in branches.filter(|page| u64::from_le_bytes(page[..8].try_into().expect("8")) < 1_000) {
            assert!(u16::from_le_bytes([branch[10], branch[11]]) >= 2, "{count} keys");
        }
        assert_eq!(read(&file).expect("sound"), buckets);
    }
}

#[test]
fn keys_out_of_order_are_refused() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).expect("memory");
    assert!(writer.put(b"a", b"").is_err());
    writer.bucket(b"b").expect("the first");
    writer.put(b"b", b"").expect("the first");
    for (key, word) in [(&b"b"[..], "not after"), (b"a", "not after"), (b"", "empty"), (&[b'z'; 40_000], "too long")] {
        let text = writer.put(key, b"").expect_err("refused").to_string();
        assert!(text.contains(word), "{text}");
    }
    writer.bucket(b"a").expect("noticed when it ends");
    assert!(writer.finish().is_err());
}

#[test]
fn the_older_meta_page_stands_in_for_a_torn_one() {
    let mut file = write(&example());
    file[16 + 20] ^= 1;
    assert_eq!(read(&file).expect("the second is whole"), example());
    file[PAGE_BYTES + 16 + 20] ^= 1;
    let text = read(&file).expect_err("neither is whole").to_string();
    assert!(text.contains("no bbolt database: its checksum is wrong"), "{text}");
}

#[test]
fn other_files_and_cut_ones_are_refused() {
    for file in [&b""[..], b"short", &[0; 100_000], &[0xff; 100_000]] {
        assert!(matches!(read(file), Err(Error::Foreign(_))));
    }
    let file = write(&example());
    let text = read(&file[..file.len() - 1]).expect_err("too short").to_string();
    assert!(text.contains("the file ends here"), "{text}");
}

#[test]
fn pages_that_refer_to_each_other_end_in_an_error() {
    let mut file = write(&example());
    let is_branch = |page: &[u8]| page[8..12] != [0; 4] && page[8..10] == [1, 0];
    let at = (2..file.len() / PAGE_BYTES).find(|at| {
        let page = &file[at * PAGE_BYTES..][..PAGE_BYTES];
        is_branch(page) && u64::from_le_bytes(page[..8].try_into().expect("8")) == *at as u64
    });
    let at = at.expect("many keys need a branch");
    file[at * PAGE_BYTES + 16 + 8..][..8].copy_from_slice(&(at as u64).to_le_bytes());
    let text = read(&file).expect_err("a circle").to_string();
    assert!(text.contains("deeper than any") && text.contains("byte"), "{text}");
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..max)
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let value = prop_oneof![8 => bytes(300), 1 => bytes(2 * PAGE_BYTES), 1 => Just(Vec::new())];
    let key = prop_oneof![8 => bytes(30), 1 => bytes(3_000)];
    let rows = proptest::collection::btree_map(key, value, 0..120);
    proptest::collection::btree_map(bytes(20), rows, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_buckets_are_read_as_they_were_written(buckets in buckets()) {
        prop_assert_eq!(read(&write(&buckets)).expect("sound"), buckets);
    }

    /// Changed bytes give an error or other rows, but never a panic, and never more than the file could hold.
    #[test]
    fn no_damage_makes_the_reader_panic(
        buckets in buckets(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        fields in proptest::collection::vec((any::<prop::sample::Index>(), 0..64_usize, any::<u32>()), 0..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut file = write(&buckets);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        // Headers and elements deserve more than their share.
        for (page, word, number) in fields {
            let at = page.index(file.len() / PAGE_BYTES) * PAGE_BYTES + word * 4;
            file[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let _ = read(&file);
        file.truncate(end.index(file.len()));
        let _ = read(&file);
    }
}

/// Branches that each go on to the end of the file, one below the other: a walk held 60 times the file, and would have read it as often.
#[test]
fn pages_that_overlap_are_damage_before_they_take_more_than_the_file() {
    const DEPTH: u64 = 60;
    let page_bytes = PAGE_BYTES as u64;
    let pages = DEPTH + 3;
    let mut file = vec![0; (pages * page_bytes) as usize];
    let meta = Meta { page_bytes: PAGE_BYTES as u32, root: 2, freelist: 2, pages, transaction: 1 };
    for id in 0..2 {
        let mut page = Vec::new();
        put_header(&mut page, id, Kind::Meta, 0, 0);
        page.extend_from_slice(&meta.encode());
        file[(id * page_bytes) as usize..][..page.len()].copy_from_slice(&page);
    }
    for id in 2..pages {
        let mut page = Vec::new();
        put_header(&mut page, id, Kind::Branch, 1, (pages - id - 1) as u32);
        page.extend_from_slice(&[0; 8]);
        page.extend_from_slice(&(id + 1).min(pages - 1).to_le_bytes());
        file[(id * page_bytes) as usize..][..page.len()].copy_from_slice(&page);
    }
    let refused = read(&file).expect_err("no tree is like that").to_string();
    assert!(refused.contains("pages that overlap"), "{refused}");
}

/// A leaf whose values all go on to its end: a file of some kilobytes would be shown as hundreds of them.
#[test]
fn items_that_share_their_bytes_are_damage_before_they_are_more_than_the_file() {
    const ROWS: u32 = 140;
    let mut file = write(&Buckets::from([(b"key".to_vec(), numbered(ROWS, &[b'v'; 5]))]));
    for at in 0..ROWS as usize {
        let (element, leaf) = (16 + 16 * at, &mut file[2 * PAGE_BYTES..3 * PAGE_BYTES]);
        let position = u32::from_le_bytes(leaf[element + 4..][..4].try_into().unwrap()) as usize;
        let rest = PAGE_BYTES - (element + position + 4);
        leaf[element + 12..][..4].copy_from_slice(&(rest as u32).to_le_bytes());
    }
    let refused = read(&file).expect_err("no leaf is like that").to_string();
    assert!(refused.contains("items that overlap"), "{refused}");
}
