//! Reads the objects of a policy document field by field, and knows the line of each.
//!
//! # Invariants
//! - Every refusal names the table, the object's id, the field and the line.
//! - A field that nobody took is refused: a misspelt rule never passes unnoticed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::refusal::{PolicyError, PolicyFault};
use crate::types::Timestamp;

/// Longest list of the document, such as a gate's scopes, entries. It bounds what one gate's
/// grant can cost: 64 purposes times 64 scopes.
const LIST_ENTRIES: usize = 64;

/// Maps byte offsets of a document to lines.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of `offset`, from 1.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

/// Where an object stands in the document, for refusals that are found later.
#[derive(Debug, Clone)]
pub(super) struct Place {
    table: &'static str,
    pub(super) id: String,
    pub(super) line: usize,
    lines: BTreeMap<String, usize>,
}

impl Place {
    /// The place of an object that bears this name.
    pub(super) fn named(self, id: String) -> Self {
        Self { id, ..self }
    }

    /// The refusal of `field`, with its line where the document has the field.
    pub(super) fn refuse(&self, field: impl Into<String>, fault: PolicyFault) -> PolicyError {
        let field = field.into();
        let line = self.lines.get(&field).copied().unwrap_or(self.line);
        PolicyError::Object { line, table: self.table, id: self.id.clone(), field, fault }
    }
}

/// One object of the document, being read.
pub(super) struct Fields<'i, 'l> {
    place: Place,
    /// Path from the object to this table: empty, or such as "texts[0].".
    path: String,
    entries: DeTable<'i>,
    lines: &'l Lines,
}

/// The objects of one table of the document.
pub(super) fn objects<'i, 'l>(
    table: &'static str,
    value: Spanned<DeValue<'i>>,
    lines: &'l Lines,
) -> Result<Vec<Fields<'i, 'l>>, PolicyError> {
    let line = lines.at(value.span().start);
    let place = Place { table, id: String::new(), line, lines: BTreeMap::new() };
    let tables = tables(value, lines).map_err(|line| {
        let message = format!("expected [[{table}]]");
        Place { line, ..place.clone() }.refuse(table, PolicyFault::Invalid { message })
    })?;
    let read = tables.into_iter().map(|(line, entries)| {
        let id = entries.get("id").and_then(|id| id.get_ref().as_str()).unwrap_or_default();
        let place = Place { id: id.to_owned(), line, ..place.clone() };
        Fields { place, path: String::new(), entries, lines }
    });
    Ok(read.collect())
}

/// The tables of an array of tables with their lines; else the line of what is none.
fn tables<'i>(
    value: Spanned<DeValue<'i>>,
    lines: &Lines,
) -> Result<Vec<(usize, DeTable<'i>)>, usize> {
    let line = lines.at(value.span().start);
    let DeValue::Array(array) = value.into_inner() else { return Err(line) };
    let table = |value: Spanned<DeValue<'i>>| {
        let line = lines.at(value.span().start);
        if let DeValue::Table(table) = value.into_inner() { Ok((line, table)) } else { Err(line) }
    };
    array.into_iter().map(table).collect()
}

impl<'i, 'l> Fields<'i, 'l> {
    /// A mandatory field.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, PolicyError> {
        self.optional(name)?.ok_or_else(|| self.refuse(name, PolicyFault::Missing))
    }

    /// A field that may be left out.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, PolicyError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let value = T::deserialize(ValueDeserializer::from(value)).map_err(|error| {
            let message = error.message().to_owned();
            self.refuse(name, PolicyFault::Invalid { message })
        })?;
        Ok(Some(value))
    }

    /// A number in `range` that may be left out.
    pub(super) fn within(
        &mut self,
        name: &str,
        range: &RangeInclusive<u32>,
    ) -> Result<Option<u32>, PolicyError> {
        let value = self.optional(name)?;
        if value.is_some_and(|value| !range.contains(&value)) {
            let (least, most) = (*range.start(), *range.end());
            return Err(self.refuse(name, PolicyFault::OutOfRange { least, most }));
        }
        Ok(value)
    }

    /// A mandatory list of 1 to 64 entries.
    pub(super) fn list<T: DeserializeOwned>(&mut self, name: &str) -> Result<Vec<T>, PolicyError> {
        let list = self.required(name)?;
        self.bounded(name, list, PolicyFault::Empty)
    }

    /// A mandatory instant: a TOML date-time with offset, or a string of that form.
    pub(super) fn instant(&mut self, name: &str) -> Result<Timestamp, PolicyError> {
        self.optional_instant(name)?.ok_or_else(|| self.refuse(name, PolicyFault::Missing))
    }

    /// An instant that may be left out.
    pub(super) fn optional_instant(
        &mut self,
        name: &str,
    ) -> Result<Option<Timestamp>, PolicyError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = match value.get_ref().as_datetime() {
            Some(instant) => instant.to_string(),
            None => value.get_ref().as_str().unwrap_or_default().to_owned(),
        };
        text.parse().map(Some).map_err(|error: crate::types::InvalidTime| {
            self.refuse(name, PolicyFault::Invalid { message: error.to_string() })
        })
    }

    /// A mandatory array of 1 to 64 tables; `if_empty` is said when there is none.
    pub(super) fn children(
        &mut self,
        name: &str,
        if_empty: PolicyFault,
    ) -> Result<Vec<Fields<'i, 'l>>, PolicyError> {
        let Some(value) = self.take(name) else { return Err(self.refuse(name, if_empty)) };
        let tables = tables(value, self.lines).map_err(|_line_of_the_field| {
            let message = format!("expected tables: [[{}.{name}]]", self.place.table);
            self.refuse(name, PolicyFault::Invalid { message })
        })?;
        let children = tables.into_iter().enumerate().map(|(i, (line, entries))| Fields {
            place: Place { line, ..self.place.clone() },
            path: format!("{}{name}[{i}].", self.path),
            entries,
            lines: self.lines,
        });
        self.bounded(name, children.collect(), if_empty)
    }

    /// Refuses what nobody took.
    pub(super) fn finish(mut self) -> Result<Place, PolicyError> {
        match self.entries.keys().next() {
            Some(key) => {
                let name = key.get_ref().to_string();
                self.take(&name);
                Err(self.refuse(&name, PolicyFault::Unknown))
            }
            None => Ok(self.place),
        }
    }

    /// The refusal of a field of this table.
    pub(super) fn refuse(&self, name: &str, fault: PolicyFault) -> PolicyError {
        self.place.refuse(format!("{}{name}", self.path), fault)
    }

    fn take(&mut self, name: &str) -> Option<Spanned<DeValue<'i>>> {
        let (key, value) = self.entries.remove_entry(name)?;
        self.place.lines.insert(format!("{}{name}", self.path), self.lines.at(key.span().start));
        Some(value)
    }

    fn bounded<T>(
        &self,
        name: &str,
        list: Vec<T>,
        if_empty: PolicyFault,
    ) -> Result<Vec<T>, PolicyError> {
        if list.is_empty() {
            Err(self.refuse(name, if_empty))
        } else if list.len() > LIST_ENTRIES {
            Err(self.refuse(name, PolicyFault::TooMany { limit: LIST_ENTRIES }))
        } else {
            Ok(list)
        }
    }
}
