//! The replicated state machine: what every committed entry does.

pub mod codec;
pub mod command;

pub use command::{
    AlarmAction, AlarmKind, Applied, Command, Compare, CompareResult, CompareTarget, ConfStep, ConfStepKind,
    DeleteRange, Effect, Op, OpReply, Outcome, Put, Reply, RequestId, Txn, TxnReply,
};
