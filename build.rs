//! Compiles `proto/` without a system `protoc`.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: [&str; 10] = [
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

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_server(env::var("CARGO_FEATURE_SERVER").is_ok())
        .include_file("etcd.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
