//! Each target with its seeds, the inputs that are kept in `tests/fuzz/corpus`, and some that chance makes of them.
//!
//! `HENGE_FUZZ_CASES=N` tries so many of the last kind. An input that fails is left in a file, whose name is told.

use super::{TARGETS, Target, target};
use ::rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

/// Longest input that chance makes.
const BYTES_MAX: usize = 64 << 10;
/// Numbers that are seldom meant.
const ODD: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, i64::MAX as u64, u64::MAX];

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input that is kept")).collect()
}

/// Feeds one input. What fails can be looked at afterwards.
fn feed(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.feed)(input))) {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let path = std::env::temp_dir().join(format!("henge-{}-{:016x}", target.name, hasher.finish()));
        let told = fs::write(&path, input).map_or_else(|error| error.to_string(), |()| path.display().to_string());
        eprintln!("the input of {} bytes is in {told}", input.len());
        resume_unwind(panic);
    }
}

/// An input that is like one of these, and like another.
fn changed(inputs: &[Vec<u8>], chance: &mut StdRng) -> Vec<u8> {
    let any = |chance: &mut StdRng| &inputs[chance.random_range(0..inputs.len())];
    let mut input = any(chance).clone();
    for _ in 0..1 << chance.random_range(0..5) {
        let at = chance.random_range(0..=input.len());
        let end = (at + chance.random_range(0..32)).min(input.len());
        match chance.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << chance.random_range(0..8),
            1 if at < input.len() => input[at] = chance.random(),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                let to = chance.random_range(0..=input.len());
                drop(input.splice(to..to, piece));
            }
            4 => {
                let other = any(chance);
                let from = chance.random_range(0..=other.len());
                let piece = other[from..(from + chance.random_range(0..64)).min(other.len())].to_vec();
                drop(input.splice(at..end, piece));
            }
            5 => {
                let number = ODD[chance.random_range(0..ODD.len())];
                let bytes = if chance.random() { number.to_le_bytes() } else { number.to_be_bytes() };
                let width = [1, 2, 4, 8][chance.random_range(0..4)];
                let bytes = if chance.random() { &bytes[..width] } else { &bytes[8 - width..] };
                let end = (at + width).min(input.len());
                drop(input.splice(at..end, bytes.to_vec()));
            }
            6 => {
                let bytes: Vec<u8> = (0..chance.random_range(1..16)).map(|_| chance.random()).collect();
                drop(input.splice(at..at, bytes));
            }
            _ => input.truncate(at.max(input.len() / 2)),
        }
    }
    input.truncate(BYTES_MAX);
    input
}

fn withstands(name: &str) {
    let target = target(name);
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "nothing to begin with");
    inputs.extend(kept(target));
    inputs.iter().for_each(|input| feed(target, input));
    feed(target, b"");
    let cases = std::env::var("HENGE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(target.cases);
    let mut chance = StdRng::seed_from_u64(0x6865_6e67_6521);
    for _ in 0..cases {
        feed(target, &changed(&inputs, &mut chance));
    }
}

/// One test for each, so that they run beside each other.
macro_rules! all {
    ($($name:ident)*) => {
        $(#[test] fn $name() { withstands(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

all! { machine requests wal bolt import gateway config tokens txn peer ring shelf }

#[test]
fn each_target_has_a_test_and_a_program() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let manifest = fs::read_to_string(programs.with_file_name("Cargo.toml")).expect("a manifest");
    for Target { name, .. } in TARGETS {
        assert!(TESTED.contains(name), "{name} is not tested");
        let program = fs::read_to_string(programs.join(format!("{name}.rs"))).expect("a program");
        assert!(
            program.contains(&format!("\"{name}\"")) && manifest.contains(&format!("fuzz_targets/{name}.rs")),
            "{name}"
        );
    }
    assert_eq!(TESTED.len(), TARGETS.len());
}
