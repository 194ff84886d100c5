//! `assent ropa`: the records of processing (GDPR 30, PIPL 55 and 56), out of what is in force.

use serde_json::{Value, json};

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::{Outcome, output};
use crate::consent::Profile;
use crate::service::proto;

/// What the service does for security, said once.
const MEASURES: [(&str, &str); 6] = [
    (
        "each record encrypted under its own key, with its consent as associated data",
        "每条记录单独密钥加密，并与同意绑定",
    ),
    ("erasure by destroying that key and overwriting the memory", "删除即销毁密钥并覆写内存"),
    (
        "client certificates with roles (mutual TLS) for every caller that is not on the same machine",
        "非本机调用须双向 TLS 客户端证书与角色授权",
    ),
    ("signed audit chain of all changes and decisions", "全部变更与比对的签名审计链"),
    ("no call returns a template; no connection to the outside", "不提供模板导出，不主动外联"),
    ("encrypted backups; what was revoked does not come back", "备份加密，已撤回者不可恢复"),
];

pub(super) async fn run(connection: &ConnectionArgs, json: bool) -> Outcome {
    let client = connection.connect().await?;
    let policy = client.read_policy(proto::ReadPolicyRequest {}).await?.toml;
    let status = client.status(proto::StatusRequest {}).await?;
    let policy: Value = toml::from_str(&policy).map_err(Failure::internal)?;
    let profile = Profile::named(&status.profile).map_err(Failure::internal)?;
    let records: Vec<Value> = list(&policy, "controllers")
        .iter()
        .map(|controller| record(controller, &policy, &status, &profile))
        .collect();
    if json {
        output::print_value(&records)?;
        return Ok(Exit::Ok);
    }
    say!("# Records of processing / 个人信息处理活动记录");
    for record in &records {
        print(record);
    }
    Ok(Exit::Ok)
}

fn list<'a>(policy: &'a Value, table: &str) -> &'a [Value] {
    policy[table].as_array().map_or(&[], Vec::as_slice)
}

fn record(
    controller: &Value,
    policy: &Value,
    status: &proto::StatusResponse,
    profile: &Profile,
) -> Value {
    let own = |table: &str| -> Vec<&Value> {
        let rows = list(policy, table).iter();
        rows.filter(|row| row["controller"] == controller["id"]).collect()
    };
    let pick = |rows: Vec<&Value>, fields: &[&str]| -> Vec<Value> {
        let row = |row: &Value| {
            fields.iter().map(|field| ((*field).to_owned(), row[*field].clone())).collect()
        };
        rows.into_iter().map(row).collect()
    };
    let classes = status.classes.iter().filter(|class| controller["id"] == class.controller_id);
    let classes = classes.map(|class| {
        json!({ "purpose": class.purpose, "scope": class.scope, "templates": class.templates })
    });
    json!({
        "controller": { "id": controller["id"], "name": controller["name"], "contact": controller["contact"] },
        "processing": classes.collect::<Vec<_>>(),
        "gates": pick(own("gates"), &["id", "label", "place_type", "purposes", "scopes", "comparison"]),
        "notices": pick(own("notices"), &["id", "version", "effective_from"]),
        "impact_assessments": pick(own("assessments"), &["version", "assessed_at", "purposes", "document_sha256"]),
        "data_subjects": "people who consented, and guardians of children by opaque reference",
        "data": "face template, opaque subject reference, consent record; photos are not kept",
        "recipients": [],
        "transfers": match status.deployment.as_str() {
            "internet" => "over the Internet, with separate consent where the profile asks for it",
            _ => "none",
        },
        "retention_days_at_most": profile.max_retention_days,
        "erased_within_seconds": profile.erase_within_seconds,
        "inactive_months": controller.get("inactive_months").cloned().unwrap_or_else(|| json!(profile.max_inactive_months)),
        "profile": status.profile,
        "deployment": status.deployment,
        "model": status.model_contract,
        "security": MEASURES.iter().map(|(en, zh)| json!({ "en": en, "zh": zh })).collect::<Vec<_>>(),
    })
}

fn print(record: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let controller = &record["controller"];
    say!();
    say!("## {} ({})", text(&controller["name"]), text(&controller["id"]));
    say!();
    say!("- contact / 联系方式: {}", text(&controller["contact"]).trim());
    say!("- data subjects / 对象: {}", text(&record["data_subjects"]));
    say!("- data / 信息种类: {}", text(&record["data"]));
    say!("- recipients / 接收方: none / 无");
    say!("- transfers / 对外传输: {}", text(&record["transfers"]));
    say!(
        "- retention / 保存期限: at most {} days, erased within {} s; profile {}",
        record["retention_days_at_most"],
        record["erased_within_seconds"],
        text(&record["profile"])
    );
    say!("- model / 模型: {}", text(&record["model"]));
    say!();
    say!("| purpose / 目的 | scope / 范围 | templates / 模板数 |");
    say!("|---|---|---|");
    for class in list(record, "processing") {
        say!(
            "| {} | {} | {} |",
            text(&class["purpose"]),
            text(&class["scope"]),
            class["templates"]
        );
    }
    say!();
    say!("| gate / 通道 | place / 场所 | comparison / 比对 |");
    say!("|---|---|---|");
    for gate in list(record, "gates") {
        say!(
            "| {} | {} | {} |",
            text(&gate["id"]),
            text(&gate["place_type"]),
            text(&gate["comparison"])
        );
    }
    say!();
    for (title, table) in
        [("notice / 告知书", "notices"), ("impact assessment / 影响评估", "impact_assessments")]
    {
        for row in list(record, table) {
            say!("- {title}: {}", named(row));
        }
    }
    for (en, zh) in MEASURES {
        say!("- security / 安全措施: {en} / {zh}");
    }
}

/// "id@version", or the version where a table has no ids.
fn named(row: &Value) -> String {
    let part = |field: &str| row[field].as_str().unwrap_or_default();
    match part("id") {
        "" => part("version").to_owned(),
        id => format!("{id}@{}", part("version")),
    }
}
