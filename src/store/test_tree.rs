//! A tree in memory that writes down what was asked of it, for this module's own tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::tree::{Batch, ByteTree, Entry, TreeError};

/// What was asked of the tree, in order; tests add `Acked`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Applied,
    Synced,
    Marked(usize),
    Acked,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) marks: [Option<Vec<u8>>; 2],
    pub(super) calls: Vec<Call>,
    /// The next sync fails, those after it would work again: nobody may be fooled.
    pub(super) fail_sync: bool,
    pub(super) fail_apply: Option<TreeError>,
}

/// Cloned by the test that looks inside.
#[derive(Debug, Clone, Default)]
pub(super) struct TestTree(pub(super) Arc<Mutex<Disk>>);

impl TestTree {
    pub(super) fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().expect("no test panics while it holds the disk")
    }
}

impl ByteTree for TestTree {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, TreeError> {
        let disk = self.disk();
        let from = disk.entries.range(prefix.to_vec()..);
        Ok(from
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        Ok(self.disk().entries.get(key).cloned())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TreeError> {
        let mut disk = self.disk();
        if let Some(error) = disk.fail_apply.take() {
            return Err(error);
        }
        disk.calls.push(Call::Applied);
        disk.entries.extend(batch.puts.iter().cloned());
        for key in &batch.deletes {
            disk.entries.remove(key);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        let mut disk = self.disk();
        if std::mem::take(&mut disk.fail_sync) {
            return Err(std::io::Error::other("injected").into());
        }
        disk.calls.push(Call::Synced);
        Ok(())
    }

    fn read_mark(&self) -> Result<[Option<Vec<u8>>; 2], TreeError> {
        Ok(self.disk().marks.clone())
    }

    fn write_mark(&mut self, slot: usize, bytes: &[u8]) -> Result<(), TreeError> {
        let mut disk = self.disk();
        disk.calls.push(Call::Marked(slot));
        disk.marks[slot] = Some(bytes.to_vec());
        Ok(())
    }
}

#[test]
fn the_tree_of_these_tests_keeps_the_laws() {
    struct Memory(TestTree);

    impl super::laws::Bed for Memory {
        fn open(&mut self) -> Box<dyn ByteTree> {
            Box::new(self.0.clone())
        }
    }
    super::laws::check(|| Memory(TestTree::default()));
}

/// Laws that could not be broken would be none.
#[test]
fn a_tree_that_breaks_a_law_is_told_which() {
    struct Forgetful(TestTree);

    impl super::laws::Bed for Forgetful {
        fn open(&mut self) -> Box<dyn ByteTree> {
            Box::new(self.0.clone())
        }

        fn power_cut(&mut self) {
            self.0.disk().entries.pop_first();
        }
    }
    let broken = std::panic::catch_unwind(|| super::laws::check(|| Forgetful(TestTree::default())));
    let text = broken.expect_err("an entry goes in each power cut").downcast::<String>().expect("words");
    assert!(text.starts_with("what was synced is there after a power cut"), "{text}");
}
