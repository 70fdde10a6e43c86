use super::*;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn file(tree: &mut Tree, parent: Ino, text: &str, bytes: &[u8]) -> Ino {
    let ino = tree.create(parent, name(text), false, 0o600).expect("it is new");
    tree.change(ino).expect("it is a file").write(0, bytes);
    ino
}

fn holds(tree: &Tree, parent: Ino, text: &str) -> Option<Vec<u8>> {
    let ino = tree.lookup(parent, name(text)).ok()?;
    Some(tree.file(ino).expect("it is a file").read(0, 1000))
}

#[test]
fn a_synced_file_is_there_after_a_cut_with_all_folders_above_it() {
    let mut tree = Tree::new();
    let data = tree.create(ROOT, name("data"), true, 0o700).expect("it is new");
    let wal = tree.create(data, name("wal"), true, 0o700).expect("it is new");
    let log = file(&mut tree, wal, "log", b"abc");
    file(&mut tree, wal, "other", b"never synced");
    tree.sync_file(log).expect("it is a file");
    assert!(tree.power_cut(None) > 0);
    let data = tree.lookup(ROOT, name("data")).expect("its child was synced");
    let wal = tree.lookup(data, name("wal")).expect("its child was synced");
    assert_eq!(holds(&tree, wal, "log").as_deref(), Some(&b"abc"[..]));
    assert_eq!(holds(&tree, wal, "other"), None);
}

#[test]
fn a_synced_folder_keeps_names_but_not_content() {
    let mut tree = Tree::new();
    file(&mut tree, ROOT, "empty", b"not synced");
    tree.sync_folder(ROOT).expect("it is a folder");
    tree.power_cut(None);
    assert_eq!(holds(&tree, ROOT, "empty").as_deref(), Some(&b""[..]));
}

#[test]
fn a_removed_file_comes_back_unless_its_folder_was_synced() {
    let mut tree = Tree::new();
    for (synced, expected) in [(false, Some(&b"x"[..])), (true, None)] {
        if tree.lookup(ROOT, name("f")).is_err() {
            file(&mut tree, ROOT, "f", b"x");
        }
        let ino = tree.lookup(ROOT, name("f")).expect("it is there");
        tree.sync_file(ino).expect("it is a file");
        tree.remove(ROOT, name("f"), false).expect("it is there");
        assert_eq!(holds(&tree, ROOT, "f"), None);
        if synced {
            tree.sync_folder(ROOT).expect("it is a folder");
        }
        tree.power_cut(None);
        assert_eq!(holds(&tree, ROOT, "f").as_deref(), expected);
    }
}

#[test]
fn a_rename_is_kept_or_lost_as_a_whole() {
    for sync in [None, Some("from"), Some("to"), Some("file")] {
        let mut tree = Tree::new();
        let from = tree.create(ROOT, name("from"), true, 0o700).expect("it is new");
        let to = tree.create(ROOT, name("to"), true, 0o700).expect("it is new");
        let ino = file(&mut tree, from, "f", b"new");
        let old = file(&mut tree, to, "g", b"old");
        tree.sync_folder(ROOT).expect("it is a folder");
        for ino in [ino, old] {
            tree.sync_file(ino).expect("it is a file");
        }
        tree.rename((from, name("f")), (to, name("g")), false).expect("it is there");
        match sync {
            None => Ok(()),
            Some("from") => tree.sync_folder(from),
            Some("to") => tree.sync_folder(to),
            Some(_) => tree.sync_file(ino),
        }
        .expect("it is there");
        tree.power_cut(None);
        let (from, to) = (tree.lookup(ROOT, name("from")), tree.lookup(ROOT, name("to")));
        let (from, to) = (from.expect("it was synced"), to.expect("it was synced"));
        let found = (holds(&tree, from, "f"), holds(&tree, to, "g"));
        match sync {
            None => assert_eq!(found, (Some(b"new".to_vec()), Some(b"old".to_vec()))),
            Some(_) => assert_eq!(found, (None, Some(b"new".to_vec())), "after syncing {sync:?}"),
        }
    }
}

#[test]
fn a_removed_file_that_is_open_can_still_be_read() {
    let mut tree = Tree::new();
    let ino = file(&mut tree, ROOT, "f", b"x");
    tree.node_mut(ino).expect("it is there").open += 1;
    tree.remove(ROOT, name("f"), false).expect("it is there");
    assert_eq!(tree.file(ino).expect("it is open").read(0, 9), b"x");
    tree.close(ino);
    assert!(tree.node(ino).is_err());
}

#[test]
fn a_full_disk_refuses_what_is_new() {
    let mut tree = Tree::new();
    tree.full = true;
    assert!(tree.create(ROOT, name("f"), false, 0o600).is_err());
}

#[test]
fn a_torn_cut_never_loses_what_was_synced() {
    for seed in 0..100 {
        let mut tree = Tree::new();
        let data = tree.create(ROOT, name("data"), true, 0o700).expect("it is new");
        let ino = file(&mut tree, data, "f", b"first");
        tree.sync_file(ino).expect("it is a file");
        file(&mut tree, data, "g", b"unsynced");
        tree.power_cut(Some(&mut Random::new(seed)));
        let data = tree.lookup(ROOT, name("data")).expect("its child was synced");
        assert_eq!(holds(&tree, data, "f").as_deref(), Some(&b"first"[..]));
    }
}
