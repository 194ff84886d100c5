//! The applied policy: controllers, notices and gates under one profile.
//!
//! # Invariants
//! - A policy that exists obeys its profile: a document is refused as a whole when one part of it
//!   does not.
//! - An applied notice (C6) or impact assessment (O2) never changes; an applied object never
//!   vanishes.
//! - Of one notice's versions no two become effective at the same instant, so that at most one is
//!   current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::assessment::{Assessment, AssessmentStanding};
use super::deployment::Deployment;
use super::document::{Entry, PolicyDocument};
use super::gate::{Gate, PlaceRule};
use super::notice::{Controller, Notice, NoticeStanding};
use super::pass::{GatePass, GateRefusal};
use super::profile::Profile;
use super::refusal::{PolicyError, PolicyFault};
use crate::types::{ControllerId, GateId, NoticeId, NoticeVersion, Purpose, Timestamp};

/// A month that has just begun is one month after yesterday.
const LEAST_INACTIVE_MONTHS: u32 = 2;
const MOST_INACTIVE_MONTHS: u32 = 120;

type Versions = BTreeMap<NoticeVersion, Arc<Notice>>;

/// The applied policy.
///
/// ```
/// use assent::consent::{Policy, PolicyDocument, Profile};
/// let document = PolicyDocument::parse(include_str!("../../docs/example-policy.toml"))?;
/// let empty = Policy::under(Profile::named("cn")?);
/// let (policy, changes) = empty.apply(&document)?;
/// let pass = policy.open_gate(&"north-gate-1".parse()?)?;
/// assert!(!pass.alternatives().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Policy {
    profile: Arc<Profile>,
    deployment: Arc<Deployment>,
    controllers: BTreeMap<ControllerId, Arc<Controller>>,
    notices: BTreeMap<(ControllerId, NoticeId), Versions>,
    assessments: BTreeMap<(ControllerId, NoticeVersion), Arc<Assessment>>,
    gates: BTreeMap<GateId, GatePass>,
}

/// What a document does to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The kind of object.
    pub object: PolicyObject,
    /// Its id; notices as "controller/notice@version".
    pub id: String,
    /// What happens to it.
    pub kind: ChangeKind,
    /// The fields that change, as "field: old -> new".
    pub fields: Vec<String>,
}

/// A kind of object that a policy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyObject {
    /// A legal person.
    Controller,
    /// A version of a notice.
    Notice,
    /// An impact assessment.
    Assessment,
    /// A door or turnstile.
    Gate,
}

impl PolicyObject {
    /// "controller", "notice", "assessment" or "gate".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Notice => "notice",
            Self::Assessment => "assessment",
            Self::Gate => "gate",
        }
    }
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It did not exist.
    Added,
    /// It existed with other content.
    Changed,
    /// It existed just so.
    Unchanged,
}

impl Policy {
    /// A policy without any object.
    #[must_use]
    pub fn under(profile: Profile) -> Self {
        Self {
            profile: Arc::new(profile),
            deployment: Arc::default(),
            controllers: BTreeMap::new(),
            notices: BTreeMap::new(),
            assessments: BTreeMap::new(),
            gates: BTreeMap::new(),
        }
    }

    /// The same in another deployment than one on a site's network that has loaded no model.
    #[must_use]
    pub fn within(self, deployment: Deployment) -> Self {
        Self { deployment: Arc::new(deployment), ..self }
    }

    /// The policy that `document` leads to, and what it changes, in the document's order. Objects
    /// that the document does not name stay. Applying the same document again changes nothing.
    ///
    /// # Errors
    /// The first part that the profile or the applied policy stands against, with its line.
    pub fn apply(&self, document: &PolicyDocument) -> Result<(Self, Vec<Change>), PolicyError> {
        let mut next = self.clone();
        let mut changes = Vec::new();
        for entry in &document.controllers {
            changes.push((entry.place.line, next.put_controller(entry)?));
        }
        for entry in &document.notices {
            changes.push((entry.place.line, next.put_notice(entry)?));
        }
        for entry in &document.assessments {
            changes.push((entry.place.line, next.put_assessment(entry)?));
        }
        for entry in &document.gates {
            changes.push((entry.place.line, next.put_gate(entry)?));
        }
        changes.sort_by_key(|(line, _)| *line);
        Ok((next, changes.into_iter().map(|(_, change)| change).collect()))
    }

    /// The whole policy as a document that [`PolicyDocument::parse`] accepts.
    ///
    /// # Panics
    /// Never: see the comment.
    #[must_use]
    pub fn to_toml(&self) -> String {
        #[derive(Serialize)]
        struct View<'a> {
            controllers: Vec<&'a Controller>,
            notices: Vec<&'a Notice>,
            assessments: Vec<&'a Assessment>,
            gates: Vec<&'a Gate>,
        }
        let view = View {
            controllers: self.controllers.values().map(Arc::as_ref).collect(),
            notices: self.notices().collect(),
            assessments: self.assessments().collect(),
            gates: self.gates().map(GatePass::gate).collect(),
        };
        // Strings, booleans, u32, finite floats, and tables of them: TOML can write each.
        toml::to_string(&view).expect("a policy is writable as TOML")
    }

    /// The profile in force.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The controller of that id.
    #[must_use]
    pub fn controller(&self, id: &ControllerId) -> Option<&Controller> {
        self.controllers.get(id).map(Arc::as_ref)
    }

    /// All gates.
    pub fn gates(&self) -> impl Iterator<Item = &GatePass> {
        self.gates.values()
    }

    /// The deployment that it is applied in.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// All controllers.
    pub fn controllers(&self) -> impl Iterator<Item = &Controller> {
        self.controllers.values().map(Arc::as_ref)
    }

    /// After how many calendar months without use a controller's records are erased; `None`: never
    /// for that (C7).
    #[must_use]
    pub fn inactive_months(&self, controller: &ControllerId) -> Option<u32> {
        let own = self.controllers.get(controller)?.inactive_months;
        own.or(self.profile.max_inactive_months)
    }

    /// All versions of all notices.
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.notices.values().flat_map(BTreeMap::values).map(Arc::as_ref)
    }

    /// All impact assessments.
    pub fn assessments(&self) -> impl Iterator<Item = &Assessment> {
        self.assessments.values().map(Arc::as_ref)
    }

    /// Whether the controller's impact assessments allow enrolling for `purpose` at `now` (O2).
    #[must_use]
    pub fn assessed(
        &self,
        controller: &ControllerId,
        purpose: &Purpose,
        now: Timestamp,
    ) -> AssessmentStanding {
        let own = self.assessments().filter(|a| a.controller == *controller);
        let incident = self.controllers.get(controller).and_then(|c| c.incident_at);
        AssessmentStanding::of(own, purpose, self.deployment.model.as_ref(), incident, now)
    }

    /// The newest impact assessment of the controller for `purpose` and the model in use that is
    /// concluded at `now`.
    #[must_use]
    pub fn assessment_of(
        &self,
        controller: &ControllerId,
        purpose: &Purpose,
        now: Timestamp,
    ) -> Option<&Assessment> {
        let model = self.deployment.model.as_ref();
        let fits = |a: &&Assessment| {
            a.controller == *controller
                && a.purposes.contains(purpose)
                && (a.assessed_at <= now)
                && model.is_none_or(|model| *model == a.model)
        };
        self.assessments().filter(fits).max_by_key(|a| a.assessed_at)
    }

    /// Each purpose of a gate that nobody can be enrolled for at `now`, for want of an impact
    /// assessment (O2).
    #[must_use]
    pub fn unassessed(&self, now: Timestamp) -> Vec<(&ControllerId, &Purpose, AssessmentStanding)> {
        if !self.profile.impact_assessment_required {
            return Vec::new();
        }
        let gates = self.gates().map(GatePass::gate);
        let purposes: BTreeSet<_> =
            gates.flat_map(|g| g.purposes.iter().map(move |p| (&g.controller, p))).collect();
        let judged = purposes.into_iter().map(|(c, p)| (c, p, self.assessed(c, p, now)));
        judged.filter(|(.., standing)| *standing != AssessmentStanding::Current).collect()
    }

    /// The pass of a gate: a look-up, nothing is computed.
    ///
    /// # Errors
    /// No such gate was applied.
    pub fn open_gate(&self, id: &GateId) -> Result<GatePass, GateRefusal> {
        self.gates.get(id).cloned().ok_or(GateRefusal::UnknownGate)
    }

    /// One version of a notice.
    #[must_use]
    pub fn notice(
        &self,
        controller: &ControllerId,
        id: &NoticeId,
        version: &NoticeVersion,
    ) -> Option<&Notice> {
        self.versions(controller, id)?.get(version).map(Arc::as_ref)
    }

    /// The version to consent to at `now`: of those that are effective, the latest.
    #[must_use]
    pub fn current_notice(
        &self,
        controller: &ControllerId,
        id: &NoticeId,
        now: Timestamp,
    ) -> Option<&Notice> {
        let effective = self.versions(controller, id)?.values().filter(|n| n.effective_from <= now);
        effective.max_by_key(|n| n.effective_from).map(Arc::as_ref)
    }

    /// Where an applied notice stands at `now`.
    #[must_use]
    pub fn standing(&self, notice: &Notice, now: Timestamp) -> NoticeStanding {
        if notice.effective_from > now {
            return NoticeStanding::NotYetEffective;
        }
        let siblings = self.versions(&notice.controller, &notice.id);
        let later = siblings.into_iter().flat_map(BTreeMap::values).map(|n| n.effective_from);
        let successor = later.filter(|from| (notice.effective_from < *from) && *from <= now).min();
        successor.map_or(NoticeStanding::Current, |at| NoticeStanding::Superseded { at })
    }

    fn versions(&self, controller: &ControllerId, id: &NoticeId) -> Option<&Versions> {
        self.notices.get(&(controller.clone(), id.clone()))
    }

    fn put_controller(&mut self, entry: &Entry<Controller>) -> Result<Change, PolicyError> {
        let most = self.profile.max_inactive_months.unwrap_or(MOST_INACTIVE_MONTHS);
        let fits = |months: u32| (LEAST_INACTIVE_MONTHS..=most).contains(&months);
        if !entry.value.inactive_months.is_none_or(fits) {
            let fault = PolicyFault::InactiveMonths { most };
            return Err(entry.place.refuse("inactive_months", fault));
        }
        let known = self.controllers.get(&entry.value.id).and_then(|old| old.incident_at);
        if let Some(at) = known.filter(|at| entry.value.incident_at.is_none_or(|new| new < *at)) {
            return Err(entry.place.refuse("incident_at", PolicyFault::IncidentTakenBack { at }));
        }
        let old = self.controllers.insert(entry.value.id.clone(), Arc::new(entry.value.clone()));
        Ok(change(PolicyObject::Controller, entry, old.as_deref()))
    }

    /// C6: a version is applied once and never changes.
    fn put_notice(&mut self, entry: &Entry<Notice>) -> Result<Change, PolicyError> {
        let Entry { place, value } = entry;
        self.require_controller(entry, &value.controller)?;
        let family = (value.controller.clone(), value.id.clone());
        let versions = self.notices.entry(family).or_default();
        let old = versions.get(&value.version).cloned();
        if old.as_deref().is_some_and(|old| old != value) {
            return Err(place.refuse("version", PolicyFault::NoticeIsImmutable));
        }
        let at_once = |n: &Arc<Notice>| {
            n.version != value.version && n.effective_from == value.effective_from
        };
        if versions.values().any(at_once) {
            return Err(place.refuse("effective_from", PolicyFault::SameEffectiveDate));
        }
        versions.insert(value.version.clone(), Arc::new(value.clone()));
        Ok(change(PolicyObject::Notice, entry, old.as_deref()))
    }

    /// O2: a version is concluded once and never changes.
    fn put_assessment(&mut self, entry: &Entry<Assessment>) -> Result<Change, PolicyError> {
        let Entry { place, value } = entry;
        self.require_controller(entry, &value.controller)?;
        let key = (value.controller.clone(), value.version.clone());
        let old = self.assessments.get(&key).cloned();
        if old.as_deref().is_some_and(|old| old != value) {
            return Err(place.refuse("version", PolicyFault::AssessmentIsImmutable));
        }
        self.assessments.insert(key, Arc::new(value.clone()));
        Ok(change(PolicyObject::Assessment, entry, old.as_deref()))
    }

    fn put_gate(&mut self, entry: &Entry<Gate>) -> Result<Change, PolicyError> {
        let comparison = entry.value.comparison.or(self.profile.default_comparison);
        if comparison.is_none() {
            return Err(entry.place.refuse("comparison", PolicyFault::Missing));
        }
        let value = Gate { comparison, ..entry.value.clone() };
        let entry = &Entry { place: entry.place.clone(), value };
        let Entry { place, value } = entry;
        self.require_controller(entry, &value.controller)?;
        self.check_place(entry)?;
        let accessible = value.alternatives.any_accessible();
        if self.profile.accessible_alternative_required && !accessible {
            return Err(place.refuse("alternatives", PolicyFault::NoAccessibleAlternative));
        }
        if value.require_alternative && !value.alternatives.any_watched() {
            return Err(place.refuse("require_alternative", PolicyFault::NothingWatched));
        }
        let most = self.profile.lockout_limit(value.pad);
        if value.lockout_after.is_some_and(|attempts| !(1..=most).contains(&attempts)) {
            return Err(place.refuse("lockout_after", PolicyFault::LockoutTooLax { most }));
        }
        let pass = GatePass::compile(value.clone(), &self.profile);
        let old = self.gates.insert(value.id.clone(), pass);
        Ok(change(PolicyObject::Gate, entry, old.as_ref().map(GatePass::gate)))
    }

    /// G4: a public place is for the purposes that the profile names, under its conditions.
    fn check_place(&self, entry: &Entry<Gate>) -> Result<(), PolicyError> {
        let Entry { place, value } = entry;
        if value.place_type.rule() != PlaceRule::Public {
            return Ok(());
        }
        let allowed = &self.profile.public_place_purposes;
        let (field, fault) = if !self.profile.public_places_allowed {
            ("place_type", PolicyFault::PublicPlace)
        } else if !allowed.is_empty() && !value.purposes.iter().all(|p| allowed.contains(p)) {
            let allowed = allowed.iter().map(ToString::to_string).collect();
            ("purposes", PolicyFault::PublicPurpose { allowed })
        } else if self.profile.public_place_conditions && value.public_place.is_none() {
            ("public_place", PolicyFault::PublicConditions)
        } else {
            return Ok(());
        };
        Err(place.refuse(field, fault))
    }

    fn require_controller<T>(
        &self,
        entry: &Entry<T>,
        controller: &ControllerId,
    ) -> Result<(), PolicyError> {
        if self.controllers.contains_key(controller) {
            return Ok(());
        }
        Err(entry.place.refuse("controller", PolicyFault::UnknownController))
    }
}

fn change<T: Serialize + PartialEq>(
    object: PolicyObject,
    entry: &Entry<T>,
    old: Option<&T>,
) -> Change {
    let (kind, fields) = match old {
        None => (ChangeKind::Added, Vec::new()),
        Some(old) if *old == entry.value => (ChangeKind::Unchanged, Vec::new()),
        Some(old) => (ChangeKind::Changed, differences(old, &entry.value)),
    };
    Change { object, id: entry.place.id.clone(), kind, fields }
}

/// The fields in which two objects differ, as the document writes them.
fn differences<T: Serialize>(old: &T, new: &T) -> Vec<String> {
    // An object of the policy is always writable (see `to_toml`).
    let table = |object| toml::Table::try_from(object).unwrap_or_default();
    let (old, new) = (table(old), table(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let written = |value: Option<&toml::Value>| value.map_or("unset".into(), ToString::to_string);
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed
        .map(|name| format!("{name}: {} -> {}", written(old.get(name)), written(new.get(name))))
        .collect()
}
