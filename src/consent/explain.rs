//! What each rule of a profile does, in words: `assent profile explain`.

use super::profile::{Profile, shipped};

/// One rule of one profile.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// The field of the profile.
    pub rule: &'static str,
    /// Its value, as the profile's file writes it; "not set" where it says nothing.
    pub value: String,
    /// The article that it comes from, or that it is ours.
    pub source: String,
    /// What it does, in English.
    pub en: &'static str,
    /// What it does, in Chinese.
    pub zh: &'static str,
}

/// Field, English, Chinese; in the order of the files.
pub(super) const RULES: [(&str, &str, &str); 20] = [
    (
        "max_retention_days",
        "longest time from consent to expiry, in days; a consent that asks for more is refused",
        "自同意之日起的最长保存天数；超过者拒绝登记",
    ),
    (
        "max_inactive_months",
        "longest time without use before erasure, in calendar months; a controller may set less",
        "最长未使用月数，超过即删除；处理者可设更短期限",
    ),
    (
        "erase_within_seconds",
        "longest time from expiry to erasure, in seconds",
        "到期后最迟多少秒内删除",
    ),
    (
        "notice_grace_days",
        "for how many days a superseded notice may still be consented to",
        "告知书更新后，旧版本还可使用的天数",
    ),
    (
        "intent_required",
        "a gate must say how the person asked to be recognised (button, card, QR, presence)",
        "通道必须说明本人以何种动作（按键、刷卡、扫码、驻足确认）要求识别",
    ),
    (
        "accessible_alternative_required",
        "each gate needs a way in without the face that suits disabled and elderly people",
        "每个通道须有适合残疾人和老年人的非人脸通行方式",
    ),
    (
        "public_places_allowed",
        "whether gates may stand in places that are open to everybody",
        "是否允许在公共场所设置",
    ),
    (
        "public_place_purposes",
        "the only purposes of gates in public places; an empty list allows any",
        "公共场所允许的处理目的；留空为不限",
    ),
    (
        "public_place_conditions",
        "gates in public places need a sign, a bounded capture area and a stated necessity",
        "公共场所须有显著提示标识、限定的采集区域和必要性说明",
    ),
    (
        "other_lawful_bases_allowed",
        "whether a basis other than consent is accepted, with the law named",
        "是否接受同意以外的合法性基础（须写明法律依据）",
    ),
    (
        "children_allowed",
        "whether children under 14 may be enrolled, with their guardian's consent",
        "经监护人同意后，是否可为不满十四周岁的未成年人登记",
    ),
    (
        "internet_needs_consent",
        "where templates are reached over the Internet, each consent must say so separately",
        "经互联网传输时，须就此取得单独同意",
    ),
    (
        "impact_assessment_required",
        "nobody is enrolled until the controller has a current impact assessment for the purpose",
        "处理者须先完成有效的影响评估，方可登记",
    ),
    (
        "default_comparison",
        "what a gate compares where its policy does not say; without it each gate must say",
        "通道未写明时的比对方式；未设则每个通道必须写明",
    ),
    (
        "duplicates",
        "what happens where a face looks like another subject's, if the controller does not say",
        "疑似同一人重复登记时的默认处理",
    ),
    (
        "duplicate_fpir",
        "the share of honest enrolments that the duplicate search may suspect wrongly",
        "重复检查允许的误报比例",
    ),
    (
        "filing_threshold",
        "from how many persons on a controller has to file with the authority",
        "存储人脸信息达到多少人时，处理者须向网信部门备案",
    ),
    (
        "filing_warn_share",
        "from which share of that number on the controller is warned",
        "达到备案人数的多大比例时预警",
    ),
    (
        "filing_working_days",
        "how many working days the controller has to file, to file a change, and to cancel",
        "备案、变更备案和注销备案的期限（工作日）",
    ),
    (
        "lockout_attempts",
        "consecutive failed 1:1 attempts at one subject after which its face waits",
        "对同一人连续比对失败多少次后暂停其人脸通行",
    ),
];

impl Profile {
    /// Each rule with its value, source and meaning.
    #[must_use]
    pub fn explain(&self) -> Vec<Explanation> {
        // A profile was parsed from this very text.
        let table: toml::Table =
            shipped(&self.name).and_then(|text| toml::from_str(text).ok()).unwrap_or_default();
        let explain = |(rule, en, zh): (&'static str, _, _)| Explanation {
            rule,
            value: table.get(rule).map_or_else(|| "not set".to_owned(), ToString::to_string),
            source: self.sources.get(rule).cloned().unwrap_or_default(),
            en,
            zh,
        };
        RULES.into_iter().map(explain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that is added without a source or an explanation fails here.
    #[test]
    fn every_rule_of_every_profile_has_a_source_and_an_explanation() {
        for name in Profile::names() {
            let table: toml::Table = toml::from_str(shipped(name).unwrap()).unwrap();
            let set = table.keys().filter(|key| !["name", "sources"].contains(&key.as_str()));
            let explained = Profile::named(name).unwrap().explain();
            for rule in set {
                let found = explained.iter().find(|e| e.rule == rule);
                let found = found.unwrap_or_else(|| panic!("{name}: {rule} is not explained"));
                assert!(!found.source.is_empty(), "{name}: {rule} has no source");
            }
            let sources = Profile::named(name).unwrap().sources;
            let known = |source: &&String| RULES.iter().any(|(rule, ..)| *rule == source.as_str());
            assert!(sources.keys().all(|source| known(&source)), "{name}");
        }
    }
}
