//! What the service has to remember besides records: filings, beats of alternatives, clocks.
//!
//! A fact is a small value under a kind and a name. It takes no revision: nobody's template hangs
//! on it. Its row's key is a MAC, so that a backend sees neither kind nor name.
//!
//! # Invariants
//! - A fact is durable, with its audit entry where it has one, before anybody is told.
//! - A fact that does not open is an error, never "no such fact".

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::backend::{Opaque, RowKey, Table, Write};
use super::changes::encoded;
use super::log::AuditEvent;
use super::sealing::Keys;
use super::trail::Note;
use super::typed::Store;
use crate::crypto::{DIGEST_BYTES, mac, open, seal};
use crate::types::{ControllerId, SubjectRef};

const ROWS_AT_ONCE: usize = 4096;
const WHAT: &str = "fact";

/// What a fact is about. One kind, one type of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// Where a controller stands with the authority, by controller.
    Filing,
    /// When an alternative of a gate was last heard of, by gate and alternative.
    Heartbeat,
    /// Failed attempts, by what they were made at.
    Lockout,
    /// How far time has come.
    Clock,
    /// The month in which a record was last used, by record.
    LastUse,
    /// The rules under which all that is held was looked at.
    Rules,
}

/// One change of a fact.
#[derive(Debug, Clone)]
pub struct Fact {
    kind: FactKind,
    name: String,
    value: Option<serde_json::Value>,
}

impl Fact {
    /// The fact has this value from now on.
    ///
    /// # Errors
    /// The value has no JSON.
    pub fn new(
        kind: FactKind,
        name: impl Into<String>,
        value: &impl Serialize,
    ) -> Result<Self, StoreError> {
        Ok(Self { kind, name: name.into(), value: Some(serde_json::to_value(value)?) })
    }

    /// The fact is gone from now on.
    pub fn gone(kind: FactKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), value: None }
    }
}

/// A fact's row, opened.
#[derive(Serialize, Deserialize)]
struct Row {
    kind: FactKind,
    name: String,
    value: serde_json::Value,
}

impl Store {
    /// Remembers `facts` in one commit, with an audit entry where there is one; durable on return.
    ///
    /// # Errors
    /// The disk is full, or the backend.
    pub async fn remember(
        &self,
        facts: Vec<Fact>,
        event: Option<&AuditEvent<'_>>,
    ) -> Result<(), StoreError> {
        self.check_space()?;
        let writes = self.fact_writes(facts)?;
        let (vault, note) = (Arc::clone(&self.vault), event.map(|event| Note::of(encoded(event))));
        let work = move || {
            vault.keep(writes);
            if let Some(note) = note {
                vault.note(note);
            }
        };
        Ok(self.backend.note(Box::new(work)).await?)
    }

    /// Facts, sealed.
    pub(super) fn fact_writes(&self, facts: Vec<Fact>) -> Result<Vec<Write>, StoreError> {
        facts.into_iter().map(|fact| self.keys.fact_write(fact)).collect()
    }

    /// A name for a fact about a controller's subject that tells nobody whom it is about, not even
    /// whoever opens its row.
    #[must_use]
    pub fn blind_name(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> [u8; DIGEST_BYTES] {
        let (controller, subject) = (controller.as_str().as_bytes(), subject.as_str().as_bytes());
        mac(&self.keys.claim_names, &[b"subject of a fact", controller, subject])
    }

    /// Every fact. Rows do not show their kind, so all are opened, once.
    ///
    /// # Errors
    /// A fact does not open, or the backend.
    pub async fn facts(&self) -> Result<Facts, StoreError> {
        let (mut facts, mut after) = (Facts::default(), None);
        loop {
            let rows = self.backend.scan(Table::Facts, after, ROWS_AT_ONCE).await?;
            let full = rows.len() == ROWS_AT_ONCE;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, value) in &rows {
                let Row { kind, name, value } = self.keys.open_fact(key, value)?;
                facts.0.entry(kind).or_default().push((name, value));
            }
            if !full {
                return Ok(facts);
            }
        }
    }
}

/// Facts as they were opened, by kind.
#[derive(Default)]
pub struct Facts(HashMap<FactKind, Vec<(String, serde_json::Value)>>);

impl Facts {
    /// Those of a kind, by name, in no order; they are not there any more then.
    ///
    /// # Errors
    /// One is not what its kind is.
    pub fn take<T: DeserializeOwned>(
        &mut self,
        kind: FactKind,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let facts = self.0.remove(&kind).unwrap_or_default().into_iter();
        let shaped = facts.map(|(name, value)| {
            let value = serde_json::from_value(value);
            Ok((name, value.map_err(|_shape| StoreError::Malformed { what: WHAT })?))
        });
        shaped.collect()
    }
}

impl Keys {
    fn fact_write(&self, fact: Fact) -> Result<Write, StoreError> {
        let Fact { kind, name, value } = fact;
        let key = self.fact_key(kind, &name)?;
        let Some(value) = value else { return Ok(Write::Remove(Table::Facts.row(key))) };
        let plain = serde_json::to_vec(&Row { kind, name, value })?;
        let sealed = seal(&self.facts, key.as_bytes(), &plain)?;
        Ok(Write::Put(Table::Facts.row(key), sealed.into()))
    }

    fn open_fact(&self, key: &RowKey, row: &Opaque) -> Result<Row, StoreError> {
        let plain = open(&self.facts, key.as_bytes(), row.as_bytes())
            .map_err(|source| StoreError::Altered { what: WHAT, source })?;
        serde_json::from_slice(&plain).ok().ok_or(StoreError::Malformed { what: WHAT })
    }

    fn fact_key(&self, kind: FactKind, name: &str) -> Result<RowKey, StoreError> {
        let kind = serde_json::to_vec(&kind)?;
        Ok(RowKey::mac(mac(&self.claim_names, &[b"fact", kind.as_slice(), name.as_bytes()])))
    }
}
