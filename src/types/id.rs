//! Numbers with names. No arithmetic between kinds, only the steps that make sense.

use std::fmt;

/// A period with at most one leader (Raft paper, section 5.1). 0 is "before the first election".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("term overflow"))
    }
}

/// Position of an entry in the Raft log. 0 is "before the first entry".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// The position after this one.
    pub fn next(self) -> Index {
        Index(self.0.checked_add(1).expect("log index overflow"))
    }

    /// The position before this one; `None` before the first.
    pub fn previous(self) -> Option<Index> {
        self.0.checked_sub(1).map(Index)
    }
}

/// A state of the whole key space. A fresh store is at 1; each change of it makes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision after this one.
    pub fn next(self) -> Revision {
        Revision(self.0.checked_add(1).expect("revision overflow"))
    }
}

/// A lease. 0 is "no lease" (see [`LeaseId::NONE`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// "Not attached to a lease."
    pub const NONE: LeaseId = LeaseId(0);
}

/// A member, for life. Printed in hex, as etcd does.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// A cluster, for life. Printed in hex, as etcd does.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

macro_rules! decimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

macro_rules! hex {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }
    )*};
}

decimal! { Term Index Revision }
hex! { MemberId ClusterId }

impl fmt::Display for LeaseId {
    /// Sixteen hex digits, as `etcdctl` prints leases.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
