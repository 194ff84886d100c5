//! Filings on the wire, both ways.

use super::caller::Caller;
use super::fault::{Fault, text};
use super::{proto, to_wire};
use crate::consent::{FilingMark, FilingNumber, FilingRecord, FilingState};
use crate::engine::{ControllerFiling, MarkCommand};
use crate::types::{ControllerId, Timestamp};

pub(super) fn mark(
    request: proto::MarkFiledRequest,
    caller: &Caller,
) -> Result<MarkCommand, Fault> {
    use proto::FilingMark as Wire;
    let mark = match Wire::try_from(request.mark) {
        Ok(Wire::Filed) => FilingMark::Filed,
        Ok(Wire::Changed) => FilingMark::Changed,
        Ok(Wire::Cancelled) => FilingMark::Cancelled,
        Ok(Wire::Mistaken) => FilingMark::Mistaken,
        Ok(Wire::Unspecified) | Err(_) => {
            return Err(Fault::field("mark", "is missing or not a value of this version"));
        }
    };
    let on = match request.date.as_str() {
        "" => None,
        _ if mark == FilingMark::Mistaken => {
            return Err(Fault::field("date", "a mark is taken back today; leave the day out"));
        }
        date => Some(date.parse().map_err(|fault| Fault::field("date", fault))?),
    };
    Ok(MarkCommand {
        caller: caller.name().to_owned(),
        controller: ControllerId::parse(request.controller_id).map_err(text("controller_id"))?,
        mark,
        number: FilingNumber::parse(&request.number)
            .map_err(|fault| Fault::field("number", fault))?,
        on,
    })
}

pub(super) fn status(
    controllers: Vec<ControllerFiling>,
    calendar_until: i32,
    now: Timestamp,
) -> proto::FilingStatusResponse {
    proto::FilingStatusResponse {
        controllers: controllers.into_iter().map(|one| filing(one, now)).collect(),
        calendar_until: u32::try_from(calendar_until).unwrap_or(0),
    }
}

pub(super) fn filing(filing: ControllerFiling, now: Timestamp) -> proto::ControllerFiling {
    let ControllerFiling { controller, persons, standing, record } = filing;
    let mut wire = proto::ControllerFiling {
        controller_id: controller.to_string(),
        persons,
        ..proto::ControllerFiling::default()
    };
    if let Some((rules, state)) = standing {
        (wire.threshold, wire.warn_from) = (rules.threshold, rules.warn_from);
        wire.state = state_of(&state).into();
        wire.overdue = state.is_overdue(now);
        if let Some((since, deadline)) = state.duty() {
            wire.due_since = Some(to_wire::time(since));
            match deadline {
                Ok(day) => wire.deadline = day.to_string(),
                Err(past) => wire.deadline_unknown = past.to_string(),
            }
        }
    }
    let FilingRecord { filed, cancelled, .. } = record;
    if let Some(cancelled) = cancelled {
        wire.number = cancelled.number.into();
        wire.cancelled_on = cancelled.on.to_string();
    }
    if let Some(filed) = filed {
        wire.number = filed.number.into();
        wire.filed_on = filed.on.to_string();
    }
    wire
}

fn state_of(state: &FilingState) -> proto::FilingState {
    match state {
        FilingState::Quiet => proto::FilingState::Quiet,
        FilingState::Warned => proto::FilingState::Warned,
        FilingState::Due { .. } => proto::FilingState::Due,
        FilingState::Filed => proto::FilingState::Filed,
        FilingState::ChangeDue { .. } => proto::FilingState::ChangeDue,
        FilingState::CancelDue { .. } => proto::FilingState::CancelDue,
        FilingState::Cancelled => proto::FilingState::Cancelled,
    }
}
