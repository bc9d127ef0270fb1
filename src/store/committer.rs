//! The one committer: group commit, and nothing acknowledged before it is durable.

use tokio::sync::mpsc;

use super::error::StoreError;
use super::export::{Outline, Position};
use super::journal::{GROUP_MAX, Head, Poison, Reply, Request};
use super::ledger::{HeadEntry, Ledger, Revision, Staged};
use super::mark::Mark;
use super::tree::{ByteTree, TreeError};
use super::verify;
use uuid::Uuid;

/// The only one that touches the tree.
pub struct Committer {
    pub(super) tree: Box<dyn ByteTree>,
    pub(super) ledger: Ledger,
    pub(super) next_slot: usize,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) poison: Poison,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tree: _, ledger, next_slot: _, requests: _, poison } = self;
        f.debug_struct("Committer").field("totals", &ledger.totals).field("poison", poison).finish_non_exhaustive()
    }
}

/// Called once the group is durable, or with the reason why nobody knows whether it is.
type Answer = Box<dyn FnOnce(Result<(), &str>) + Send>;

impl Committer {
    /// Group commit: takes what has come in, applies every batch, syncs once, writes the mark, then answers all.
    ///
    /// Runs on a thread of its own in production and as a task in simulations. Ends when the last [`Journal`](super::Journal) is dropped.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after the first failure of the tree, once everyone waiting was told. The process should
    /// end; nothing is retried, because a sync that succeeds after one that failed proves nothing.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while self.requests.recv_many(&mut group, GROUP_MAX).await > 0 {
            if let Err(why) = self.serve(&mut group) {
                self.requests.close();
                while let Some(request) = self.requests.recv().await {
                    request.refuse(&why);
                }
                return Err(StoreError::Poisoned { why });
            }
        }
        Ok(())
    }

    /// Nothing is answered before the group is durable: even a conflict tells of a commit that might still be lost.
    fn serve(&mut self, group: &mut Vec<Request>) -> Result<(), String> {
        let mut answers: Vec<Answer> = Vec::new();
        let mut reads = Vec::new();
        let before = self.ledger.totals.commit;
        let mut failure = None;
        for request in group.drain(..) {
            match request {
                Request::Commit { run, expected, fence, records, summary, facts, reply } => {
                    let staged = self.room_for(expected);
                    let staged =
                        staged.and_then(|()| self.ledger.stage_commit(run, expected, fence, records, summary, facts));
                    let outcome = self.apply(staged, &mut failure);
                    let outcome = outcome.map(|()| self.ledger.heads.get(&run).map_or(expected, |head| head.revision));
                    answers.push(answer(reply, outcome));
                }
                Request::PutFacts { fence, facts, reply } => {
                    let staged = self.ledger.stage_facts(fence, facts);
                    answers.push(answer(reply, self.apply(staged, &mut failure)));
                }
                Request::Remove { run, expected, fence, reply } => {
                    let outcome = match self.ledger.stage_removal(run, expected, fence) {
                        Ok(Some(staged)) => self.apply(Ok(staged), &mut failure),
                        Ok(None) => Ok(()),
                        Err(error) => Err(error),
                    };
                    answers.push(answer(reply, outcome));
                }
                read @ (Request::Load { .. }
                | Request::Heads { .. }
                | Request::Facts { .. }
                | Request::SeenFence { .. }
                | Request::Outline { .. }
                | Request::Entries { .. }) => reads.push(read),
            }
        }
        if failure.is_none() && self.ledger.totals.commit != before {
            failure = self.tree.sync().and_then(|()| self.write_mark()).err().map(|error| error.text());
        }
        if let Some(why) = &failure {
            self.poison_with(why);
        }
        for answer in answers {
            answer(failure.as_deref().map_or(Ok(()), Err));
        }
        for read in reads {
            match &failure {
                Some(why) => read.refuse(why),
                None => failure = self.read(read).err(),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// A new run needs room for all of itself; one that is under way may use the last of it.
    fn room_for(&self, expected: Revision) -> Result<(), StoreError> {
        if expected == Revision(0) && self.tree.low_on_room() { Err(StoreError::LowOnRoom) } else { Ok(()) }
    }

    fn apply(&mut self, staged: Result<Staged, StoreError>, failure: &mut Option<String>) -> Result<(), StoreError> {
        let staged = staged?;
        if let Some(why) = failure {
            return Err(StoreError::Poisoned { why: why.clone() });
        }
        match self.tree.apply(&staged.batch) {
            Ok(()) => {
                self.ledger.adopt(staged);
                Ok(())
            }
            Err(TreeError::Full) => Err(StoreError::Full),
            Err(error @ (TreeError::Io(_) | TreeError::Broken(_))) => {
                let why = error.text();
                *failure = Some(why.clone());
                Err(StoreError::Poisoned { why })
            }
        }
    }

    pub(super) fn write_mark(&mut self) -> Result<(), TreeError> {
        let mark = Mark { store: self.ledger.store, commit: self.ledger.totals.commit };
        self.tree.write_mark(self.next_slot, &mark.encode())?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// A caller that no longer listens is no failure.
    fn read(&mut self, request: Request) -> Result<(), String> {
        match request {
            Request::Load { run, reply } => {
                let loaded = match self.ledger.heads.get(&run) {
                    None => Ok(None),
                    Some(entry) => verify::read_run(self.tree.as_ref(), run, entry)
                        .map(|records| Some((head(run, entry), records))),
                };
                let failure = loaded.as_ref().err().map(ToString::to_string);
                if let Some(why) = &failure {
                    self.poison_with(why);
                }
                let _ = reply.send(loaded);
                failure.map_or(Ok(()), Err)
            }
            Request::Heads { reply } => {
                let _ = reply.send(Ok(self.ledger.heads.iter().map(|(run, entry)| head(*run, entry)).collect()));
                Ok(())
            }
            Request::Facts { prefix, reply } => {
                let facts = self.ledger.facts.range(prefix.clone()..);
                let facts = facts.take_while(|(key, _)| key.starts_with(&prefix));
                let _ = reply.send(Ok(facts.map(|(key, entry)| (key.clone(), entry.value.clone())).collect()));
                Ok(())
            }
            Request::SeenFence { reply } => {
                let _ = reply.send(Ok(self.ledger.totals.fence));
                Ok(())
            }
            Request::Outline { reply } => {
                let Ledger { store, totals, heads, facts } = &self.ledger;
                let _ = reply.send(Ok(Outline {
                    position: Position { store: *store, commit: totals.commit },
                    fence: totals.fence,
                    heads: heads.iter().map(|(run, entry)| head(*run, entry)).collect(),
                    facts: facts.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect(),
                }));
                Ok(())
            }
            Request::Entries { run, reply } => {
                let entries = match self.ledger.heads.get(&run) {
                    None => Ok(None),
                    Some(entry) => verify::read_entries(self.tree.as_ref(), run, entry).map(Some),
                };
                let failure = entries.as_ref().err().map(ToString::to_string);
                if let Some(why) = &failure {
                    self.poison_with(why);
                }
                let _ = reply.send(entries);
                failure.map_or(Ok(()), Err)
            }
            write @ (Request::Commit { .. } | Request::PutFacts { .. } | Request::Remove { .. }) => {
                // `serve` sorts them out; said here so that a new kind of request cannot be forgotten.
                write.refuse("a write among the reads");
                Err("a write among the reads".into())
            }
        }
    }

    /// Before anyone is answered: whoever learns of the failure must find it everywhere.
    fn poison_with(&self, why: &str) {
        tracing::error!(why, "the store is poisoned; the process should end");
        self.poison.get_or_init(|| why.to_owned());
    }
}

fn answer<T: Send + 'static>(reply: Reply<T>, outcome: Result<T, StoreError>) -> Answer {
    Box::new(move |durable| {
        let outcome = match durable {
            Ok(()) => outcome,
            Err(why) => Err(StoreError::Poisoned { why: why.to_owned() }),
        };
        let _ = reply.send(outcome);
    })
}

fn head(run: Uuid, entry: &HeadEntry) -> Head {
    let HeadEntry { revision, digest, summary, leaf: _ } = entry;
    Head { run, revision: *revision, digest: *digest, summary: summary.clone() }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::journal::{Journal, NewRecord};
    use super::super::keys;
    use super::super::ledger::{Fence, Revision};
    use super::super::test_tree::{Call, TestTree};
    use super::*;

    const RUN: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
    const STORE: Uuid = Uuid::from_u128(9);

    fn open(tree: &TestTree) -> Result<(Journal, Committer), StoreError> {
        Journal::open(Box::new(tree.clone()), STORE)
    }

    fn record(n: u64) -> NewRecord {
        NewRecord { kind: "asked", payload: json!({ "n": n }) }
    }

    /// Runs `test` beside the committer, then lets the committer end; what it ended with comes back.
    async fn with<T>(tree: &TestTree, test: impl AsyncFnOnce(&Journal) -> T) -> (T, Result<(), StoreError>) {
        let (journal, committer) = open(tree).expect("the tree is sound");
        let work = async move { test(&journal).await };
        tokio::join!(work, committer.run())
    }

    async fn commit(journal: &Journal, expected: u64, records: u64) -> Result<Revision, StoreError> {
        let records = (1..=records).map(|n| record(expected + n)).collect();
        journal.commit(RUN, Revision(expected), Fence(0), records, json!({ "at": expected })).await
    }

    /// A store of one run with three records and one fact.
    async fn filled() -> TestTree {
        let tree = TestTree::default();
        let (result, ended) = with(&tree, async |journal| {
            commit(journal, 0, 2).await?;
            commit(journal, 2, 1).await?;
            journal.put_facts(Fence(0), vec![("throttled/a".into(), Some(json!(5)))]).await
        })
        .await;
        result.expect("nothing fails");
        ended.expect("nothing fails");
        tree
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_reopening() {
        let tree = filled().await;
        let (loaded, _) = with(&tree, async |journal| {
            (journal.load(RUN).await, journal.load(Uuid::nil()).await, journal.heads().await)
        })
        .await;
        let (head, records) = loaded.0.expect("it reads").expect("it is there");
        assert_eq!(head.revision, Revision(3));
        assert_eq!(head.summary, json!({ "at": 2 }));
        assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(records[2].payload, json!({ "n": 3 }));
        assert!(loaded.1.expect("it reads").is_none());
        assert_eq!(loaded.2.expect("it reads"), [head]);
    }

    #[tokio::test]
    async fn a_stale_writer_gets_a_conflict_and_changes_nothing() {
        let tree = filled().await;
        let before = tree.disk().entries.clone();
        let (result, _) = with(&tree, async |journal| commit(journal, 2, 1).await).await;
        let StoreError::Conflict { expected, found, .. } = result.expect_err("revision 3 is there") else {
            panic!("not a conflict")
        };
        assert_eq!((expected, found), (Revision(2), Revision(3)));
        assert_eq!(tree.disk().entries, before);
    }

    #[tokio::test]
    async fn records_and_facts_of_one_commit_are_there_together_or_not_at_all() {
        let tree = filled().await;
        let fact = |value: Value| vec![("answer/1".to_owned(), Some(value)), ("throttled/a".to_owned(), None)];
        let (results, _) = with(&tree, async |journal| {
            let with = |expected, value| {
                journal.commit_with(RUN, Revision(expected), Fence(0), vec![record(4)], json!({}), fact(value))
            };
            let refused = [with(2, json!("stale")).await, with(3, json!("x".repeat(5000))).await];
            let facts = journal.facts("").await;
            (refused, facts, with(3, json!("done")).await, journal.facts("").await)
        })
        .await;
        let (refused, before, done, after) = results;
        assert!(matches!(refused[0], Err(StoreError::Conflict { .. })), "{refused:?}");
        assert!(matches!(refused[1], Err(StoreError::TooLarge { .. })), "{refused:?}");
        assert_eq!(before.expect("it reads"), [("throttled/a".to_owned(), json!(5))]);
        assert_eq!(done.expect("nothing fails"), Revision(4));
        let expected = [("answer/1".to_owned(), json!("done"))];
        assert_eq!(after.expect("it reads"), expected);
        // Opening checks the seal over heads and facts.
        let (again, _) = with(&tree, async |journal| journal.facts("").await).await;
        assert_eq!(again.expect("it reads"), expected);
    }

    #[tokio::test]
    async fn an_older_fence_is_refused_also_after_reopening() {
        let tree = filled().await;
        let (result, _) = with(&tree, async |journal| journal.put_facts(Fence(7), vec![]).await).await;
        result.expect("a newer holder announces itself");
        let (results, _) = with(&tree, async |journal| {
            let commit = journal.commit(RUN, Revision(3), Fence(6), vec![record(4)], json!({})).await;
            (commit, journal.put_facts(Fence(6), vec![]).await)
        })
        .await;
        assert!(matches!(results.0, Err(StoreError::Fenced { given: Fence(6), seen: Fence(7) })), "{:?}", results.0);
        assert!(matches!(results.1, Err(StoreError::Fenced { .. })));
    }

    #[tokio::test]
    async fn a_group_is_acknowledged_after_one_sync_and_its_mark() {
        let tree = TestTree::default();
        let (journal, committer) = open(&tree).expect("the tree is sound");
        tree.disk().calls.clear();
        let commits = (0..20).map(|n| {
            let (journal, tree) = (journal.clone(), tree.clone());
            async move {
                let result =
                    journal.commit(Uuid::from_u128(n), Revision(0), Fence(0), vec![record(1)], json!({})).await;
                tree.disk().calls.push(Call::Acked);
                result
            }
        });
        // All have asked before the committer looks for the first time.
        let all = join_all(commits);
        drop(journal);
        let (results, ended) = tokio::join!(all, committer.run());
        ended.expect("nothing fails");
        for result in results {
            assert_eq!(result.expect("nothing fails"), Revision(1));
        }
        let expected = [vec![Call::Applied; 20], vec![Call::Synced, Call::Marked(1)], vec![Call::Acked; 20]].concat();
        assert_eq!(tree.disk().calls, expected);
    }

    #[tokio::test]
    async fn the_mark_goes_to_the_slots_in_turn() {
        let tree = filled().await;
        let marks =
            tree.disk().calls.iter().filter(|call| matches!(call, Call::Marked(_))).cloned().collect::<Vec<_>>();
        assert_eq!(marks, [Call::Marked(0), Call::Marked(1), Call::Marked(0), Call::Marked(1)]);
    }

    #[tokio::test]
    async fn after_one_failed_sync_nothing_is_acknowledged_any_more() {
        let tree = filled().await;
        let (journal, committer) = open(&tree).expect("the tree is sound");
        tree.disk().fail_sync = true;
        let committer = tokio::join!(committer.run(), async {
            let both = tokio::join!(commit(&journal, 3, 1), journal.heads());
            assert!(matches!(both.0, Err(StoreError::Poisoned { .. })), "{:?}", both.0);
            assert!(matches!(both.1, Err(StoreError::Poisoned { .. })), "{:?}", both.1);
            // Both after the committer ended and with a sync that would work again.
            for _ in 0..3 {
                let error = commit(&journal, 4, 1).await.expect_err("poisoned for good");
                assert!(error.to_string().contains("injected"), "{error}");
            }
        });
        assert!(matches!(committer.0, Err(StoreError::Poisoned { .. })));
    }

    #[tokio::test]
    async fn a_full_disk_refuses_one_commit_and_poisons_nothing() {
        let tree = filled().await;
        tree.disk().fail_apply = Some(TreeError::Full);
        let (results, ended) =
            with(&tree, async |journal| (commit(journal, 3, 1).await, commit(journal, 3, 1).await)).await;
        assert!(matches!(results.0, Err(StoreError::Full)));
        assert_eq!(results.1.expect("there is room again"), Revision(4));
        ended.expect("not poisoned");
    }

    #[tokio::test]
    async fn a_failed_apply_poisons_the_whole_group() {
        let tree = filled().await;
        tree.disk().fail_apply = Some(TreeError::Broken("injected".into()));
        let (results, ended) = with(&tree, async |journal| {
            tokio::join!(commit(journal, 3, 1), journal.put_facts(Fence(0), vec![("a".into(), Some(json!(1)))]))
        })
        .await;
        assert!(matches!(results.0, Err(StoreError::Poisoned { .. })));
        assert!(matches!(results.1, Err(StoreError::Poisoned { .. })));
        ended.expect_err("poisoned");
    }

    #[tokio::test]
    async fn a_dropped_committer_says_closed() {
        let (journal, committer) = open(&TestTree::default()).expect("the tree is sound");
        drop(committer);
        assert!(matches!(commit(&journal, 0, 1).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_tree_behind_its_mark_is_refused_and_one_ahead_is_a_crash() {
        let tree = filled().await;
        let (entries, marks) = {
            let disk = tree.disk();
            (disk.entries.clone(), disk.marks.clone())
        };
        let (result, _) = with(&tree, async |journal| commit(journal, 3, 1).await).await;
        result.expect("nothing fails");

        let ahead = TestTree::default();
        ahead.disk().entries = tree.disk().entries.clone();
        ahead.disk().marks = marks;
        open(&ahead).expect("a crash between sync and mark");
        assert_eq!(
            ahead.disk().calls,
            [Call::Synced, Call::Marked(0)],
            "what is read must be durable and marked first"
        );

        tree.disk().entries = entries;
        let error = open(&tree).expect_err("a commit is gone");
        assert!(matches!(error, StoreError::WentBack { tree: 4, mark: 5 }), "{error:?}");
        tree.disk().entries.clear();
        assert!(matches!(open(&tree), Err(StoreError::WentBack { tree: 0, mark: 5 })));
    }

    #[tokio::test]
    async fn a_lost_mark_is_noticed() {
        let tree = filled().await;
        tree.disk().marks = [None, None];
        assert!(matches!(open(&tree), Err(StoreError::Damaged { .. })));
    }

    #[tokio::test]
    async fn any_entry_missing_or_stale_is_noticed() {
        let old = filled().await;
        let tree = TestTree::default();
        *tree.disk() = std::mem::take(&mut *old.disk());
        let stale = tree.disk().entries.clone();
        let (result, _) = with(&tree, async |journal| {
            commit(journal, 3, 1).await?;
            journal.put_facts(Fence(0), vec![("throttled/a".into(), Some(json!(6)))]).await
        })
        .await;
        result.expect("nothing fails");
        let good = tree.disk().entries.clone();
        for key in good.keys() {
            tree.disk().entries = good.clone();
            tree.disk().entries.remove(key);
            open(&tree).expect_err(&format!("{} is missing", keys::name(key)));
            let Some(old) = stale.get(key).filter(|old| good.get(key) != Some(*old)) else { continue };
            tree.disk().entries = good.clone();
            tree.disk().entries.insert(key.clone(), old.clone());
            open(&tree).expect_err(&format!("{} is stale", keys::name(key)));
        }
        tree.disk().entries = good;
        open(&tree).expect("put right again");
    }

    #[tokio::test]
    async fn a_record_that_changed_after_open_poisons_when_it_is_loaded() {
        let tree = filled().await;
        let (result, ended) = with(&tree, async |journal| {
            let key = keys::record(RUN, 2);
            let value = tree.disk().entries[&keys::record(RUN, 1)].clone();
            tree.disk().entries.insert(key, value);
            (journal.load(RUN).await, journal.heads().await)
        })
        .await;
        assert!(matches!(result.0, Err(StoreError::Damaged { .. })), "{:?}", result.0);
        assert!(matches!(result.1, Err(StoreError::Poisoned { .. })), "{:?}", result.1);
        ended.expect_err("poisoned");
    }

    #[tokio::test]
    async fn facts_are_replaced_deleted_and_found_by_prefix() {
        let tree = filled().await;
        let (result, _) = with(&tree, async |journal| {
            let facts = [("throttled/b", Some(json!("x"))), ("serial", Some(json!(1))), ("throttled/a", None)];
            let facts = facts.map(|(key, value)| (key.to_owned(), value)).to_vec();
            journal.put_facts(Fence(0), facts).await.expect("nothing fails");
            (journal.facts("throttled/").await, journal.facts("").await)
        })
        .await;
        assert_eq!(result.0.expect("it reads"), [("throttled/b".to_owned(), json!("x"))]);
        assert_eq!(result.1.expect("it reads").len(), 2);
        let (facts, _) = with(&tree, async |journal| journal.facts("").await).await;
        assert_eq!(facts.expect("it reads").len(), 2, "and after reopening");
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_by_name() {
        let tree = filled().await;
        let (errors, ended) = with(&tree, async |journal| {
            let large = |kib: usize| json!("x".repeat(kib << 10));
            let big = NewRecord { kind: "asked", payload: large(64) };
            let fact = |key: &str, value| vec![(key.to_owned(), Some(value))];
            [
                journal.commit(RUN, Revision(3), Fence(0), vec![big], json!({})).await.map(drop),
                journal.commit(RUN, Revision(3), Fence(0), vec![], large(16)).await.map(drop),
                journal.commit(RUN, Revision(3), Fence(0), vec![record(1); 65], json!({})).await.map(drop),
                journal.put_facts(Fence(0), fact(&"k".repeat(201), json!(1))).await,
                journal.put_facts(Fence(0), fact("k", large(4))).await,
            ]
        })
        .await;
        for error in errors {
            let error = error.expect_err("over a limit");
            assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
        }
        ended.expect("not poisoned");
    }

    #[tokio::test]
    async fn what_could_not_be_read_back_is_not_written() {
        let tree = filled().await;
        let before = tree.disk().entries.clone();
        let (errors, ended) = with(&tree, async |journal| {
            let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
            let fact = |key: &str, value| vec![(key.to_owned(), Some(value))];
            [
                journal
                    .commit(
                        RUN,
                        Revision(3),
                        Fence(0),
                        vec![NewRecord { kind: "asked", payload: deep.clone() }],
                        json!({}),
                    )
                    .await
                    .map(drop),
                journal.commit(RUN, Revision(3), Fence(0), vec![], deep.clone()).await.map(drop),
                journal.put_facts(Fence(0), fact("k", deep)).await,
                journal.put_facts(Fence(0), fact("k\0", json!(1))).await,
            ]
        })
        .await;
        for error in errors {
            let error = error.expect_err("it would damage the store");
            assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
        }
        ended.expect("not poisoned");
        assert_eq!(tree.disk().entries, before);
    }

    #[tokio::test]
    async fn a_run_begins_with_a_record_and_its_summary_may_change_alone() {
        let tree = TestTree::default();
        let (results, _) = with(&tree, async |journal| {
            let empty = journal.commit(RUN, Revision(0), Fence(0), vec![], json!({})).await;
            let first = commit(journal, 0, 1).await;
            let summary = journal.commit(RUN, Revision(1), Fence(0), vec![], json!("new")).await;
            (empty, first, summary, journal.heads().await.expect("it reads"))
        })
        .await;
        assert!(matches!(results.0, Err(StoreError::Invalid { .. })));
        assert_eq!(results.1.expect("nothing fails"), Revision(1));
        assert_eq!(results.2.expect("nothing fails"), Revision(1));
        assert_eq!(results.3[0].summary, json!("new"));
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_by_number() {
        use super::super::frame::{Class, Frame, SCHEMA};
        let tree = filled().await;
        let meta = Frame { schema: SCHEMA + 1, ..Frame::new(Class::Meta, json!({ "store": STORE })) };
        tree.disk().entries.insert(keys::META.to_vec(), meta.encode(keys::META));
        let error = open(&tree).expect_err("written by a newer release");
        assert!(matches!(error, StoreError::Newer { schema: 2, supported: 1 }), "{error:?}");
    }

    /// What may be asked of a journal, with few enough runs and keys that they meet.
    #[derive(Debug, Clone)]
    enum Ask {
        Commit { run: u8, stale: bool, records: u8 },
        Fact { key: u8, value: Option<u8> },
        Reopen,
    }

    fn ask() -> impl Strategy<Value = Ask> {
        prop_oneof![
            4 => (0..4_u8, prop::bool::weighted(0.1), 0..3_u8)
                .prop_map(|(run, stale, records)| Ask::Commit { run, stale, records }),
            2 => (0..4_u8, any::<Option<u8>>()).prop_map(|(key, value)| Ask::Fact { key, value }),
            1 => Just(Ask::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each life is opened again, and opening checks everything: chains, counts, the seal, the mark.
        #[test]
        fn whatever_is_asked_the_store_opens_again_and_agrees(asked in prop::collection::vec(ask(), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let tree = TestTree::default();
            let mut runs = [0_u64; 4];
            let mut facts = std::collections::BTreeMap::new();
            for life in asked.split(|ask| matches!(ask, Ask::Reopen)) {
                let ((), ended) = runtime.block_on(with(&tree, async |journal| {
                    for ask in life {
                        match ask {
                            Ask::Reopen => {}
                            Ask::Commit { run, stale, records } => {
                                let (found, id) = (&mut runs[usize::from(*run)], Uuid::from_u128(u128::from(*run)));
                                let expected = Revision(*found + u64::from(*stale));
                                let records = vec![record(1); usize::from(*records)];
                                let more = records.len() as u64;
                                let result = journal.commit(id, expected, Fence(0), records, json!(found)).await;
                                match result {
                                    Ok(revision) => {
                                        *found += more;
                                        assert_eq!(revision.0, *found);
                                    }
                                    Err(StoreError::Conflict { .. }) => assert!(stale),
                                    Err(error) => {
                                        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
                                        assert_eq!(*found + more, 0);
                                    }
                                }
                            }
                            Ask::Fact { key, value } => {
                                let (key, value) = (format!("k{key}"), value.map(|value| json!(value)));
                                journal.put_facts(Fence(0), vec![(key.clone(), value.clone())]).await.expect("it is small");
                                match value {
                                    Some(value) => facts.insert(key, value),
                                    None => facts.remove(&key),
                                };
                            }
                        }
                    }
                    let heads = journal.heads().await.expect("it reads");
                    let found = heads.iter().map(|head| (head.run, head.revision.0));
                    let expected = (0..).map(Uuid::from_u128).zip(runs).filter(|(_, revision)| *revision > 0);
                    assert!(found.eq(expected), "{heads:?} is not {runs:?}");
                    assert!(journal.facts("").await.expect("it reads").into_iter().eq(facts.clone()));
                }));
                ended.expect("nothing fails");
            }
            open(&tree).expect("it opens once more");
        }
    }
}
