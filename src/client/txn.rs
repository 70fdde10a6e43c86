//! Transactions: if all compares hold, do these, else those; all in one revision.

use super::{DeleteOptions, GetOptions, PutOptions};
use crate::pb::etcdserverpb::{
    self as wire, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use bytes::Bytes;

/// One condition. Made in two steps: what to look at, then what it must be.
///
/// ```
/// use henge::client::Compare;
/// let absent = Compare::create_revision("lock").equal(0);
/// let unchanged = Compare::mod_revision("config").equal(17);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Compare(pub wire::Compare);

/// What a [`Compare`] looks at; `T` is what it can be compared with.
#[derive(Clone, Debug)]
pub struct Subject<T> {
    key: Bytes,
    range_end: Bytes,
    target: CompareTarget,
    wrap: fn(T) -> TargetUnion,
}

impl<T> Subject<T> {
    /// Widens to all keys of `[key, range_end)`: the condition must hold for each of them.
    pub fn range_end(self, range_end: impl Into<Bytes>) -> Subject<T> {
        Subject { range_end: range_end.into(), ..self }
    }

    /// Holds if equal.
    pub fn equal(self, to: impl Into<T>) -> Compare {
        self.is(CompareResult::Equal, to.into())
    }

    /// Holds if not equal.
    pub fn not_equal(self, to: impl Into<T>) -> Compare {
        self.is(CompareResult::NotEqual, to.into())
    }

    /// Holds if what is there is greater.
    pub fn greater(self, than: impl Into<T>) -> Compare {
        self.is(CompareResult::Greater, than.into())
    }

    /// Holds if what is there is less.
    pub fn less(self, than: impl Into<T>) -> Compare {
        self.is(CompareResult::Less, than.into())
    }

    /// The condition with its result given as a value.
    pub fn is(self, result: CompareResult, to: T) -> Compare {
        Compare(wire::Compare {
            result: result as i32,
            target: self.target as i32,
            key: self.key,
            range_end: self.range_end,
            target_union: Some((self.wrap)(to)),
        })
    }
}

impl Compare {
    /// How often the key was put since it was created; 0 if it is not there.
    pub fn version(key: impl Into<Bytes>) -> Subject<i64> {
        subject(key, CompareTarget::Version, TargetUnion::Version)
    }

    /// The revision that created the key; 0 if it is not there.
    pub fn create_revision(key: impl Into<Bytes>) -> Subject<i64> {
        subject(key, CompareTarget::Create, TargetUnion::CreateRevision)
    }

    /// The revision that last changed the key; 0 if it is not there.
    pub fn mod_revision(key: impl Into<Bytes>) -> Subject<i64> {
        subject(key, CompareTarget::Mod, TargetUnion::ModRevision)
    }

    /// The lease that the key is attached to; 0 for none.
    pub fn lease(key: impl Into<Bytes>) -> Subject<i64> {
        subject(key, CompareTarget::Lease, TargetUnion::Lease)
    }

    /// The value. On a key that is not there no such condition holds.
    pub fn value(key: impl Into<Bytes>) -> Subject<Bytes> {
        subject(key, CompareTarget::Value, TargetUnion::Value)
    }
}

fn subject<T>(key: impl Into<Bytes>, target: CompareTarget, wrap: fn(T) -> TargetUnion) -> Subject<T> {
    Subject { key: key.into(), range_end: Bytes::new(), target, wrap }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Op(pub RequestOp);

impl Op {
    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Op {
        Op::get_with(key, GetOptions::default())
    }

    /// Reads with options.
    pub fn get_with(key: impl Into<Bytes>, options: GetOptions) -> Op {
        Op(RequestOp { request: Some(Request::RequestRange(options.request(key))) })
    }

    /// Sets one key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::put_with(key, value, PutOptions::default())
    }

    /// Sets with options.
    pub fn put_with(key: impl Into<Bytes>, value: impl Into<Bytes>, options: PutOptions) -> Op {
        Op(RequestOp { request: Some(Request::RequestPut(options.request(key, value))) })
    }

    /// Removes one key.
    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op::delete_with(key, DeleteOptions::default())
    }

    /// Removes with options.
    pub fn delete_with(key: impl Into<Bytes>, options: DeleteOptions) -> Op {
        Op(RequestOp { request: Some(Request::RequestDeleteRange(options.request(key))) })
    }

    /// A transaction within this one.
    pub fn txn(txn: Txn) -> Op {
        Op(RequestOp { request: Some(Request::RequestTxn(txn.into_request())) })
    }
}

/// A transaction being built. Without conditions `then` always runs.
///
/// ```no_run
/// # async fn example(client: henge::client::Client) -> Result<(), henge::client::Error> {
/// use henge::client::{Compare, Op, Txn};
/// let won = client
///     .txn(Txn::new()
///         .when([Compare::create_revision("leader").equal(0)])
///         .then([Op::put("leader", "me")])
///         .otherwise([Op::get("leader")]))
///     .await?
///     .succeeded;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    request: TxnRequest,
}

impl Txn {
    /// A transaction that does nothing yet.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds conditions; all must hold.
    pub fn when(mut self, compares: impl IntoIterator<Item = Compare>) -> Txn {
        self.request.compare.extend(compares.into_iter().map(|Compare(compare)| compare));
        self
    }

    /// Adds steps for when all conditions hold.
    pub fn then(mut self, ops: impl IntoIterator<Item = Op>) -> Txn {
        self.request.success.extend(ops.into_iter().map(|Op(op)| op));
        self
    }

    /// Adds steps for when one does not.
    pub fn otherwise(mut self, ops: impl IntoIterator<Item = Op>) -> Txn {
        self.request.failure.extend(ops.into_iter().map(|Op(op)| op));
        self
    }

    /// The wire's form.
    pub fn into_request(self) -> TxnRequest {
        self.request
    }
}
