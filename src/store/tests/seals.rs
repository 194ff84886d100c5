//! Altered, swapped and missing rows; what the file shows.

use std::collections::HashSet;

use super::super::sealing::RecordKey;
use super::super::tree::{Place, page_row};
use super::*;

const WINDOW_BYTES: usize = 16;

/// Two records enrolled, their rows as stored.
async fn two_records() -> (tempfile::TempDir, Arc<Embedded>, Store, MemoryCell) {
    let directory = tempfile::tempdir().unwrap();
    let cell = cell();
    let (backend, store) = open_in(directory.path(), &cell).await;
    enrol(&store, 1).await.unwrap();
    enrol(&store, 2).await.unwrap();
    (directory, backend, store, cell)
}

#[tokio::test]
async fn d2_every_flipped_byte_of_a_record_quarantines_it_and_no_other() {
    let (_directory, backend, store, _cell) = two_records().await;
    let place = Place::of(&row(&backend, Table::Keys, 1).await).unwrap();
    let page = backend.read(vec![page_row(place.page)]).await.unwrap().pop().unwrap().unwrap();
    let [header, template] =
        [row(&backend, Table::Headers, 1).await, row(&backend, Table::Templates, 1).await];
    let opens = |page: &Opaque, header: &Opaque, template: &Opaque| {
        let key = store.vault.record_key(id(1), place, page);
        key.and_then(|key| key.open(id(1), header, template)).is_ok()
    };
    assert!(opens(&page, &header, &template), "control");
    for flipped in every_flip(&page) {
        assert!(!opens(&flipped, &header, &template));
    }
    for flipped in every_flip(&header) {
        assert!(!opens(&page, &flipped, &template));
    }
    for flipped in every_flip(&template) {
        assert!(!opens(&page, &header, &flipped));
    }
    let flipped = every_flip(&template).next().unwrap();
    tamper(&backend, vec![Write::Put(Table::Templates.row(id(1).into()), flipped)]).await;
    let (opened, report) = load(&store).await;
    assert_eq!(opened.into_keys().collect::<Vec<_>>(), [id(2)]);
    assert!(matches!(report.quarantined[..], [(bad, RecordFault::Template(_))] if bad == id(1)));
}

fn every_flip(row: &Opaque) -> impl Iterator<Item = Opaque> {
    let bytes = row.as_bytes().to_vec();
    (0..bytes.len()).map(move |at| {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        Opaque::stored(&flipped)
    })
}

#[test]
fn a_template_opens_under_no_edited_header() {
    let key = RecordKey::random().unwrap();
    let (header, sealed) = key.seal(&record(1), &template(1)).unwrap();
    assert!(key.open(id(1), &header.into(), &sealed.clone().into()).is_ok(), "control");
    let text = serde_json::to_value(record(1)).unwrap();
    for path in leaves(&text, String::new()) {
        let Some(edited) = edited(&text, &path) else { continue };
        // Even whoever holds the record's key cannot put the edited header above the template.
        let (header, _) = key.seal(&edited, &template(1)).unwrap();
        let opened = key.open(edited.id, &header.into(), &sealed.clone().into());
        assert!(opened.is_err(), "{path} edited, and the template opens");
    }
}

/// JSON pointers of every value in `json` that holds no other.
fn leaves(json: &serde_json::Value, path: String) -> Vec<String> {
    match json.as_object() {
        Some(fields) => fields
            .iter()
            .flat_map(|(name, value)| leaves(value, format!("{path}/{name}")))
            .collect(),
        None => vec![path],
    }
}

/// The record with the value at `path` changed to another valid one.
fn edited(json: &serde_json::Value, path: &str) -> Option<StoredRecord> {
    let other = serde_json::to_value(StoredRecord {
        id: id(2),
        subject: SubjectRef::parse("somebody-else").unwrap(),
        consent: ConsentRecord {
            controller: ControllerId::parse("another").unwrap(),
            purpose: Purpose::parse("marketing").unwrap(),
            scope: Scope::parse("west-door").unwrap(),
            notice_id: NoticeId::parse("other").unwrap(),
            notice_version: NoticeVersion::parse("3").unwrap(),
            notice_sha256: Sha256([1; 32]),
            form: ConsentForm::Written,
            channel: ShortText::parse("desk").unwrap(),
            captured_at: now().plus_days(1),
            expires_at: now().plus_days(9999),
            evidence_sha256: Sha256([2; 32]),
            alternative_offered: AlternativeMethod::Staff,
            lawful_basis: LawfulBasis::LegalObligation,
            legal_reference: Some(ShortText::parse("a law").unwrap()),
            subject_class: SubjectClass::Under14,
            guardian: Some(crate::consent::Guardian {
                guardian_ref: SubjectRef::parse("guardian").unwrap(),
                relation: ShortText::parse("mother").unwrap(),
                evidence_sha256: Sha256([3; 32]),
                minor_rules_version: NoticeVersion::parse("1").unwrap(),
            }),
            reconsent_by: Some(now()),
            offdevice_processing: true,
            ..consent(2)
        },
        model: ModelContract::parse("model-b").unwrap(),
        generation: 1,
        frames: 4,
        enrolled_at: now().plus_days(2),
    })
    .unwrap();
    let mut edited = json.clone();
    *edited.pointer_mut(path)? = other.pointer(path)?.clone();
    assert_ne!(edited, *json, "{path} was not edited");
    Some(serde_json::from_value(edited).unwrap())
}

#[tokio::test]
async fn swapped_rows_quarantine_both_records() {
    for tables in [
        vec![Table::Keys],
        vec![Table::Headers],
        vec![Table::Templates],
        vec![Table::Headers, Table::Templates],
        vec![Table::Keys, Table::Headers, Table::Templates],
    ] {
        let (_directory, backend, store, _cell) = two_records().await;
        assert_eq!(load(&store).await.1.loaded, 2, "control");
        let mut writes = Vec::new();
        for table in &tables {
            writes.push(Write::Put(table.row(id(1).into()), row(&backend, *table, 2).await));
            writes.push(Write::Put(table.row(id(2).into()), row(&backend, *table, 1).await));
        }
        tamper(&backend, writes).await;
        let report = load(&store).await.1;
        assert_eq!((report.loaded, report.quarantined.len()), (0, 2), "{tables:?}");
    }
}

#[tokio::test]
async fn a_record_without_key_or_template_is_quarantined_and_can_be_revoked() {
    let (_directory, backend, store, _cell) = two_records().await;
    let missing = vec![
        Write::Remove(Table::Keys.row(id(1).into())),
        Write::Remove(Table::Templates.row(id(2).into())),
        Write::Put(Table::Headers.row(RowKey::named("odd")), Opaque::stored(b"x")),
    ];
    tamper(&backend, missing).await;
    let report = load(&store).await.1;
    let faults = [(id(1), RecordFault::KeyMissing), (id(2), RecordFault::TemplateMissing)];
    assert_eq!((report.loaded, report.misnamed, &report.quarantined[..]), (0, 1, &faults[..]));
    let both = [id(1), id(2)];
    let revoked = store.revoke(&both, now(), RevocationCause::Expired).await.unwrap();
    assert_eq!(revoked.records, both);
    assert!(load(&store).await.1.quarantined.is_empty());
}

#[tokio::test]
async fn an_altered_log_head_or_binding_keeps_the_store_shut() {
    let (_directory, backend, _store, cell) = two_records().await;
    let again = open(&backend, &cell).await;
    assert!(again.is_ok(), "control");
    tamper(&backend, vec![]).await;
    assert!(matches!(open(&backend, &cell).await, Err(StoreError::Altered { what: "log", .. })));
    let binding = Table::Meta.row(RowKey::named("store"));
    tamper(&backend, vec![Write::Put(binding.clone(), Opaque::stored(b"x"))]).await;
    assert!(matches!(open(&backend, &cell).await, Err(StoreError::Altered { .. })));
    tamper(&backend, vec![Write::Remove(binding)]).await;
    assert!(matches!(open(&backend, &cell).await, Err(StoreError::Malformed { .. })));
}

#[tokio::test]
async fn the_file_shows_neither_face_nor_person() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, store) = open_in(directory.path(), &cell()).await;
    enrol(&store, 1).await.unwrap();
    store.put_policy(b"the policy document in plain").await.unwrap();
    let ciphertext = row(&backend, Table::Templates, 1).await;
    store.close().await;
    let file = std::fs::read(directory.path().join("assent.redb")).unwrap();
    let windows: HashSet<&[u8]> = file.windows(WINDOW_BYTES).collect();
    let shown = |secret: &[u8]| secret.windows(WINDOW_BYTES).any(|w| windows.contains(w));

    assert!(shown(ciphertext.as_bytes()), "control: what is in the file is found");
    let plain = template(1).expose().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    assert!(!shown(&plain));
    assert!(!shown(record(1).subject.as_str().as_bytes()));
    assert!(!shown(b"the policy document in plain"));
    assert!(!shown(&serde_json::to_vec(&consent(1)).unwrap()));
}
