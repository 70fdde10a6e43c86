//! What transactions do.
//!
//! First every compare on the path that will run is decided, nested ones included: all on the state before the outermost
//! transaction, as in etcd. Then the steps run. A step that fails takes back all that the transaction wrote, so a transaction
//! happens whole or not at all.

use super::{
    command::{Compare, Op, OpReply, Txn, TxnReply},
    kv::Writes,
};
use crate::{
    mvcc::RangeQuery,
    types::{KeyRange, Stop},
};

impl Writes<'_> {
    pub(super) fn txn(&mut self, txn: Txn) -> Result<TxnReply, Stop> {
        let mut path = Vec::new();
        self.decide(&txn, &mut path)?;
        self.run(txn, &mut path.into_iter())
    }

    /// Adds, for `txn` and each nested one on the path, in the order in which they will run, whether its compares hold.
    fn decide(&self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), Stop> {
        let mut holds = true;
        for compare in &txn.compares {
            holds = holds && self.holds(compare)?;
        }
        path.push(holds);
        for op in if holds { &txn.success } else { &txn.failure } {
            if let Op::Txn(nested) = op {
                self.decide(nested, path)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, txn: Txn, path: &mut impl Iterator<Item = bool>) -> Result<TxnReply, Stop> {
        let succeeded = path.next().expect("the path has one decision for each transaction on it");
        let branch = if succeeded { txn.success } else { txn.failure };
        let mut responses = Vec::with_capacity(branch.len());
        for op in branch {
            responses.push(match op {
                Op::Range(query) => OpReply::Range(self.range(&query)?),
                Op::Put(put) => OpReply::Put { prev: self.put(put)? },
                Op::DeleteRange(delete) => {
                    let (deleted, prevs) = self.delete_range(&delete)?;
                    OpReply::DeleteRange { deleted, prevs, revision: self.revision() }
                }
                Op::Txn(nested) => OpReply::Txn(self.run(nested, path)?),
            });
        }
        Ok(TxnReply { succeeded, responses })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, Stop> {
        let found = match &compare.range {
            KeyRange::One(key) => self.get(key)?.into_iter().collect(),
            range => self.range(&RangeQuery::new(range.clone()))?.kvs,
        };
        Ok(compare.holds(&found))
    }
}
