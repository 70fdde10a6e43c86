//! Compiles `proto/` without a system `protoc`.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const ETCD: [&str; 10] = [
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/rpc.proto",
    "etcd/membership.proto",
    "etcd/internal.proto",
    "etcd/lock.proto",
    "etcd/election.proto",
    "etcd/raft.proto",
    "etcd/wal.proto",
    "etcd/lease.proto",
];
const HENGE: [&str; 2] = ["henge/peer.proto", "henge/ring.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let server = env::var("CARGO_FEATURE_SERVER").is_ok();
    let descriptors = protox::compile(ETCD, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For reflection, which shows clients what is theirs: nothing of henge's own protocols.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let build = || tonic_prost_build::configure().bytes(".").build_server(server);
    build().include_file("etcd.rs").compile_fds(descriptors)?;
    build().include_file("henge.rs").compile_fds(protox::compile(HENGE, ["proto"])?)?;
    Ok(())
}
