//! The hashes that a real etcd (3.4.23) gave for the same requests, from an empty store on.

use super::*;

fn hash(bench: &Bench, at: i64) -> (u32, i64) {
    let hash = bench.store.reader().hash_kv(Revision(at)).unwrap().unwrap();
    (hash.hash, hash.compact_revision.0)
}

#[test]
fn hash_kv_is_etcds() {
    // Whether a compaction was swept already must not show.
    for sweeps in [true, false] {
        let mut bench = Bench::new();
        let compact = |bench: &mut Bench, at| {
            bench.compact(at).unwrap();
            if sweeps {
                bench.sweep();
            }
        };
        assert_eq!(hash(&bench, 0), (1084519789, -1));
        [("a", "1"), ("b", "2"), ("a", "3")].iter().for_each(|(name, value)| drop(bench.put(name, value)));
        assert_eq!(hash(&bench, 0), (2069675932, -1));
        bench.delete("a");
        bench.put("c", "a longer value");
        bench.write(|txn| {
            txn.put(key("x"), key("1"), LeaseId::NONE).unwrap();
            txn.delete_range(&KeyRange::One(key("b"))).unwrap();
            txn.put(key("y"), key("2"), LeaseId::NONE).unwrap();
        });
        assert_eq!(hash(&bench, 0), (3847547844, -1));
        assert_eq!(hash(&bench, 4), (2069675932, -1));
        bench.write(|txn| drop(txn.put(key("l"), key("leased"), LeaseId(0x390d_a20b_04e6_ec0b)).unwrap()));
        assert_eq!(hash(&bench, 0), (1696055103, -1));
        compact(&mut bench, 5);
        assert_eq!(hash(&bench, 0), (882614666, 5));
        assert_eq!(hash(&bench, 6), (4017676726, 5));
        assert_eq!(bench.store.reader().hash_kv(Revision(4)).unwrap(), Err(Error::Compacted));
        bench.put("b", "9");
        bench.put("b", "10");
        assert_eq!(hash(&bench, 0), (1215913987, 5));
        compact(&mut bench, 10);
        assert_eq!(hash(&bench, 0), (2455936922, 10));
        bench.write(|txn| drop(txn.delete_range(&all()).unwrap()));
        assert_eq!(hash(&bench, 0), (1126655083, 10));
        compact(&mut bench, 11);
        assert_eq!(hash(&bench, 0), (1084519789, 11));
        bench.put("z", "1");
        assert_eq!(hash(&bench, 0), (3615936642, 11));
    }
}

#[test]
fn hash_all_covers_every_table() {
    let mut bench = Bench::new();
    let empty = bench.store.reader().hash_all().unwrap();
    bench.put("a", "1");
    let one = bench.store.reader().hash_all().unwrap();
    bench.compact(2).unwrap();
    let marked = bench.store.reader().hash_all().unwrap();
    assert!(empty != one && one != marked);
}
