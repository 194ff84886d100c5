//! A gate controller: one frame in, open or not out.

use std::time::Duration;

use assent::service::client::{Client, Target};
use assent::service::proto::verify_request::Probe;
use assent::service::proto::{Alternative, Decision, EncodedFrame, Intent, VerifyRequest};

/// What the gate does with a frame.
#[derive(Debug)]
pub(crate) enum Action {
    /// Open, and log under which consent.
    Open { subject: String, consent: String },
    /// Stay closed, and show the other ways in.
    Offer(Vec<Alternative>),
}

/// Asks once. Everything but a match inside the deadline keeps the gate closed.
pub(crate) async fn decide(
    client: &Client,
    gate: &str,
    frame: Vec<u8>,
    deadline: Duration,
) -> Action {
    let request = VerifyRequest {
        gate_id: gate.to_owned(),
        intent: Intent::Button.into(), // the person pressed the button
        probe: Some(Probe::Encoded(EncodedFrame { data: frame })),
        ..VerifyRequest::default()
    };
    match client.verify_within(request, deadline).await {
        Ok(answer) if answer.decision() == Decision::Match => {
            let found = answer.r#match.unwrap_or_default();
            let consent = found.consent_tag.unwrap_or_default().consent_id;
            Action::Open { subject: found.subject_ref, consent }
        }
        Ok(answer) => Action::Offer(answer.alternatives),
        // A refusal names the other ways too. When the service cannot be reached the list is
        // empty: the gate shows its own copy.
        Err(refusal) => Action::Offer(refusal.alternatives),
    }
}

#[expect(clippy::print_stdout, reason = "this gate has no motor")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, gate, photo] = arguments.as_slice() else {
        return Err("usage: gate http://127.0.0.1:7400 GATE PHOTO".into());
    };
    let client = Client::connect(&Target { url: url.clone(), ..Target::default() }).await?;
    match decide(&client, gate, std::fs::read(photo)?, Duration::from_secs(1)).await {
        Action::Open { subject, consent } => println!("open for {subject}, covered by {consent}"),
        Action::Offer(ways) => println!("stay closed; other ways in: {ways:?}"),
    }
    Ok(())
}
