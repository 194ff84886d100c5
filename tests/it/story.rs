//! The main job: enrolled under consent, matched with the tag, withdrawn, gone.

use std::process::Command;

use assent::service::proto;

use crate::harness::{
    CONTROLLER, GATE, MODELS, OTHER_GATE, Service, encoded, matched, photo, revoke_subject,
    verify_photo,
};

#[tokio::test(flavor = "multi_thread")]
async fn c3_c4_a_match_carries_its_consent_and_ends_with_it() {
    let service = Service::start().await;
    let request = service.enrolment("resident-1", vec![encoded(photo("yaoming.jpg"))]).await;
    let enrolled = service.client.enroll(request.clone()).await.unwrap();
    assert!(enrolled.receipt.is_some());

    let response = service.client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(response.decision(), proto::Decision::Match);
    let found = response.r#match.as_ref().unwrap();
    let tag = found.consent_tag.as_ref().unwrap();
    assert_eq!(found.record_id, enrolled.record_id);
    assert_eq!(tag.consent_id, request.consent.as_ref().unwrap().consent_id);
    assert_eq!((tag.controller_id.as_str(), tag.scope.as_str()), (CONTROLLER, "north-gate"));
    assert_eq!(found.similarity, None, "the gate's policy does not expose it");
    assert!(!response.alternatives.is_empty());

    let elsewhere = verify_photo(OTHER_GATE, photo("yaoming.jpg"));
    let elsewhere = service.client.verify(elsewhere).await.unwrap();
    assert_eq!(elsewhere.decision(), proto::Decision::NoMatch, "the scope was not agreed to");

    let revoked = service.client.revoke(revoke_subject("resident-1")).await.unwrap();
    assert_eq!(revoked.revoked_records, [enrolled.record_id]);
    let gone = service.client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(gone.decision(), proto::Decision::NoMatch);

    let again = service.client.revoke(revoke_subject("resident-1")).await.unwrap();
    assert!(again.revoked_records.is_empty(), "revoking is idempotent");

    let service = Service::start_in(service.stop().await).await;
    let gone = service.client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(matched(&gone), None, "a restart revives nobody");
    service.stop().await;
}

#[test]
fn the_demo_runs_to_its_last_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_assent"))
        .args(["demo", "--models-dir"])
        .arg(&*MODELS)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    for line in ["MATCH resident-0001", "covered by consent-resident-0001", "matches no more"] {
        assert!(told.contains(line), "{line} is missing in\n{told}");
    }
}
