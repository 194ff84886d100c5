//! A cell in memory, for tests.

use std::sync::{Arc, Mutex};

use super::{CellError, DeploymentKey, Epoch, RootCell, RootKey, SecretKey};
use crate::crypto::secret::KEY_BYTES;

type Held = Vec<(Epoch, [u8; KEY_BYTES])>;

/// What outlives a process.
pub(crate) struct MemoryCell {
    deployment: DeploymentKey,
    byte: u8,
    held: Arc<Mutex<Held>>,
    roots: Vec<(Epoch, RootKey)>,
}

impl MemoryCell {
    /// A new cell whose deployment key is `byte` 32 times.
    pub(crate) fn new(byte: u8) -> Self {
        let mut cell = Self::over(byte, Arc::default());
        cell.prepare(Epoch(1)).unwrap();
        cell
    }

    /// The same cell as another process would open it.
    pub(crate) fn reopen(&self) -> Self {
        Self::over(self.byte, Arc::clone(&self.held))
    }

    /// A copy, as a thief makes one.
    pub(crate) fn copy(&self) -> Self {
        let held = self.held.lock().unwrap().clone();
        Self::over(self.byte, Arc::new(Mutex::new(held)))
    }

    fn over(byte: u8, held: Arc<Mutex<Held>>) -> Self {
        let root = |(epoch, key): &(Epoch, [u8; KEY_BYTES])| {
            (*epoch, RootKey(SecretKey::copy_from(key).unwrap()))
        };
        let roots = held.lock().unwrap().iter().map(root).collect();
        Self { deployment: DeploymentKey::for_tests(byte), byte, held, roots }
    }
}

impl RootCell for MemoryCell {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn deployment(&self) -> &DeploymentKey {
        &self.deployment
    }

    fn roots(&self) -> &[(Epoch, RootKey)] {
        &self.roots
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<(), CellError> {
        if self.roots.len() > 1 || self.roots.iter().any(|(held, _)| *held >= epoch) {
            return Err(CellError::NotNext { epoch });
        }
        let key = SecretKey::random()?;
        self.held.lock().unwrap().push((epoch, *key.bytes()));
        self.roots.push((epoch, RootKey(key)));
        Ok(())
    }

    fn retire_all_but(&mut self, epoch: Epoch) -> Result<(), CellError> {
        if self.roots.iter().all(|(held, _)| *held != epoch) {
            return Err(CellError::NoSuchEpoch { epoch });
        }
        self.held.lock().unwrap().retain(|(held, _)| *held == epoch);
        self.roots.retain(|(held, _)| *held == epoch);
        Ok(())
    }

    fn destroy(&mut self) -> Result<(), CellError> {
        self.held.lock().unwrap().clear();
        self.roots.clear();
        Ok(())
    }
}
