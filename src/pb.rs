//! The generated wire types: etcd's packages under their own names, gRPC's question for health, and henge's protocol between members.
//!
//! Three rooms may look in: the edge and the client (`etcdserverpb` and what it needs), `machine/codec` (the command in a log
//! entry) and `wal` and `peer` (frames and raft messages). Everybody else works with the types of its own room.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

pub mod codec;

include!(concat!(env!("OUT_DIR"), "/etcd.rs"));
include!(concat!(env!("OUT_DIR"), "/henge.rs"));

/// The encoded `FileDescriptorSet` of etcd's packages, with the paths of the JSON gateway: for reflection, and for the gateway.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
