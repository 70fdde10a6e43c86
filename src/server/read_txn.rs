//! Transactions that write on none of their paths: reads, at one revision, without a place in the log.

use crate::{
    machine::{Compare, CompareTarget, Op, OpReply, Txn, TxnReply},
    mvcc::{KeyValue, RangeQuery, RangeResult, Reader},
    types::{Error, Fault, Revision},
};

/// Runs a transaction without writes at the current revision of `reader`, which is returned with the reply.
///
/// For a linearizable answer the reader must first have applied what a quorum has confirmed.
///
/// # Errors
/// [`Error::FutureRev`] or [`Error::Compacted`] for a range of the branch that runs.
///
/// # Panics
/// If there is a write in the transaction.
pub fn read_txn(reader: &Reader, txn: &Txn) -> Result<Result<(TxnReply, Revision), Error>, Fault> {
    loop {
        let at = reader.current();
        match (View { reader, at }).txn(txn) {
            Ok(reply) => return Ok(Ok((reply, at))),
            // A compaction passed by at this very moment: everything "current" is read anew.
            Err(Stop::Refused(Error::Compacted)) if reader.compacted() > at => {}
            Err(Stop::Refused(error)) => return Ok(Err(error)),
            Err(Stop::Fault(fault)) => return Err(fault),
        }
    }
}

enum Stop {
    Refused(Error),
    Fault(Fault),
}

/// The store at one revision.
struct View<'a> {
    reader: &'a Reader,
    at: Revision,
}

impl View<'_> {
    // Nothing is written, so it makes no difference that compares of nested transactions are decided only when they run.
    fn txn(&self, txn: &Txn) -> Result<TxnReply, Stop> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && compare.holds(&self.found(compare)?);
        }
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let one = |op: &Op| match op {
            Op::Range(query) => self.range(query).map(OpReply::Range),
            Op::Txn(nested) => self.txn(nested).map(OpReply::Txn),
            Op::Put(_) | Op::DeleteRange(_) => unreachable!("a transaction that writes has to go through the log"),
        };
        Ok(TxnReply { succeeded, responses: branch.iter().map(one).collect::<Result<_, _>>()? })
    }

    fn found(&self, compare: &Compare) -> Result<Vec<KeyValue>, Stop> {
        let keys_only = !matches!(compare.target, CompareTarget::Value(_));
        Ok(self.range(&RangeQuery { keys_only, ..RangeQuery::new(compare.range.clone()) })?.kvs)
    }

    fn range(&self, query: &RangeQuery) -> Result<RangeResult, Stop> {
        // What is written meanwhile has not happened yet.
        if query.revision > self.at {
            return Err(Stop::Refused(Error::FutureRev));
        }
        let revision = if query.revision.0 <= 0 { self.at } else { query.revision };
        let query = RangeQuery { revision, ..query.clone() };
        let result = self.reader.range(&query).map_err(Stop::Fault)?.map_err(Stop::Refused)?;
        Ok(RangeResult { revision: self.at, ..result })
    }
}
