//! The Lock service: not yet.

use super::refuse::refuse;
use crate::pb::v3lockpb::{self as pb, lock_server::Lock};

/// The Lock service.
#[derive(Default)]
pub struct LockService;

refuse! {
    impl [] Lock [] for LockService {
        lock: pb::LockRequest => pb::LockResponse, "Lock";
        unlock: pb::UnlockRequest => pb::UnlockResponse, "Unlock";
    } but {}
}
