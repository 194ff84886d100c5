//! Refusals in Chinese. English is each refusal's own `Display`; the two say the same.
//!
//! No match in this file has a wildcard arm: a refusal without Chinese words does not build.

use super::draft::{ConsentFault, ConsentRefusal};
use super::filing::MarkRefusal;
use super::gate::Comparison;
use super::pass::GateRefusal;
use super::refusal::{PolicyError, PolicyFault};
use crate::types::{PersonalIdentifier, TextFault};

impl ConsentRefusal {
    /// The refusal in Chinese.
    #[must_use]
    pub fn zh(&self) -> String {
        format!("{}：{}", self.field, self.fault.zh())
    }
}

impl ConsentFault {
    fn zh(self) -> String {
        let words = match self {
            Self::Missing => "缺少此项",
            Self::Text(fault) => return zh_of_text(fault),
            Self::Digest { length } => {
                return format!("SHA-256 摘要应为 32 字节，而不是 {length} 字节");
            }
            Self::InFuture => "时间在未来",
            Self::NotAfterCapture => "不晚于同意的时间",
            Self::Past => "已经过期",
            Self::RetentionTooLong { max_days } => {
                return format!("超过自同意之日起 {max_days} 天的最长期限");
            }
            Self::Bundled => "与其他事项捆绑的同意不是同意（司法解释第四条）",
            Self::UnknownController => "没有这个处理者",
            Self::UnknownNotice => "该处理者没有这个版本的告知书",
            Self::NoticeSuperseded { at } => {
                return format!("该版本已于 {at} 被新版本取代，宽限期已过；请使用现行版本");
            }
            Self::NoticeNotYetEffective { from } => {
                return format!("该告知书自 {from} 起生效，尚未生效");
            }
            Self::NoticeDiffers => "不是这份告知书的摘要；本人看到的是另一份文本",
            Self::PurposeNotInNotice => "告知书中没有这个目的",
            Self::NoGate => "该处理者没有在此范围为此目的服务的通道；请先设置通道",
            Self::OffdeviceConsentMissing => {
                "此部署经互联网传输，须取得本人的单独同意（办法第八条）"
            }
            Self::AssessmentMissing => "该处理者没有有效的影响评估；请先完成评估（办法第九条）",
            Self::AssessmentForOtherPurpose => "影响评估未涵盖这个目的；请重新评估（办法第九条）",
            Self::AssessmentBeforeIncident => {
                "影响评估早于最近一次重大安全事件；请重新评估（办法第九条）"
            }
            Self::AssessmentForOtherModel => "影响评估针对的是另一个模型；请重新评估（办法第九条）",
            Self::BasisNotAllowed => "现行规则只接受同意作为合法性基础",
            Self::LegalReferenceMissing => "同意以外的合法性基础须写明法律依据",
            Self::ChildrenNotAllowed => "现行规则不为不满十四周岁者登记",
            Self::NeededForChild => "不满十四周岁须有此项（办法第七条）",
            Self::ForChildrenOnly => "仅用于不满十四周岁者的同意；请去掉此项",
        };
        words.to_owned()
    }
}

impl GateRefusal {
    /// The refusal in Chinese.
    #[must_use]
    pub fn zh(self) -> String {
        let words = match self {
            Self::UnknownGate => "没有这个通道",
            Self::IntentMissing => "通道须说明本人以何种动作要求识别",
            Self::PadMissing => "此通道的规则要求给出活体检测结论",
            Self::PadNeedsFrame => "此通道由模型判断活体，须提供完整画面",
            Self::NoAlternativeUp => {
                "所有受监测的替代方式均不可用，人脸不得成为唯一方式；请恢复其中一种"
            }
            Self::NotWatched => "此通道的规则中没有这种设有心跳的替代方式",
            Self::Comparison(Comparison::OneToOne) => "此通道的规则不允许 1:1 验证；请不要指定对象",
            Self::Comparison(Comparison::OneToMany) => "此通道的规则不允许 1:N 识别；请指定对象",
        };
        words.to_owned()
    }
}

impl MarkRefusal {
    /// The refusal in Chinese.
    #[must_use]
    pub fn zh(&self) -> String {
        match self {
            Self::NoSuchDuty(profile) => format!("规则集 {profile:?} 不要求备案"),
            Self::AlreadyFiled(filed) => format!(
                "已于 {} 备案，备案号 {}；请登记变更或注销",
                filed.on,
                filed.number.as_str()
            ),
            Self::NotFiled => "尚未备案：请先登记备案".to_owned(),
            Self::Future { on, today } => format!("{on} 尚未到来：北京时间今天是 {today}"),
            Self::TooEarly { on, before } => {
                format!("{on} 早于上次备案或注销之日 {before}")
            }
            Self::StillHolds { persons } => format!(
                "仍保存 {persons} 人：注销备案须已终止使用，且不再保存人脸信息（办法第十五条）"
            ),
            Self::NoMark => "没有可以收回的登记".to_owned(),
            Self::OtherNumber(number) => {
                format!("上次登记的备案号是 {}：收回时请写明该号", number.as_str())
            }
        }
    }
}

impl PolicyError {
    /// The refusal in Chinese.
    #[must_use]
    pub fn zh(&self) -> String {
        match self {
            Self::Syntax { line, message } => format!("第 {line} 行：不是 TOML：{message}"),
            Self::UnknownTable { line, name } => {
                format!("第 {line} 行：没有名为 {name:?} 的表")
            }
            Self::Object { line, table, id, field, fault } => {
                format!("第 {line} 行：{table} {id:?}：{field}：{}", fault.zh())
            }
        }
    }
}

impl PolicyFault {
    fn zh(&self) -> String {
        let words = match self {
            Self::Missing => "缺少此项",
            Self::Unknown => "此处没有这个字段",
            Self::Invalid { message } => return format!("值不合规：{message}"),
            Self::OutOfRange { least, most } => return format!("应在 {least} 与 {most} 之间"),
            Self::RateOutsideTable(fault) => {
                return format!(
                    "FMR {:e} 超出模型标定的范围（{:e} 至 {:e}）",
                    fault.fmr, fault.strictest, fault.laxest
                );
            }
            Self::NoLivenessModel => {
                "模型包中没有活体检测模型；请用 pad = \"gate\"，或换用清单中有 [liveness] 的模型包"
            }
            Self::IncidentTakenBack { at } => {
                return format!("已应用的事件时间为 {at}：只能改晚，不能改早或去掉（办法第九条）");
            }
            Self::InFuture { now } => return format!("时间尚未到来：现在是 {now}"),
            Self::Empty => "至少需要一项",
            Self::TooMany { limit } => return format!("超过 {limit} 项"),
            Self::Repeated => "在文件中出现了两次",
            Self::NoAlternative(_) => {
                "每个通道至少需要一种非人脸的通行方式（司法解释第十条、办法第十条）"
            }
            Self::NoAccessibleAlternative => {
                "至少一种替代方式须标明 accessible = true（办法第五条）"
            }
            Self::ForbiddenPlace(_) => "私密空间及未写明的场所不得设置（办法第十三条）",
            Self::PublicPlace => "现行规则不允许在公共场所设置",
            Self::PublicPurpose { allowed } => {
                return format!("公共场所仅允许：{}（办法第十三条）", allowed.join("、"));
            }
            Self::PublicConditions => {
                "公共场所须在 public_place 中写明提示标识、采集区域和必要性（办法第十三条）"
            }
            Self::InactiveMonths { most } => return format!("应在 2 与 {most} 个月之间"),
            Self::NothingWatched => "至少一种替代方式须设 heartbeat_s",
            Self::LockoutTooLax { most } => {
                return format!("应在 1 与 {most} 之间，后者是现行规则的 lockout_attempts");
            }
            Self::AssessmentIsImmutable => "该版本已以其他内容生效；请另立新版本（办法第九条）",
            Self::UnknownController => "没有这个处理者",
            Self::NoticeIsImmutable => "该版本已以其他内容生效；请发布新版本",
            Self::SameEffectiveDate => "该告知书的另一版本在同一时刻生效",
        };
        words.to_owned()
    }
}

/// What is wrong with a text, in Chinese.
#[must_use]
pub fn zh_of_text(fault: TextFault) -> String {
    let words = match fault {
        TextFault::Empty => "缺少此项",
        TextFault::TooLong { limit } => return format!("超过 {limit} 字节"),
        TextFault::Control => "含有控制字符",
        TextFault::Personal(PersonalIdentifier::CitizenNumber) => {
            "疑似公民身份号码；请使用不含个人信息的编号"
        }
        TextFault::Personal(PersonalIdentifier::MobileNumber) => {
            "疑似手机号码；请使用不含个人信息的编号"
        }
        TextFault::Personal(PersonalIdentifier::Email) => "疑似电子邮箱；请使用不含个人信息的编号",
        TextFault::NotUuid => "不是 UUID",
    };
    words.to_owned()
}
