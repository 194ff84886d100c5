//! Evidence as a page for people, Chinese and English.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Policy, text};
use crate::cli::words::in_chinese;

const HEAD: &str = r#"<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><title>Assent 证据 / evidence</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { border: 1px solid #bbb; padding: .3rem .5rem;
text-align: left; vertical-align: top } th { background: #f2f2f2 } pre { white-space: pre-wrap }
code { overflow-wrap: anywhere }
</style></head><body>
"#;

/// Events of the trail: name, Chinese, English.
const EVENTS: [(&str, &str, &str); 15] = [
    ("enrolled", "登记", "enrolled"),
    ("erased", "删除", "erased"),
    ("decision", "通行比对", "a gate was answered"),
    ("policy_applied", "规则变更", "the policy was replaced"),
    ("keys_rotated", "更换密钥", "keys were replaced"),
    ("backup_made", "制作备份", "a backup was made"),
    ("restored", "自备份恢复", "restored from a backup"),
    ("clock_confirmed", "确认系统时钟", "the clock was confirmed"),
    ("filing_due", "应当备案", "a filing became due"),
    ("filing_marked", "备案登记", "a filing was marked"),
    ("decommissioned", "系统终止", "the deployment ended"),
    ("lockout_cleared", "解除暂停", "a lock-out was cleared"),
    ("not_restored", "未能恢复", "records were not restored"),
    ("pruned", "清理过期审计记录", "old entries were removed"),
    ("store_created", "系统建立", "the store was made"),
];

/// An event of the trail, with its decision where it has one, in the user's language.
pub(super) fn event(name: &str) -> String {
    let (event, decision) = name.split_once(' ').unwrap_or((name, ""));
    match EVENTS.iter().find(|(known, ..)| *known == event).filter(|_| in_chinese()) {
        Some((_, zh, _)) => format!("{zh} {}", word(decision)),
        None => name.to_owned(),
    }
}

/// Decisions and causes: word, Chinese.
const WORDS: [(&str, &str); 13] = [
    ("match", "匹配"),
    ("no_match", "不匹配"),
    ("no_face", "未见人脸"),
    ("low_quality", "图像质量不足"),
    ("stale_frame", "画面已过时"),
    ("several_faces", "多张人脸"),
    ("spoof_suspected", "疑似攻击"),
    ("locked_out", "尝试过多，暂停"),
    ("face_disabled", "未启用人脸"),
    ("withdrawn", "本人撤回同意"),
    ("expired", "到期"),
    ("inactive", "长期未使用"),
    ("lost", "备份之后登记，恢复时丢失"),
];

/// The page.
pub(super) fn page(statement: &Value, policies: &[Policy], events: &[Value]) -> String {
    let mut html = HEAD.to_owned();
    heading(&mut html, 1, "证据", "Evidence");
    let about = &statement["about"];
    let facts = [
        ("对象 / about", about.to_string()),
        ("取证时间 / collected at", text(&statement["collected_at"])),
        ("规则集 / profile", text(&statement["profile"])),
        ("部署方式 / deployment", text(&statement["deployment"])),
        ("模型 / model", text(&statement["model_contract"])),
        ("生物特征 / biometrics", "无：本证据不含人脸图像、特征模板或相似度 / none".to_owned()),
    ];
    table(
        &mut html,
        &[],
        facts.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]),
    );
    heading(&mut html, 2, "个人信息处理者", "Controller");
    let controllers = list(&statement["controllers"]);
    let rows = controllers.map(|c| vec![text(&c["id"]), text(&c["name"]), text(&c["contact"])]);
    table(&mut html, &["id", "名称 / name", "联系方式 / contact"], rows);
    held(&mut html, statement);
    consents(&mut html, statement);
    trail(&mut html, events);
    rules(&mut html, policies);
    notices(&mut html, statement);
    heading(&mut html, 2, "如何核验", "How to check this");
    html.push_str(
        "<p>本页便于阅读，本身不作证明。核验：/ This page is for reading and proves nothing by \
         itself. To check:</p><pre>assent evidence verify DIR --public-key KEY</pre><p>\
         statement.json 由部署的密钥签名（Ed25519），其中写有 trail.jsonl 的 SHA-256；\
         trail.jsonl 是审计链的导出，无关条目只有摘要。/ statement.json is signed with the \
         deployment's key and names the SHA-256 of trail.jsonl, an export of the audit chain in \
         which entries about others are digests.</p>",
    );
    html.push_str("</body></html>\n");
    html
}

fn held(html: &mut String, statement: &Value) {
    heading(html, 2, "现在保存的记录", "What is held now");
    if list(&statement["held"]).next().is_none() {
        html.push_str("<p>没有保存任何模板。/ No template is held.</p>");
        return;
    }
    let rows = list(&statement["held"]).map(|record| {
        let live = if record["live"] == true {
            "可比对 / matches"
        } else {
            "不再比对 / does not match"
        };
        let consent = &record["consent_receipt"]["consent"];
        vec![
            text(&record["record_id"]),
            text(&consent["consent_id"]),
            text(&consent["expires_at"]),
            live.to_owned(),
        ]
    });
    table(html, &["记录 / record", "同意 / consent", "至 / until", "状态 / state"], rows);
}

fn consents(html: &mut String, statement: &Value) {
    heading(html, 2, "同意", "Consents");
    let rows = list(&statement["consents"]).map(|row| {
        let consent = &row["consent"];
        let guardian = &consent["guardian"]["guardian_ref"];
        vec![
            text(&consent["consent_id"]),
            text(&consent["purpose"]),
            text(&consent["scope"]),
            format!("{}@{}", text(&consent["notice_id"]), text(&consent["notice_version"])),
            format!("{} / {}", text(&consent["form"]), text(&consent["channel"])),
            format!("{} – {}", text(&consent["captured_at"]), text(&consent["expires_at"])),
            text(&consent["alternative_offered"]),
            if guardian.is_null() { "–".to_owned() } else { text(guardian) },
        ]
    });
    let columns = [
        "同意 / consent",
        "目的 / purpose",
        "范围 / scope",
        "告知书 / notice",
        "形式、渠道 / form, channel",
        "期间 / period",
        "替代方式 / alternative",
        "监护人 / guardian",
    ];
    table(html, &columns, rows);
}

fn trail(html: &mut String, events: &[Value]) {
    heading(html, 2, "处理记录", "What was done");
    let rows = events.iter().map(|event| {
        let name = text(&event["event"]);
        let known = EVENTS.iter().find(|(word, ..)| *word == name);
        let named = known.map_or(name, |(_, zh, en)| format!("{zh} / {en}"));
        let detail = ["gate", "comparison", "decision", "cause", "record", "records", "caller"];
        let detail = detail.iter().filter(|field| !event[**field].is_null());
        let detail = detail.map(|field| format!("{field}: {}", word(&text(&event[*field]))));
        vec![text(&event["at"]), named, detail.collect::<Vec<_>>().join("; ")]
    });
    table(html, &["时间 / time", "事件 / event", "细节 / detail"], rows);
    if events.len() >= super::MOST_SHOWN {
        html.push_str("<p>其余见 trail.jsonl。/ The rest is in trail.jsonl.</p>");
    }
}

/// The gates of each policy under which something was done, and the ways in that needed no face.
fn rules(html: &mut String, policies: &[Policy]) {
    heading(html, 2, "当时的规则", "Rules in force at the time");
    for Policy { revision, sha256, document } in policies {
        let document: toml::Table = document.parse().unwrap_or_default();
        let _ = write!(
            html,
            "<p>自修订号 {revision} 起 / from revision {revision} on; SHA-256 <code>{}</code></p>",
            escaped(sha256),
        );
        let said = |row: &toml::Value, field: &str| {
            row.get(field).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
        };
        let rows = |row: &toml::Value, table: &str| {
            row.get(table).and_then(toml::Value::as_array).cloned().unwrap_or_default()
        };
        let gates = rows(&document.into(), "gates").into_iter().map(|gate| {
            let ways = rows(&gate, "alternatives");
            let ways = ways.iter().map(|way| {
                let accessible = way.get("accessible").and_then(toml::Value::as_bool);
                let note =
                    if accessible == Some(true) { "（无障碍 / accessible）" } else { "" };
                format!("{}{note}: {}", said(way, "method"), said(way, "hint"))
            });
            let ways = ways.collect::<Vec<_>>().join("; ");
            vec![said(&gate, "id"), said(&gate, "place_type"), said(&gate, "comparison"), ways]
        });
        let columns = [
            "通道 / gate",
            "场所 / place",
            "比对 / comparison",
            "非人脸方式 / ways in without the face",
        ];
        table(html, &columns, gates);
    }
}

fn notices(html: &mut String, statement: &Value) {
    heading(html, 2, "告知书原文", "Notices, word for word");
    for row in list(&statement["notices"]) {
        let notice = &row["notice"];
        let _ = write!(
            html,
            "<h3>{}@{}</h3><p>SHA-256 <code>{}</code></p>",
            escaped(&text(&notice["id"])),
            escaped(&text(&notice["version"])),
            escaped(&text(&row["sha256"])),
        );
        for version in list(&notice["texts"]) {
            let _ = write!(html, "<h4>{}</h4>", escaped(&text(&version["language"])));
            let parts = [
                "controller_contact",
                "purpose_and_method",
                "retention",
                "necessity_and_impact",
                "rights",
            ];
            for part in parts {
                let _ = write!(html, "<p>{}</p>", escaped(&text(&version[part])));
            }
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(word: &str) -> String {
    let known = WORDS.iter().find(|(english, _)| *english == word);
    known.map_or_else(|| word.to_owned(), |(english, zh)| format!("{zh} {english}"))
}

fn heading(html: &mut String, level: u8, zh: &str, en: &str) {
    let _ = writeln!(html, "<h{level}>{zh} / {en}</h{level}>");
}

fn table(html: &mut String, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    html.push_str("<table>");
    if !columns.is_empty() {
        html.push_str("<tr>");
        for column in columns {
            let _ = write!(html, "<th>{column}</th>");
        }
        html.push_str("</tr>");
    }
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escaped(&cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
}

/// Foreign text can be no markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_no_markup() {
        let statement = serde_json::json!({
            "controllers": [{ "id": "a", "name": "<script>alert(1)</script>", "contact": "\"&" }],
        });
        let events = [serde_json::json!({ "event": "<b>", "gate": "<i>" })];
        let page = page(&statement, &[], &events);
        for markup in ["<script", "<b>", "<i>"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("&quot;&amp;"));
    }
}
