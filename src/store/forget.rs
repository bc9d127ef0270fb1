//! Taking a whole run out of the store, so that it does not grow for ever.
//!
//! A commit like any other: head and records go in one batch, the totals lose exactly what the head had put into them, and
//! the commit number grows, so the high-water mark goes on as before. A crash leaves the whole run or nothing of it. The chain
//! of every other run is its own and is not touched.

use uuid::Uuid;

use super::error::StoreError;
use super::journal::{Journal, Request};
use super::keys;
use super::ledger::{Fence, Ledger, Revision, Staged};
use super::tree::Batch;

impl Journal {
    /// Takes a run out with all its records; durable when this returns. One that is not there any more is no error.
    ///
    /// Whoever calls knows that the run is at an end: `expected` is its revision then, so nothing has been added since.
    ///
    /// # Errors
    /// As [`Journal::commit`].
    pub async fn remove(&self, run: Uuid, expected: Revision, fence: Fence) -> Result<(), StoreError> {
        self.ask(|reply| Request::Remove { run, expected, fence, reply }).await
    }
}

impl Ledger {
    /// The batch that takes a run out; `None` when it is not there.
    pub(super) fn stage_removal(
        &self,
        run: Uuid,
        expected: Revision,
        fence: Fence,
    ) -> Result<Option<Staged>, StoreError> {
        let mut totals = self.next_totals(fence)?;
        let Some(head) = self.heads.get(&run) else { return Ok(None) };
        if head.revision != expected {
            return Err(StoreError::Conflict { run, expected, found: head.revision });
        }
        totals.toggle(&head.leaf);
        totals.runs -= 1;
        let records = (1..=head.revision.0).map(|seq| keys::record(run, seq));
        let batch = Batch {
            puts: vec![(keys::TOTALS.to_vec(), totals.encode())],
            deletes: std::iter::once(keys::head(run)).chain(records).collect(),
        };
        Ok(Some(Staged::removal(batch, totals, run)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::committer::Committer;
    use super::super::journal::NewRecord;
    use super::super::test_tree::TestTree;
    use super::*;

    const STORE: Uuid = Uuid::from_u128(9);

    fn run(number: u128) -> Uuid {
        Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
    }

    fn open(tree: &TestTree) -> (Journal, Committer) {
        Journal::open(Box::new(tree.clone()), STORE).expect("the tree is sound")
    }

    async fn with<T>(tree: &TestTree, test: impl AsyncFnOnce(&Journal) -> T) -> T {
        let (journal, committer) = open(tree);
        let work = async move { test(&journal).await };
        let (result, ended) = tokio::join!(work, committer.run());
        ended.expect("nothing fails");
        result
    }

    async fn fill(journal: &Journal, number: u128, records: u64) {
        let records = (1..=records).map(|n| NewRecord { kind: "asked", payload: json!({ "n": n }) }).collect();
        let done = journal.commit(run(number), Revision(0), Fence(3), records, json!({ "run": number })).await;
        done.expect("nothing fails");
    }

    /// Opening checks every frame, chain, total and seal, and that the tree is not behind its mark.
    #[tokio::test]
    async fn a_run_is_gone_and_the_others_are_sound_after_reopening() {
        let tree = TestTree::default();
        with(&tree, async |journal| {
            fill(journal, 1, 3).await;
            fill(journal, 2, 70 - 7).await;
            fill(journal, 3, 1).await;
            journal.put_facts(Fence(3), vec![("memory/x".into(), Some(json!(1)))]).await.expect("nothing fails");
        })
        .await;
        with(&tree, async |journal| {
            journal.remove(run(2), Revision(63), Fence(3)).await.expect("it goes");
            assert!(journal.load(run(2)).await.expect("it reads").is_none());
        })
        .await;
        with(&tree, async |journal| {
            let heads = journal.heads().await.expect("they read");
            assert_eq!(heads.iter().map(|head| head.run).collect::<Vec<_>>(), [run(1), run(3)]);
            let (_, records) = journal.load(run(1)).await.expect("it reads").expect("it is there");
            assert_eq!(records.len(), 3);
            assert_eq!(journal.facts("").await.expect("they read").len(), 1);
            // Again, and what was never there.
            journal.remove(run(2), Revision(63), Fence(3)).await.expect("gone is gone");
            // The name may be used anew, as any other.
            fill(journal, 2, 2).await;
        })
        .await;
        assert!(
            tree.disk().entries.keys().filter(|key| key.windows(16).any(|it| it == run(2).as_bytes())).count() == 3
        );
        with(&tree, async |journal| assert_eq!(journal.heads().await.expect("they read").len(), 3)).await;
    }

    #[tokio::test]
    async fn a_run_that_has_moved_and_an_older_epoch_change_nothing() {
        let tree = TestTree::default();
        with(&tree, async |journal| fill(journal, 1, 3).await).await;
        let before = tree.disk().entries.clone();
        with(&tree, async |journal| {
            let moved = journal.remove(run(1), Revision(2), Fence(3)).await;
            assert!(matches!(moved, Err(StoreError::Conflict { .. })), "{moved:?}");
            let old = journal.remove(run(1), Revision(3), Fence(2)).await;
            assert!(matches!(old, Err(StoreError::Fenced { .. })), "{old:?}");
        })
        .await;
        assert_eq!(tree.disk().entries, before);
    }
}
