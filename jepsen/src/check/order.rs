//! Do revisions follow time? What one answer names as the revision, no later call may be behind.

use crate::check::history::Operation;

/// Two calls, one after the other, whose revisions say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inversion {
    /// Had returned before the other was called.
    pub earlier: Operation,
    /// Was called after, and names an older revision; or the same, although it wrote.
    pub later: Operation,
}

/// The first pair of calls, on whatever keys, whose revisions contradict their order in time. Linear after two sorts.
pub fn check(history: &[Operation]) -> Option<Inversion> {
    let mut called: Vec<&Operation> = history.iter().filter(|operation| operation.revision.is_some()).collect();
    let mut returned = called.clone();
    called.sort_by_key(|operation| operation.called_ns);
    returned.sort_by_key(|operation| operation.returned_ns);
    let mut returned = returned.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    for later in called {
        while let Some(done) = returned.next_if(|done| done.returned_ns < Some(later.called_ns)) {
            if newest.is_none_or(|newest| newest.revision < done.revision) {
                newest = Some(done);
            }
        }
        let Some(earlier) = newest else { continue };
        let wrote = later.action.writes().is_some();
        if later.revision < earlier.revision || wrote && later.revision == earlier.revision {
            return Some(Inversion { earlier: *earlier, later: *later });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::history::Action;

    fn operation(called_ns: u64, returned_ns: u64, action: Action, revision: i64) -> Operation {
        let returned_ns = Some(returned_ns);
        Operation { key: 0, client: 0, called_ns, returned_ns, action, revision: Some(revision) }
    }

    #[test]
    fn a_later_call_is_never_behind_an_earlier_answer() {
        let write = operation(1, 2, Action::Write(1), 5);
        assert_eq!(check(&[write, operation(3, 4, Action::Read(Some(1)), 5)]), None);
        let behind = operation(3, 4, Action::Read(Some(1)), 4);
        assert_eq!(check(&[write, behind]), Some(Inversion { earlier: write, later: behind }));
    }

    #[test]
    fn a_later_write_has_a_revision_of_its_own() {
        let (write, again) = (operation(1, 2, Action::Write(1), 5), operation(3, 4, Action::Write(2), 5));
        assert_eq!(check(&[write, again]), Some(Inversion { earlier: write, later: again }));
    }

    #[test]
    fn overlapping_calls_may_have_any_order() {
        assert_eq!(check(&[operation(1, 9, Action::Write(1), 6), operation(2, 8, Action::Write(2), 5)]), None);
    }
}
