//! Transactions that write on none of their paths: reads, at one revision, without a place in the log.

use crate::{
    machine::{Compare, Op, OpReply, Txn, TxnReply},
    mvcc::{KeyValue, Meter, RangeQuery, RangeResult, Reader, is_before_any},
    types::{Error, Fault, Revision, Stop},
};

/// Runs a transaction without writes at the current revision of `reader`, which is returned with the reply.
///
/// For a linearizable answer the reader must first have applied what a quorum has confirmed. What is read is charged to `meter`, that for
/// compares too.
///
/// # Errors
/// [`Error::FutureRev`] or [`Error::Compacted`] for a range of the branch that runs, and those of `meter`.
///
/// # Panics
/// If there is a write in the transaction.
pub fn read_txn(
    reader: &Reader,
    txn: &Txn,
    meter: &mut dyn Meter,
) -> Result<Result<(TxnReply, Revision), Error>, Fault> {
    loop {
        let at = reader.current();
        match Stop::apart((View { reader, at, meter }).txn(txn))? {
            // A compaction passed by at this very moment: everything "current" is read anew.
            Err(Error::Compacted) if reader.compacted() > at => {}
            answer => return Ok(answer.map(|reply| (reply, at))),
        }
    }
}

/// The store at one revision.
struct View<'a> {
    reader: &'a Reader,
    at: Revision,
    meter: &'a mut dyn Meter,
}

impl View<'_> {
    // Nothing is written, so it makes no difference that compares of nested transactions are decided only when they run.
    fn txn(&mut self, txn: &Txn) -> Result<TxnReply, Stop> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && compare.holds(&self.found(compare)?);
        }
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let mut one = |op: &Op| match op {
            Op::Range(query) => self.range(query).map(OpReply::Range),
            Op::Txn(nested) => self.txn(nested).map(OpReply::Txn),
            Op::Put(_) | Op::DeleteRange(_) => unreachable!("a transaction that writes has to go through the log"),
        };
        Ok(TxnReply { succeeded, responses: branch.iter().map(&mut one).collect::<Result<_, _>>()? })
    }

    fn found(&mut self, compare: &Compare) -> Result<Vec<KeyValue>, Stop> {
        Ok(self.range(&RangeQuery::new(compare.range.clone()))?.kvs)
    }

    fn range(&mut self, query: &RangeQuery) -> Result<RangeResult, Stop> {
        // What is written meanwhile has not happened yet.
        if query.revision > self.at {
            return Err(Stop::Refused(Error::FutureRev));
        }
        if is_before_any(query.revision, self.reader.compacted()) {
            return Err(Stop::Refused(Error::Compacted));
        }
        let revision = if query.revision.0 <= 0 { self.at } else { query.revision };
        let query = RangeQuery { revision, ..query.clone() };
        let result = self.reader.range_within(&query, self.meter)??;
        Ok(RangeResult { revision: self.at, ..result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::Author,
        machine::{Command, CompareResult, CompareTarget, Put, Reply},
        server::{Admission, Backend, Bounds, Trace, tests::TestBackend},
        types::{Key, KeyRange, LeaseId},
    };
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        (b'a'..=b'd').prop_map(|key| Key::copy_from_slice(&[key]))
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            key().prop_map(KeyRange::One),
            (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
            key().prop_map(KeyRange::From),
        ]
    }

    fn compare() -> impl Strategy<Value = Compare> {
        let target = prop_oneof![
            (0..3i64).prop_map(CompareTarget::Version),
            (0..6i64).prop_map(CompareTarget::Create),
            (0..6i64).prop_map(CompareTarget::Mod),
            key().prop_map(CompareTarget::Value),
            Just(CompareTarget::Lease(0)),
        ];
        use CompareResult::*;
        let result = prop_oneof![Just(Equal), Just(Greater), Just(Less), Just(NotEqual)];
        (range(), target, result).prop_map(|(range, target, result)| Compare { range, target, result })
    }

    fn read() -> impl Strategy<Value = Op> {
        let query = (range(), 0..3i64, -1..7i64).prop_map(|(range, limit, revision)| {
            Op::Range(RangeQuery { limit, revision: Revision(revision), ..RangeQuery::new(range) })
        });
        query.prop_recursive(2, 8, 2, |inner| {
            let branch = || prop::collection::vec(inner.clone(), 0..3);
            (prop::collection::vec(compare(), 0..2), branch(), branch())
                .prop_map(|(compares, success, failure)| Op::Txn(Txn { compares, success, failure }))
        })
    }

    proptest! {
        #[test]
        fn it_answers_as_the_log_would(
            written in prop::collection::vec((key(), key()), 0..4),
            compares in prop::collection::vec(compare(), 0..2),
            success in prop::collection::vec(read(), 0..3),
            failure in prop::collection::vec(read(), 0..3),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let backend = TestBackend::new();
                for (key, value) in written {
                    let put = Put { key, value, lease: LeaseId::NONE, ..Put::default() };
                    backend.propose(&Author::Member, Command::Put(put), &Trace::of_none()).await.unwrap();
                }
                let txn = Txn { compares, success, failure };
                let ticket = Admission::new(Bounds::within(1 << 30)).read();
                let here = backend.txn_read(&txn, false, ticket, &Trace::of_none()).await.map(|(reply, revision, _)| (Reply::Txn(reply), revision));
                let logged = backend.propose(&Author::Member, Command::Txn(txn), &Trace::of_none()).await.unwrap();
                prop_assert_eq!(here, logged.result.map(|reply| (reply, logged.revision)));
                Ok(())
            })?;
        }
    }
}
