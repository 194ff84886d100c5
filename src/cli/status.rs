//! `assent status` and its like: what the service does now.

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{Outcome, output};
use crate::service::proto;

/// How keys are kept, in a line.
fn key_line(keys: &proto::KeyStatus) -> String {
    let mirror =
        if keys.mirrored { words!("mirrored") } else { words!("NOT mirrored: see the log") };
    let proto::KeyStatus { epoch, root_cell, memory, .. } = keys;
    words!("epoch {}, ROOT in a {}, in memory {}, {}", epoch, root_cell, memory, mirror)
}

/// How far a gate's operating point carries.
fn reach_line(gate: &proto::GatePlan) -> String {
    let proto::GatePlan { fpir, measured_templates, calibrated_templates, .. } = gate;
    let reach = if measured_templates == calibrated_templates {
        words!("FPIR {} is measured up to {} templates", fpir, measured_templates)
    } else {
        words!(
            "FPIR {} is measured up to {} templates, extrapolated up to {}",
            fpir,
            measured_templates,
            calibrated_templates
        )
    };
    match (gate.outgrown, gate.when_outgrown.as_str()) {
        (false, _) => reach,
        (true, "refuse") => words!("OUTGROWN, 1:N IS REFUSED: {}", reach),
        (true, _) => words!("OUTGROWN, the FPIR is higher than that: {}", reach),
    }
}

pub(super) async fn key_status(connection: &ConnectionArgs, json: bool) -> Outcome {
    let client = connection.connect().await?;
    let keys = client.status(proto::StatusRequest {}).await?.keys.unwrap_or_default();
    if json {
        output::print_json("KeyStatus", &keys);
    } else {
        say!("{}", key_line(&keys));
    }
    Ok(Exit::Ok)
}

pub(super) async fn rotate_keys(connection: &ConnectionArgs, json: bool) -> Outcome {
    let client = connection.connect().await?;
    let rotated = client.rotate_keys(proto::RotateKeysRequest {}).await?;
    if json {
        output::print_json("RotateKeysResponse", &rotated);
        return Ok(Exit::Ok);
    }
    say!("{}", key_line(&rotated.keys.unwrap_or_default()));
    tell!("  older copies of the store open with no root key of today any more");
    Ok(Exit::Ok)
}

pub(super) async fn confirm_clock(connection: &ConnectionArgs, json: bool) -> Outcome {
    let client = connection.connect().await?;
    let confirmed = client.confirm_clock(proto::ConfirmClockRequest {}).await?;
    if json {
        output::print_json("ConfirmClockResponse", &confirmed);
        return Ok(Exit::Ok);
    }
    tell!("the clock is taken as it is: {}", output::time(confirmed.now.as_ref()));
    if confirmed.skew_ms != 0 {
        tell!("  it was {} s from where it should have been", confirmed.skew_ms / 1_000);
        tell!("  what has expired by it is erased now");
    }
    Ok(Exit::Ok)
}

pub(super) async fn status(connection: &ConnectionArgs, json: bool) -> Outcome {
    let client = connection.connect().await?;
    let status = client.status(proto::StatusRequest {}).await?;
    if json {
        output::print_json("StatusResponse", &status);
        return Ok(Exit::Ok);
    }
    print_service(&status);
    print_warnings(&status);
    print_gates(&status);
    Ok(Exit::Ok)
}

/// What runs, and what it holds.
fn print_service(status: &proto::StatusResponse) {
    say!("assent {}: {}", status.version, status.state);
    tell!("  since     {}", output::time(status.started_at.as_ref()));
    tell!("  revision  {}", status.revision);
    tell!("  profile   {}, deployed {}", status.profile, status.deployment);
    tell!("  model     {} ({})", status.model_pack, status.model_contract);
    tell!("  provider  {}, scan {}", status.provider, status.scan_kernel);
    let lock = if status.arena_locked {
        words!("locked")
    } else {
        words!("NOT all locked: raise `ulimit -l`")
    };
    tell!("  arena     {} KiB, {}", status.arena_bytes / 1024, lock);
    tell!("  catalogue {} KiB", status.catalogue_bytes / 1024);
    if status.graph_bytes > 0 {
        tell!(
            "  graph     {} templates, {} KiB",
            status.graph_templates,
            status.graph_bytes / 1024
        );
    }
    tell!("  subjects  {}", status.subjects);
    if let Some(keys) = &status.keys {
        tell!("  keys      {}", key_line(keys));
    }
    for class in &status.classes {
        say!(
            "  {:>8}  {} / {} / {}",
            class.templates,
            class.controller_id,
            class.purpose,
            class.scope
        );
    }
}

/// What somebody has to see to, with what to do.
fn print_warnings(status: &proto::StatusResponse) {
    if status.clock_skew_ms != 0 {
        let seconds = status.clock_skew_ms / 1_000;
        tell!("  CLOCK {} s from where it should be: nothing is erased for expiry", seconds);
        tell!("    correct it, or run `assent clock confirm` if it is right");
    }
    for purpose in &status.unassessed {
        let standing = match purpose.standing.as_str() {
            "missing" => words!("missing"),
            "other_purpose" => words!("does not cover this purpose"),
            "other_model" => words!("is about another model"),
            "before_incident" => words!("is older than the last security incident"),
            other => other.replace('_', " "),
        };
        tell!(
            "  NO ENROLMENT for {} by {}: impact assessment {}",
            purpose.purpose,
            purpose.controller_id,
            standing
        );
    }
    for way in &status.down_alternatives {
        let heard = if way.heard_at.is_some() {
            words!("last heard of {}", output::time(way.heard_at.as_ref()))
        } else {
            words!("never heard of")
        };
        let note = if way.note.is_empty() { String::new() } else { format!(": {}", way.note) };
        tell!(
            "  ALTERNATIVE DOWN at {}: {} is {}, {}{}",
            way.gate_id,
            output::way_name(&way.name),
            match way.state.as_str() {
                "lost" => words!("lost"),
                "down" => words!("down"),
                other => other.to_owned(),
            },
            heard,
            note
        );
    }
    for gate in &status.resting_gates {
        tell!("  FACES OFF at {}: the policy says so (face_enabled)", gate);
    }
    if status.locked_subjects > 0 {
        tell!("  locked out after failed attempts: {} subject(s)", status.locked_subjects);
    }
    if status.store_low_on_space {
        tell!("  DISK FULL: only revocations are taken; free space, the service goes on by itself");
    }
    for record in &status.quarantined_records {
        tell!("  quarantined: {}; revoke it by record id, or restore the store", record);
    }
}

/// How gates search and what their rates rest on.
fn print_gates(status: &proto::StatusResponse) {
    for gate in &status.gate_plans {
        tell!("  gate {}: {}", gate.gate_id, gate.reason);
        say!("    {}", reach_line(gate));
    }
    for recall in &status.recall {
        let seen = recall.found + recall.missed;
        tell!("  recall of {}: {} of {} repeated mates", recall.plan, recall.found, seen);
    }
}
