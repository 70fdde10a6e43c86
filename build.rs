//! Compiles `proto/` without a system `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

const ETCD: [&str; 11] = [
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
    "grpc/health.proto",
];
const HENGE: [&str; 2] = ["henge/peer.proto", "henge/ring.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let server = env::var("CARGO_FEATURE_SERVER").is_ok();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(ETCD)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For reflection, which shows clients what is theirs: nothing of henge's own protocols. And for the gateway: encoded by the compiler,
    // which keeps the options that name paths.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let mut descriptors = compiler.file_descriptor_set();
    // Nothing but these options needs what they are made of.
    descriptors.file.retain(|file| !file.name().starts_with("google/"));
    let configure = || tonic_prost_build::configure().bytes(".").build_server(server);
    let build = || configure().codec_path("crate::pb::codec::FittingCodec");
    build().include_file("etcd.rs").compile_fds(descriptors)?;
    build().include_file("henge.rs").compile_fds(protox::compile(HENGE, ["proto"])?)?;
    Ok(())
}
