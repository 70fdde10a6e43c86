//! Membership is kept once: after every entry, refused or not, the state machine and raft say the same of who votes and who learns.

use super::*;
use crate::{membership::Changes, raft::Members};
use proptest::prelude::*;

fn change() -> impl Strategy<Value = Change> {
    let add = (1..8_u64, 0..9_u64, any::<bool>()).prop_map(|(id, url, is_learner)| {
        let peer_urls = vec![format!("http://{url}")];
        Change::Add(Member { id: MemberId(id), peer_urls, is_learner, ..Member::default() })
    });
    let id = || (1..8_u64).prop_map(MemberId);
    prop_oneof![
        3 => add,
        2 => id().prop_map(Change::Promote),
        2 => id().prop_map(Change::Remove),
        1 => (id(), 0..9_u64).prop_map(|(id, url)| Change::UpdatePeers(id, vec![format!("http://{url}")])),
    ]
}

fn changes() -> impl Strategy<Value = Changes> {
    prop_oneof![
        3 => change().prop_map(Changes::One),
        2 => (proptest::collection::vec(change(), 0..4), any::<bool>())
            .prop_map(|(changes, auto_leave)| Changes::Joint { changes, auto_leave }),
        2 => Just(Changes::Leave),
    ]
}

proptest! {
    #[test]
    fn etcd_20793_the_state_machine_and_raft_agree_on_the_members_after_every_change(
        history in proptest::collection::vec(changes(), 1..30),
    ) {
        let (mut bench, mut raft) = (Bench::new(), Members::default());
        for changes in &history {
            let (kind, data) = codec::encode_conf_changes(RequestId(7), changes);
            let mut outcome = bench.entry(kind, data);
            let reply = outcome.replies.pop().expect("one reply to one entry");
            prop_assert_eq!(reply.request, RequestId(7), "whoever waits is found again");
            let [Effect::ConfChanged { change, conf_state, .. }] = &outcome.effects[..] else {
                return Err(TestCaseError::fail("raft hears of each entry once"));
            };
            prop_assert!(reply.result.is_ok() || *change == ConfChange::Nothing);
            raft = raft.after(change).expect("what the state machine lets pass raft makes");
            prop_assert_eq!(&raft.conf_state(), conf_state);
            prop_assert_eq!(&bench.machine.conf_state(), conf_state);

            let view = bench.machine.view();
            let known = view.members().iter().map(|member| member.id).collect::<Vec<_>>();
            prop_assert_eq!(known, conf_state.members().into_iter().collect::<Vec<_>>(), "and each has a name and URLs");
            for member in view.members() {
                let votes = conf_state.voters.contains(&member.id);
                prop_assert!(!votes || !member.is_learner);
                prop_assert!(!view.is_removed(member.id));
            }
        }
        prop_assert_eq!(open(&bench.engine).conf_state(), bench.machine.conf_state());
        prop_assert_eq!(open(&bench.engine).view().members(), bench.machine.view().members());
    }
}

#[test]
fn etcd_21694_an_update_in_an_entry_is_nothing_to_raft() {
    let mut bench = Bench::new();
    let learner = Member { id: MemberId(2), is_learner: true, peer_urls: vec!["b".into()], ..Member::default() };
    bench.change(&Change::Add(Member { id: MemberId(1), ..Member::default() })).0.expect("the first");
    bench.change(&Change::Add(learner)).0.expect("the second");
    let before = bench.machine.conf_state();
    let (reply, effects) = bench.change(&Change::UpdatePeers(MemberId(2), vec!["c".into()]));
    assert!(matches!(reply, Ok(Reply::Members(members)) if members[1].is_learner && members[1].peer_urls == ["c"]));
    assert_eq!(effects, [Effect::ConfChanged { index: Index(3), change: ConfChange::Nothing, conf_state: before }]);
}
