//! The disk under the journal: forgets what was not synced, tears what was being written.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::crash::Crash;
use crate::store::{Batch, ByteTree, Entry, TreeError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The platter and the cache in front of it. Outlives processes.
#[derive(Debug, Default)]
pub struct SimDisk {
    platter: Mutex<Platter>,
}

#[derive(Debug, Default, Clone)]
struct Platter {
    synced: Map,
    /// What a process reads: `synced` and all that is cached.
    current: Map,
    /// Batches that were applied and not synced, oldest first.
    cached: Vec<Batch>,
    marks: [Option<Vec<u8>>; 2],
    /// How many syncs were completed, for checkers.
    syncs: u64,
}

impl SimDisk {
    fn platter(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes: what was not synced is lost.
    pub fn power_cut(&self) {
        let mut platter = self.platter();
        platter.cached.clear();
        platter.current = platter.synced.clone();
    }

    /// How many syncs were completed.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.platter().syncs
    }

    /// What a process sees of the disk.
    #[must_use]
    pub fn tree(self: &Arc<Self>, crash: Arc<Crash>) -> Box<dyn ByteTree> {
        Box::new(SimTree { disk: Arc::clone(self), crash })
    }
}

struct SimTree {
    disk: Arc<SimDisk>,
    crash: Arc<Crash>,
}

fn died() -> TreeError {
    TreeError::Io(std::io::Error::other("the simulated process has died"))
}

fn write(map: &mut Map, batch: &Batch) {
    for key in &batch.deletes {
        map.remove(key);
    }
    for (key, value) in &batch.puts {
        map.insert(key.clone(), value.clone());
    }
}

impl ByteTree for SimTree {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, TreeError> {
        let platter = self.disk.platter();
        let from = platter.current.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        Ok(self.disk.platter().current.get(key).cloned())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TreeError> {
        if self.crash.hit("journal: before the append") {
            return Err(died());
        }
        {
            let mut platter = self.disk.platter();
            platter.cached.push(batch.clone());
            write(&mut platter.current, batch);
        }
        if self.crash.hit("journal: appended, not synced, lost") {
            return Err(died());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        if self.crash.hit("journal: torn: the first half of the group reached the platter") {
            let mut platter = self.disk.platter();
            let half = platter.cached.len().div_ceil(2);
            let batches: Vec<Batch> = platter.cached.drain(..).take(half).collect();
            for batch in batches {
                write(&mut platter.synced, &batch);
            }
            return Err(died());
        }
        {
            let mut platter = self.disk.platter();
            let batches: Vec<Batch> = platter.cached.drain(..).collect();
            for batch in batches {
                write(&mut platter.synced, &batch);
            }
            platter.syncs += 1;
        }
        if self.crash.hit("journal: synced, mark not written") {
            return Err(died());
        }
        Ok(())
    }

    fn read_mark(&self) -> Result<[Option<Vec<u8>>; 2], TreeError> {
        Ok(self.disk.platter().marks.clone())
    }

    fn write_mark(&mut self, slot: usize, bytes: &[u8]) -> Result<(), TreeError> {
        let marks = |bytes: &[u8]| {
            if let Some(mark) = self.disk.platter().marks.get_mut(slot) {
                *mark = Some(bytes.to_vec());
            }
        };
        if self.crash.hit("journal: mark torn") {
            marks(&bytes[..bytes.len() / 2]);
            return Err(died());
        }
        marks(bytes);
        if self.crash.hit("journal: mark written, not acknowledged") {
            return Err(died());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::laws::{self, Bed};

    struct Simulated(Arc<SimDisk>);

    impl Bed for Simulated {
        fn open(&mut self) -> Box<dyn ByteTree> {
            self.0.tree(Arc::default())
        }

        fn power_cut(&mut self) {
            self.0.power_cut();
        }
    }

    #[test]
    fn the_simulated_disk_keeps_the_laws() {
        laws::check(|| Simulated(Arc::default()));
    }
}
