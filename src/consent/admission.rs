//! Admission: from a draft to a consent record that the law lets us act on.
//!
//! # Invariants
//! - An [`Admitted`] consent was checked against the notice, the gates and the profile in force at
//!   `now`; enrolment takes nothing less.
//! - A refusal names the field as on the wire and never repeats its content (D1).

use super::assessment::AssessmentStanding;
use super::deployment::DeploymentMode;
use super::draft::{ConsentDraft, ConsentFault, ConsentRefusal, refuse, text};
use super::grant::Grant;
use super::notice::{Notice, NoticeStanding};
use super::operating_point::ErrorRate;
use super::policy::Policy;
use super::profile::{DuplicatePolicy, Profile};
use super::record::{ConsentRecord, LawfulBasis, SubjectClass};
use crate::types::{ControllerId, SubjectRef, Timestamp};

/// How far the clock of an enrolment tool may run ahead, milliseconds.
const CLOCK_TOLERANCE_MS: i64 = 5 * 60_000;

/// A consent that was admitted, and what an enrolment under it may do.
///
/// # Invariants
/// - Made by [`Policy::admit`] alone.
#[derive(Debug, Clone)]
pub struct Admitted {
    parsed: ParsedConsent,
    duplicates: DuplicatePolicy,
    duplicate_fpir: ErrorRate,
}

impl Admitted {
    /// Whose consent.
    #[must_use]
    pub fn subject(&self) -> &SubjectRef {
        self.parsed.subject()
    }

    /// The record.
    #[must_use]
    pub fn consent(&self) -> &ConsentRecord {
        self.parsed.consent()
    }

    /// Permission for the duplicate search: the consent's own class and no other (C3).
    #[must_use]
    pub fn enrolment_grant(&self) -> Grant {
        Grant::over(vec![self.consent().class()])
    }

    /// What to do with a duplicate.
    #[must_use]
    pub fn duplicates(&self) -> DuplicatePolicy {
        self.duplicates
    }

    /// The FPIR of the duplicate search.
    #[must_use]
    pub fn duplicate_fpir(&self) -> ErrorRate {
        self.duplicate_fpir
    }
}

/// A consent record that is well formed; whether it is admitted is the policy's to say.
#[derive(Debug, Clone)]
pub struct ParsedConsent {
    subject: SubjectRef,
    consent: ConsentRecord,
}

impl ParsedConsent {
    /// Whose consent.
    #[must_use]
    pub fn subject(&self) -> &SubjectRef {
        &self.subject
    }

    /// The record.
    #[must_use]
    pub fn consent(&self) -> &ConsentRecord {
        &self.consent
    }
}

impl ConsentDraft {
    /// Reads the fields (C1, C2, D1), which depends on no policy and no time.
    ///
    /// # Errors
    /// The first field that is missing or malformed.
    pub fn parse(
        self,
        controller_id: &str,
        subject_ref: &str,
    ) -> Result<ParsedConsent, ConsentRefusal> {
        let controller: ControllerId = text("controller_id", controller_id.to_owned())?;
        let subject = text("subject_ref", subject_ref.to_owned())?;
        Ok(ParsedConsent { subject, consent: self.read(controller)? })
    }
}

impl Policy {
    /// Admits a consent record (C1, C2, C3, C5, C6, C7, C8, C9, O2, D1).
    ///
    /// # Errors
    /// The first rule that stands against it, with the field as on the wire: malformed fields
    /// first, then what the policy and the profile say.
    pub fn admit(
        &self,
        controller_id: &str,
        subject_ref: &str,
        draft: ConsentDraft,
        now: Timestamp,
    ) -> Result<Admitted, ConsentRefusal> {
        self.admit_parsed(draft.parse(controller_id, subject_ref)?, now)
    }

    /// The same for a record that was parsed before.
    ///
    /// # Errors
    /// The first rule of policy or profile that stands against it.
    pub fn admit_parsed(
        &self,
        parsed: ParsedConsent,
        now: Timestamp,
    ) -> Result<Admitted, ConsentRefusal> {
        let consent = parsed.consent();
        let profile = self.profile();
        let duplicates = self.duplicates(&consent.controller)?;
        check_times(consent, profile, now)?;
        check_basis(consent, profile)?;
        check_subject_class(consent, profile, now)?;
        self.check_offdevice(consent)?;
        self.check_notice(consent, now)?;
        self.check_served(consent)?;
        self.check_assessed(consent, now)?;
        Ok(Admitted { parsed, duplicates, duplicate_fpir: profile.duplicate_fpir })
    }

    /// The controller's rule for duplicates, which only an applied controller has.
    fn duplicates(&self, controller: &ControllerId) -> Result<DuplicatePolicy, ConsentRefusal> {
        self.controller(controller)
            .map(|controller| controller.duplicates.unwrap_or(self.profile().duplicates))
            .ok_or(refuse("controller_id", ConsentFault::UnknownController))
    }

    /// Whether a record that was admitted before may be held under the rules in force (C5, C7, C8,
    /// C9).
    ///
    /// # Errors
    /// The first rule that stands against it.
    pub fn check_held(&self, consent: &ConsentRecord) -> Result<(), ConsentRefusal> {
        let profile = self.profile();
        check_retention(consent, profile)?;
        check_children_allowed(consent, profile)?;
        check_basis(consent, profile)?;
        self.check_offdevice(consent)
    }

    /// C8: over the Internet only with a separate consent to that.
    fn check_offdevice(&self, consent: &ConsentRecord) -> Result<(), ConsentRefusal> {
        let internet = self.deployment().mode == DeploymentMode::Internet;
        if internet && self.profile().internet_needs_consent && !consent.offdevice_processing {
            let fault = ConsentFault::OffdeviceConsentMissing;
            return Err(refuse("consent.offdevice_processing", fault));
        }
        Ok(())
    }

    /// O2: the controller thought about this purpose, and about this model.
    fn check_assessed(
        &self,
        consent: &ConsentRecord,
        now: Timestamp,
    ) -> Result<(), ConsentRefusal> {
        if !self.profile().impact_assessment_required {
            return Ok(());
        }
        let fault = match self.assessed(&consent.controller, &consent.purpose, now) {
            AssessmentStanding::Current => return Ok(()),
            AssessmentStanding::Missing => ConsentFault::AssessmentMissing,
            AssessmentStanding::OtherPurpose => ConsentFault::AssessmentForOtherPurpose,
            AssessmentStanding::OtherModel => ConsentFault::AssessmentForOtherModel,
            AssessmentStanding::BeforeIncident => ConsentFault::AssessmentBeforeIncident,
        };
        Err(refuse("consent.purpose", fault))
    }

    /// C6: the person agreed to this very text while it was in force, and it names the purpose.
    fn check_notice(&self, consent: &ConsentRecord, now: Timestamp) -> Result<(), ConsentRefusal> {
        let notice = self
            .notice(&consent.controller, &consent.notice_id, &consent.notice_version)
            .ok_or(refuse("consent.notice_version", ConsentFault::UnknownNotice))?;
        self.check_standing(notice, now)?;
        check_agreement(consent, notice)
    }

    /// C6: neither too early nor, once the days of grace are over, too late.
    fn check_standing(&self, notice: &Notice, now: Timestamp) -> Result<(), ConsentRefusal> {
        let fault = match self.standing(notice, now) {
            NoticeStanding::Current => return Ok(()),
            NoticeStanding::NotYetEffective => {
                ConsentFault::NoticeNotYetEffective { from: notice.effective_from }
            }
            NoticeStanding::Superseded { at } => {
                if now < at.plus_days(self.profile().notice_grace_days) {
                    return Ok(());
                }
                ConsentFault::NoticeSuperseded { at }
            }
        };
        Err(refuse("consent.notice_version", fault))
    }

    /// C3: some gate can use the template.
    fn check_served(&self, consent: &ConsentRecord) -> Result<(), ConsentRefusal> {
        let class = consent.class();
        if self.gates().any(|gate| gate.grant().covers(&class)) {
            return Ok(());
        }
        Err(refuse("consent.scope", ConsentFault::NoGate))
    }
}

/// C6: what was agreed to is this notice, and the notice speaks of the purpose.
fn check_agreement(consent: &ConsentRecord, notice: &Notice) -> Result<(), ConsentRefusal> {
    if consent.notice_sha256 != notice.sha256() {
        return Err(refuse("consent.notice_sha256", ConsentFault::NoticeDiffers));
    }
    if consent.captured_at < notice.effective_from {
        let from = notice.effective_from;
        return Err(refuse("consent.captured_at", ConsentFault::NoticeNotYetEffective { from }));
    }
    if !notice.purposes.contains(&consent.purpose) {
        return Err(refuse("consent.purpose", ConsentFault::PurposeNotInNotice));
    }
    Ok(())
}

/// C7: given before now, ends after now, and not later than the profile allows.
fn check_times(
    consent: &ConsentRecord,
    profile: &Profile,
    now: Timestamp,
) -> Result<(), ConsentRefusal> {
    if consent.captured_at > now.plus_ms(CLOCK_TOLERANCE_MS) {
        return Err(refuse("consent.captured_at", ConsentFault::InFuture));
    }
    let fault = if consent.expires_at <= consent.captured_at {
        ConsentFault::NotAfterCapture
    } else if consent.expires_at <= now {
        ConsentFault::Past
    } else {
        return check_retention(consent, profile);
    };
    Err(refuse("consent.expires_at", fault))
}

/// C7: no longer than the profile allows.
fn check_retention(consent: &ConsentRecord, profile: &Profile) -> Result<(), ConsentRefusal> {
    let max_days = profile.max_retention_days;
    if consent.expires_at > consent.captured_at.plus_days(max_days) {
        return Err(refuse("consent.expires_at", ConsentFault::RetentionTooLong { max_days }));
    }
    Ok(())
}

/// C9: another basis needs a law, and a profile that accepts it.
fn check_basis(consent: &ConsentRecord, profile: &Profile) -> Result<(), ConsentRefusal> {
    match consent.lawful_basis {
        LawfulBasis::LegalObligation if !profile.other_lawful_bases_allowed => {
            Err(refuse("consent.lawful_basis", ConsentFault::BasisNotAllowed))
        }
        LawfulBasis::LegalObligation if consent.legal_reference.is_none() => {
            Err(refuse("consent.legal_reference", ConsentFault::LegalReferenceMissing))
        }
        LawfulBasis::Consent | LawfulBasis::LegalObligation => Ok(()),
    }
}

/// C5: a child has a guardian and a day to consent anew; nobody else has.
fn check_subject_class(
    consent: &ConsentRecord,
    profile: &Profile,
    now: Timestamp,
) -> Result<(), ConsentRefusal> {
    check_children_allowed(consent, profile)?;
    match consent.subject_class {
        SubjectClass::Adult => check_adult(consent),
        SubjectClass::Under14 => check_child(consent, now),
    }
}

/// C5: whether the profile has children enrolled at all.
fn check_children_allowed(
    consent: &ConsentRecord,
    profile: &Profile,
) -> Result<(), ConsentRefusal> {
    if consent.subject_class == SubjectClass::Under14 && !profile.children_allowed {
        return Err(refuse("consent.subject_class", ConsentFault::ChildrenNotAllowed));
    }
    Ok(())
}

fn check_adult(consent: &ConsentRecord) -> Result<(), ConsentRefusal> {
    if consent.guardian.is_some() {
        return Err(refuse("consent.guardian", ConsentFault::ForChildrenOnly));
    }
    if consent.reconsent_by.is_some() {
        return Err(refuse("consent.reconsent_by", ConsentFault::ForChildrenOnly));
    }
    Ok(())
}

fn check_child(consent: &ConsentRecord, now: Timestamp) -> Result<(), ConsentRefusal> {
    if consent.guardian.is_none() {
        return Err(refuse("consent.guardian", ConsentFault::NeededForChild));
    }
    match consent.reconsent_by {
        None => Err(refuse("consent.reconsent_by", ConsentFault::NeededForChild)),
        Some(by) if by <= now => Err(refuse("consent.reconsent_by", ConsentFault::Past)),
        Some(_) => Ok(()),
    }
}
