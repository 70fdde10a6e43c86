//! What survives a crash, and that it does so again from the same seed.

use super::*;

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn synced_data_survives_and_unsynced_writes_go_sector_by_sector() {
    let mut seen = BTreeMap::new();
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut file = disk.create(Path::new("/file")).unwrap();
        file.write_at(0, &[1; 1024]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(500, &[2; 524]).unwrap();
        disk.fork(seed).crash();
        disk.crash();
        assert!(file.len().is_err(), "a file from before the crash");
        let bytes = content(&disk, "/file");
        assert_eq!((&bytes[..500], bytes.len()), (&[1; 500][..], 1024));
        assert!(bytes[500..512].iter().all(|byte| *byte == bytes[500]));
        assert!(bytes[512..].iter().all(|byte| *byte == bytes[512]));
        *seen.entry((bytes[500], bytes[512])).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 4, "each sector may be lost or kept: {seen:?}");
}

#[test]
fn a_name_is_durable_only_after_its_folders_are_synced() {
    let survivals = |sync: bool| {
        (0..100)
            .filter(|&seed| {
                let disk = SimDisk::new(seed);
                disk.create(Path::new("/draft")).unwrap();
                disk.sync_dir(Path::new("/")).unwrap();
                disk.rename(Path::new("/draft"), Path::new("/name")).unwrap();
                if sync {
                    disk.sync_dir(Path::new("/")).unwrap();
                }
                disk.crash();
                disk.open(Path::new("/name")).is_ok()
            })
            .count()
    };
    assert_eq!(survivals(true), 100);
    assert!((20..80).contains(&survivals(false)));
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let after = |seed| {
        let disk = SimDisk::new(seed);
        let mut file = disk.create(Path::new("/file")).unwrap();
        file.allocate(8192).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        for at in 0..8 {
            file.write_at(at * 700, &[at as u8 + 1; 1500]).unwrap();
        }
        disk.crash();
        content(&disk, "/file")
    };
    assert_eq!(after(7), after(7));
    assert!((0..20).any(|seed| after(seed) != after(7)));
}

#[test]
fn failures_come_when_asked_for_and_a_failed_sync_loses_the_data() {
    let disk = SimDisk::new(1);
    let mut file = disk.create(Path::new("/file")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.slow(Duration::from_millis(3));
    disk.fail_write(1, io::ErrorKind::StorageFull);
    disk.fail_sync(0, io::ErrorKind::Other);
    file.write_at(0, &[1; 8]).unwrap();
    assert_eq!(file.write_at(8, &[2; 8]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(content(&disk, "/file").len(), 12);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!((disk.take_delay(), disk.counts()), (Duration::from_millis(12), (2, 2)));
    disk.crash();
    assert!(content(&disk, "/file").is_empty());
}
