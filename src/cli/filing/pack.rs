//! The material of a filing (M15), as far as the service knows it: a folder of texts in Chinese and
//! English, and an index that says what the controller adds by hand.
//!
//! # Invariants
//! - Nothing of a person is in it: numbers, rules and texts that the controller published.
//! - Nothing is overwritten.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::exit::Failure;
use super::super::output;
use crate::consent::{Gate, GatePass, Policy, PolicyDocument, Profile};
use crate::service::{json, proto};
use crate::types::{Purpose, Scope, Timestamp};

/// A file of the folder and what is in it.
pub(super) type File = (&'static str, String);

/// What a filing is made of.
pub(super) struct Material {
    filing: proto::ControllerFiling,
    policy: Policy,
    policy_toml: String,
    policy_revision: u64,
    status: proto::StatusResponse,
    at: Timestamp,
}

impl Material {
    /// Out of what the service said.
    pub(super) fn of(
        filing: proto::ControllerFiling,
        policy: proto::ReadPolicyResponse,
        status: proto::StatusResponse,
    ) -> Result<Self, Failure> {
        let profile = Profile::named(&status.profile).map_err(Failure::internal)?;
        let document = PolicyDocument::parse(&policy.toml).map_err(Failure::internal)?;
        let (rules, _changes) =
            Policy::under(profile).apply(&document).map_err(Failure::internal)?;
        let proto::ReadPolicyResponse { toml, revision: policy_revision } = policy;
        let policy_toml = own_part(&toml, &filing.controller_id)?;
        let status = own_status(status, &filing.controller_id, &rules);
        let at = Timestamp::now();
        Ok(Self { filing, policy: rules, policy_toml, policy_revision, status, at })
    }

    fn id(&self) -> &str {
        &self.filing.controller_id
    }

    fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.policy.gates().map(GatePass::gate).filter(|g| g.controller.as_str() == self.id())
    }
}

/// What a policy says of one controller: the filing of one says nothing of another.
fn own_part(toml: &str, controller: &str) -> Result<String, Failure> {
    let mut policy: toml::Table = toml::from_str(toml).map_err(Failure::internal)?;
    for (table, rows) in &mut policy {
        let name = if table == "controllers" { "id" } else { "controller" };
        if let Some(rows) = rows.as_array_mut() {
            rows.retain(|row| row.get(name).and_then(toml::Value::as_str) == Some(controller));
        }
    }
    toml::to_string(&policy).map_err(Failure::internal)
}

/// The same of the service's state.
fn own_status(
    status: proto::StatusResponse,
    controller: &str,
    policy: &Policy,
) -> proto::StatusResponse {
    let owns = |gate: &str| {
        policy
            .gates()
            .map(GatePass::gate)
            .any(|own| own.id.as_str() == gate && own.controller.as_str() == controller)
    };
    let mut own = status;
    own.classes.retain(|class| class.controller_id == controller);
    own.unassessed.retain(|purpose| purpose.controller_id == controller);
    own.gate_plans.retain(|plan| owns(&plan.gate_id));
    own.down_alternatives.retain(|way| owns(&way.gate_id));
    own.quarantined_records.clear();
    own
}

/// Every file, in the order of the law's list.
pub(super) fn files(material: &Material) -> Result<Vec<File>, Failure> {
    Ok(vec![
        ("README.md", index(material)),
        ("01-controller.md", controller(material)),
        ("02-purpose-and-method.md", purpose(material)),
        ("03-number-and-security.md", number(material)),
        ("04-rules-and-procedures.md", rules(material)),
        ("05-impact-assessment.md", assessment(material)),
        ("06-policy.toml", material.policy_toml.clone()),
        ("07-profile-rules.json", pretty(&material.policy.profile().explain())?),
        ("08-filing.json", pretty(&json::to_json("ControllerFiling", &material.filing))?),
        ("09-status.json", pretty(&json::to_json("StatusResponse", &material.status))?),
    ])
}

fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(Failure::internal)
}

/// A word of the policy as its document writes it, such as "`one_to_many`".
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or("-").to_owned()
}

fn heading(zh: &str, en: &str) -> String {
    format!("# {zh}\n\n{en}\n\n")
}

macro_rules! put {
    ($text:expr) => { $text.push('\n') };
    // Writing to a string cannot fail.
    ($text:expr, $($arg:tt)*) => { let _ = writeln!($text, $($arg)*); };
}

const BY_HAND: [(&str, &str); 6] = [
    (
        "处理者的统一社会信用代码、住所、法定代表人和个人信息保护负责人的姓名及联系方式",
        "the controller's registration number, seat, legal representative and the person in charge \
         of personal information, with their contacts",
    ),
    (
        "签字盖章的个人信息保护影响评估报告全文（05 中列有其摘要值）",
        "the signed impact assessment itself; 05 names its digest",
    ),
    (
        "管理制度、操作规程、应急预案和人员培训记录",
        "management rules, operating procedures, emergency plan and records of training",
    ),
    (
        "网络安全等级保护等证明材料",
        "evidence of the site's security, such as its classified protection (等级保护)",
    ),
    (
        "服务之外（例如旧系统中）存储的人脸信息数量：人数以处理者为单位合计",
        "faces that the controller holds elsewhere, such as in an older system: the law counts all \
         of them",
    ),
    (
        "省级网信部门要求的备案表和其他材料",
        "the form of the province's cyberspace administration, and what else it asks for",
    ),
];

fn index(material: &Material) -> String {
    let mut text = heading(
        "人脸识别技术应用备案材料",
        "Material for a filing under article 15 of the Measures for the Security Management of \
         Facial Recognition Technology Applications.",
    );
    put!(text, "- 处理者 Controller: {}", material.id());
    put!(text, "- 导出时间 Collected: {}, Assent {}", material.at, material.status.version);
    put!(text, "- 策略版本 Policy: revision {}", material.policy_revision);
    let due = match (&material.filing.deadline, material.filing.overdue) {
        (day, _) if day.is_empty() => "-".to_owned(),
        (day, false) => day.clone(),
        (day, true) => format!("{day} (已逾期 overdue)"),
    };
    put!(text, "- 截止日期 Last day: {due}");
    put!(text);
    put!(text, "| 文件 File | 第十五条要求的材料 Article 15 asks for |");
    put!(text, "|---|---|");
    for (file, zh, en) in [
        ("01-controller.md", "（一）个人信息处理者的基本情况", "who the controller is"),
        ("02-purpose-and-method.md", "（二）处理目的和处理方式", "purpose and method"),
        (
            "03-number-and-security.md",
            "（三）存储数量和安全保护措施",
            "number held and security measures",
        ),
        ("04-rules-and-procedures.md", "（四）处理规则和操作规程", "rules and procedures"),
        ("05-impact-assessment.md", "（五）个人信息保护影响评估报告", "impact assessment"),
        ("06-policy.toml", "附：生效策略全文", "the policy in force"),
        ("07-profile-rules.json", "附：所适用的规则及其出处", "the rules in force, with sources"),
        ("08-filing.json", "附：备案状态", "where the filing stands"),
        ("09-status.json", "附：运行状态", "what the service is doing"),
    ] {
        put!(text, "| {file} | {zh} / {en} |");
    }
    put!(text);
    put!(text, "## 须由处理者补充 To be added by hand");
    put!(text);
    for (zh, en) in BY_HAND {
        put!(text, "- [ ] {zh}\n  {en}");
    }
    put!(text);
    put!(text, "备案后请登记 Once filed, say so:");
    put!(text);
    put!(text, "    assent filing mark-filed --controller {} --number NUMBER", material.id());
    text
}

fn controller(material: &Material) -> String {
    let mut text = heading("个人信息处理者的基本情况", "Who the controller is.");
    let all = material.policy.controllers();
    for controller in all.filter(|c| c.id.as_str() == material.id()) {
        put!(text, "- 标识 Id: {}", controller.id);
        put!(text, "- 名称 Name: {}", controller.name.as_str());
        put!(text, "- 联系方式 Contact: {}", controller.contact.as_str());
    }
    text
}

fn purpose(material: &Material) -> String {
    let mut text = heading("人脸信息处理目的和处理方式", "Purpose and method of processing.");
    put!(text, "| 通道 Gate | 位置 Place | 目的 Purposes | 范围 Scopes | 比对方式 Comparison |");
    put!(text, "|---|---|---|---|---|");
    for gate in material.gates() {
        let purposes: Vec<&str> = gate.purposes.iter().map(Purpose::as_str).collect();
        let scopes: Vec<&str> = gate.scopes.iter().map(Scope::as_str).collect();
        let comparison = gate.comparison.map_or("-", |comparison| comparison.as_str());
        put!(
            text,
            "| {} ({}) | {} | {} | {} | {comparison} |",
            gate.id,
            gate.label,
            word(&gate.place_type),
            purposes.join(", "),
            scopes.join(", ")
        );
    }
    put!(text);
    put!(text, "- 模型 Model: {}", material.status.model_contract);
    put!(text, "- 部署 Deployment: {}", material.status.deployment);
    put!(
        text,
        "- 照片仅用于计算特征模板，随即销毁。A photo is made into a template and destroyed."
    );
    text
}

fn number(material: &Material) -> String {
    let (filing, status) = (&material.filing, &material.status);
    let mut text =
        heading("人脸信息存储数量和安全保护措施", "Number of persons held, and security measures.");
    put!(text, "- 人数 Persons: {} ({})", filing.persons, material.at);
    put!(text, "- 备案人数 Threshold: {}", filing.threshold);
    if let Some(since) = &filing.due_since {
        put!(text, "- 达到之日 Due since: {}", output::time(Some(since)));
    }
    put!(text);
    put!(text, "| 目的 Purpose | 范围 Scope | 模板数 Templates |");
    put!(text, "|---|---|---|");
    for class in status.classes.iter().filter(|class| class.controller_id == filing.controller_id) {
        put!(text, "| {} | {} | {} |", class.purpose, class.scope, class.templates);
    }
    put!(text);
    let keys = status.keys.clone().unwrap_or_default();
    put!(text, "- 每条记录一个密钥，加密存储；撤回同意即销毁密钥。");
    put!(text, "  Each record is sealed under a key of its own; withdrawal destroys the key.");
    put!(text, "- 根密钥 Root key: {}; 内存 memory: {}", keys.root_cell, keys.memory);
    let locked =
        if status.arena_locked { "锁定 locked" } else { "未全部锁定 NOT all locked" };
    put!(text, "- 模板所在内存 Template memory: {locked}");
    put!(
        text,
        "- 非本机调用须双向 TLS 客户端证书与角色授权。Callers that are not on the same machine need client certificates with roles."
    );
    put!(
        text,
        "- 每次处理均记入带签名的链式审计日志。Every processing is in a signed audit chain."
    );
    put!(text, "- 不保存照片，不向任何接口输出模板。No photo is kept, no call returns a template.");
    text
}

fn rules(material: &Material) -> String {
    let mut text = heading("人脸信息的处理规则和操作规程", "Rules of processing, and procedures.");
    put!(text, "## 告知书 Notices");
    for notice in material.policy.notices().filter(|n| n.controller.as_str() == material.id()) {
        let standing = match material.policy.standing(notice, material.at) {
            crate::consent::NoticeStanding::Current => "现行 current",
            crate::consent::NoticeStanding::NotYetEffective => "尚未生效 not yet effective",
            crate::consent::NoticeStanding::Superseded { .. } => "已被取代 superseded",
        };
        put!(text);
        put!(text, "### {}@{} ({standing})", notice.id, notice.version);
        put!(text);
        put!(text, "- SHA-256: {}", String::from(notice.sha256()));
        put!(text, "- 生效 Effective from: {}", notice.effective_from);
        for words in &notice.texts {
            put!(text);
            put!(text, "#### {}", words.language.as_str());
            for part in [
                &words.controller_contact,
                &words.purpose_and_method,
                &words.retention,
                &words.necessity_and_impact,
                &words.rights,
            ] {
                put!(text);
                put!(text, "{}", part.as_str());
            }
        }
    }
    put!(text);
    put!(text, "## 非人脸通行方式 Ways in that need no face");
    put!(text);
    for gate in material.gates() {
        for way in gate.alternatives.as_slice() {
            let accessible = if way.accessible { " (无障碍 accessible)" } else { "" };
            put!(text, "- {}: {}{accessible}: {}", gate.id, word(&way.method), way.hint);
        }
    }
    put!(text);
    put!(text, "## 系统强制执行的规则 Rules that the service enforces");
    put!(text);
    put!(text, "| 规则 Rule | 值 Value | 出处 Source | 说明 Meaning |");
    put!(text, "|---|---|---|---|");
    for rule in material.policy.profile().explain() {
        put!(text, "| {} | {} | {} | {} |", rule.rule, rule.value, rule.source, rule.zh);
    }
    text
}

fn assessment(material: &Material) -> String {
    let mut text = heading("个人信息保护影响评估报告", "Impact assessment.");
    let own = material.policy.assessments().filter(|a| a.controller.as_str() == material.id());
    let mut any = false;
    for one in own {
        any = true;
        let purposes: Vec<&str> = one.purposes.iter().map(Purpose::as_str).collect();
        put!(text, "## {} ({})", one.version, one.assessed_at);
        put!(text);
        put!(text, "- 目的 Purposes: {}", purposes.join(", "));
        put!(text, "- 模型 Model: {}", one.model);
        put!(text, "- 签署文件 Signed document, SHA-256: {}", String::from(one.document_sha256));
        for (title, part) in [
            ("合法、正当、必要性 Lawfulness", &one.lawfulness),
            ("对个人权益的影响 Impact", &one.impact),
            ("安全风险 Risks", &one.risks),
            ("保护措施 Safeguards", &one.safeguards),
        ] {
            put!(text);
            put!(text, "### {title}");
            put!(text);
            put!(text, "{}", part.as_str());
        }
        put!(text);
    }
    if !any {
        put!(text, "没有影响评估：请先完成并应用。There is none: conclude one and apply it first.");
    }
    text
}
