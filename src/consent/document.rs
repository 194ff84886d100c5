//! Policy documents: the TOML that operators write (docs/policy.md).
//!
//! # Invariants
//! - A document that exists is well-formed: every mandatory field is there, no field is unknown,
//!   every gate has an alternative (G1) and stands where the law allows gates at all (G3).
//! - What depends on the profile or on what was applied before is `Policy::apply`'s to check.

use toml::de::DeTable;

use super::assessment::Assessment;
use super::fields::{Fields, Lines, Place, objects};
use super::gate::{
    Alternative, Alternatives, DEFAULT_MIN_EYE_DISTANCE_PX, Gate, HEARTBEAT_S, PlaceRule, PlaceType,
};
use super::notice::{Controller, Notice, NoticeText, PublicText};
use super::operating_point::ErrorRate;
use super::refusal::{PolicyError, PolicyFault};
use crate::types::{GateId, TextFault, Timestamp, personal_identifier};

/// An object and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) place: Place,
    pub(super) value: T,
}

/// A well-formed policy document.
///
/// ```
/// use assent::consent::PolicyDocument;
/// let wrong = "[[controllers]]\nid = 'maple'\nname = 'Maple Court'\n";
/// let refusal = PolicyDocument::parse(wrong).unwrap_err().to_string();
/// assert_eq!(refusal, "line 1: controllers \"maple\": contact: is missing");
/// ```
#[derive(Debug, Clone, Default)]
pub struct PolicyDocument {
    pub(super) controllers: Vec<Entry<Controller>>,
    pub(super) notices: Vec<Entry<Notice>>,
    pub(super) gates: Vec<Entry<Gate>>,
    pub(super) assessments: Vec<Entry<Assessment>>,
}

impl PolicyDocument {
    /// Whether all that it says came to pass did so by `now`.
    ///
    /// # Errors
    /// The first thing that did not, with its line.
    pub fn check_past(&self, now: Timestamp) -> Result<(), PolicyError> {
        let future =
            |entry: &&Entry<Controller>| entry.value.incident_at.is_some_and(|at| at > now);
        match self.controllers.iter().find(future) {
            Some(entry) => Err(entry.place.refuse("incident_at", PolicyFault::InFuture { now })),
            None => Ok(()),
        }
    }

    /// The refusal of a gate's field, with its line, where the gate is in the document.
    #[must_use]
    pub fn refuse_gate(
        &self,
        gate: &GateId,
        field: &str,
        fault: PolicyFault,
    ) -> Option<PolicyError> {
        let entry = self.gates.iter().find(|entry| entry.value.id == *gate)?;
        Some(entry.place.refuse(field, fault))
    }

    /// Parses a document of tables `controllers`, `notices`, `assessments` and `gates`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let lines = Lines::of(text);
        let root = DeTable::parse(text).map_err(|error| PolicyError::Syntax {
            line: lines.at(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let mut document = Self::default();
        for (key, value) in root.into_inner() {
            match key.get_ref().as_ref() {
                "controllers" => document.controllers = read("controllers", value, &lines)?,
                "notices" => document.notices = read("notices", value, &lines)?,
                "gates" => document.gates = read("gates", value, &lines)?,
                "assessments" => document.assessments = read("assessments", value, &lines)?,
                name => {
                    let line = lines.at(key.span().start);
                    return Err(PolicyError::UnknownTable { line, name: name.to_owned() });
                }
            }
        }
        Ok(document)
    }
}

/// An object of the document.
trait Object: Sized {
    /// Takes the object's fields.
    fn take(fields: &mut Fields<'_, '_>) -> Result<Self, PolicyError>;
    /// The id by which changes and refusals name it, unique in its table.
    fn name(&self) -> String;
}

/// Reads one table; an object that appears twice is refused.
fn read<T: Object>(
    table: &'static str,
    value: toml::Spanned<toml::de::DeValue<'_>>,
    lines: &Lines,
) -> Result<Vec<Entry<T>>, PolicyError> {
    let mut names = std::collections::BTreeSet::new();
    let mut entries = Vec::new();
    for mut fields in objects(table, value, lines)? {
        let value = T::take(&mut fields)?;
        let place = fields.finish()?.named(value.name());
        if !names.insert(place.id.clone()) {
            return Err(place.refuse("id", PolicyFault::Repeated));
        }
        entries.push(Entry { place, value });
    }
    Ok(entries)
}

impl Object for Controller {
    fn take(fields: &mut Fields<'_, '_>) -> Result<Self, PolicyError> {
        Ok(Self {
            id: fields.required("id")?,
            name: fields.required("name")?,
            contact: fields.required("contact")?,
            duplicates: fields.optional("duplicates")?,
            inactive_months: fields.optional("inactive_months")?,
            incident_at: fields.optional_instant("incident_at")?,
        })
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

impl Object for Notice {
    fn take(fields: &mut Fields<'_, '_>) -> Result<Self, PolicyError> {
        Ok(Self {
            controller: fields.required("controller")?,
            id: fields.required("id")?,
            version: fields.required("version")?,
            effective_from: fields.instant("effective_from")?,
            purposes: fields.list("purposes")?,
            texts: fields
                .children("texts", PolicyFault::Empty)?
                .into_iter()
                .map(notice_text)
                .collect::<Result<_, _>>()?,
        })
    }

    fn name(&self) -> String {
        format!("{}/{}@{}", self.controller, self.id, self.version)
    }
}

/// C6: each part of the text is mandatory (M5).
fn notice_text(mut fields: Fields<'_, '_>) -> Result<NoticeText, PolicyError> {
    let text = NoticeText {
        language: fields.required("language")?,
        controller_contact: fields.required("controller_contact")?,
        purpose_and_method: fields.required("purpose_and_method")?,
        retention: fields.required("retention")?,
        necessity_and_impact: fields.required("necessity_and_impact")?,
        rights: fields.required("rights")?,
    };
    fields.finish()?;
    Ok(text)
}

/// O2: each part is mandatory (M9).
impl Object for Assessment {
    fn take(fields: &mut Fields<'_, '_>) -> Result<Self, PolicyError> {
        Ok(Self {
            controller: fields.required("controller")?,
            version: fields.required("version")?,
            assessed_at: fields.instant("assessed_at")?,
            purposes: fields.list("purposes")?,
            model: fields.required("model")?,
            document_sha256: fields.required("document_sha256")?,
            lawfulness: impersonal(fields, "lawfulness")?,
            impact: impersonal(fields, "impact")?,
            risks: impersonal(fields, "risks")?,
            safeguards: impersonal(fields, "safeguards")?,
        })
    }

    fn name(&self) -> String {
        format!("{}@{}", self.controller, self.version)
    }
}

/// A text that names nobody (D1).
fn impersonal(fields: &mut Fields<'_, '_>, name: &str) -> Result<PublicText, PolicyError> {
    let text: PublicText = fields.required(name)?;
    match personal_identifier(text.as_str()) {
        None => Ok(text),
        Some(found) => {
            let message = TextFault::Personal(found).to_string();
            Err(fields.refuse(name, PolicyFault::Invalid { message }))
        }
    }
}

impl Object for Gate {
    fn take(fields: &mut Fields<'_, '_>) -> Result<Self, PolicyError> {
        Ok(Self {
            id: fields.required("id")?,
            controller: fields.required("controller")?,
            label: fields.required("label")?,
            place_type: place_type(fields)?,
            purposes: fields.list("purposes")?,
            scopes: fields.list("scopes")?,
            public_place: fields.optional("public_place")?,
            comparison: fields.optional("comparison")?,
            fmr: fields.optional("fmr")?.unwrap_or(ErrorRate::DEFAULT_FMR),
            fpir: fields.optional("fpir")?.unwrap_or(ErrorRate::DEFAULT_FPIR),
            margin: fields.optional("margin")?,
            outgrown: fields.optional("outgrown")?.unwrap_or_default(),
            min_eye_distance_px: fields
                .optional("min_eye_distance_px")?
                .unwrap_or(DEFAULT_MIN_EYE_DISTANCE_PX),
            face_enabled: fields.optional("face_enabled")?.unwrap_or(true),
            single_face: fields.optional("single_face")?.unwrap_or(false),
            newest_frame_wins: fields.optional("newest_frame_wins")?.unwrap_or(true),
            expose_similarity: fields.optional("expose_similarity")?.unwrap_or(false),
            pad: fields.optional("pad")?.unwrap_or_default(),
            lockout_after: fields.optional("lockout_after")?,
            require_alternative: fields.optional("require_alternative")?.unwrap_or(false),
            alternatives: alternatives(fields)?,
        })
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

/// G3: no gate in a private room, and none that does not say where it stands.
fn place_type(fields: &mut Fields<'_, '_>) -> Result<PlaceType, PolicyError> {
    let place_type: PlaceType = fields.required("place_type")?;
    match place_type.rule() {
        PlaceRule::Ordinary | PlaceRule::Public => Ok(place_type),
        PlaceRule::Never => {
            Err(fields.refuse("place_type", PolicyFault::ForbiddenPlace(place_type)))
        }
    }
}

/// G1: at least one.
fn alternatives(fields: &mut Fields<'_, '_>) -> Result<Alternatives, PolicyError> {
    let none = PolicyFault::NoAlternative(super::gate::NoAlternative);
    let ways = fields.children("alternatives", none)?.into_iter().map(alternative);
    Alternatives::new(ways.collect::<Result<_, _>>()?)
        .map_err(|none| fields.refuse("alternatives", none.into()))
}

fn alternative(mut fields: Fields<'_, '_>) -> Result<Alternative, PolicyError> {
    let way = Alternative {
        method: fields.required("method")?,
        hint: fields.required("hint")?,
        accessible: fields.optional("accessible")?.unwrap_or(false),
        heartbeat_s: fields.within("heartbeat_s", &HEARTBEAT_S)?,
    };
    fields.finish()?;
    Ok(way)
}
