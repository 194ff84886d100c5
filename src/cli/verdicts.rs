//! What auditors are told of a trail, a receipt or a decommissioning that does not hold, in Chinese;
//! in English it is each fault's own `Display`.
//!
//! No match in this file has a wildcard arm over our own faults: one without words does not build.

use super::words::in_chinese;
use crate::audit::{ReceiptFault, VerifyError, WitnessAlarm};
use crate::server::DecommissionFailure;

/// A fault that people are told of in their language.
pub(super) trait Verdict: std::error::Error + Sized {
    /// In Chinese; `None` where only the system knows what is wrong.
    fn zh(&self) -> Option<String>;

    /// In the user's language.
    fn said(&self) -> String {
        self.zh().filter(|_| in_chinese()).unwrap_or_else(|| super::exit::chain(self))
    }
}

impl Verdict for VerifyError {
    fn zh(&self) -> Option<String> {
        Some(match self {
            Self::Read(_) => return None,
            Self::Malformed { line, what } => format!("第 {line} 行不是审计导出的内容：{what}"),
            Self::OtherKey { found, expected } => {
                format!("本导出由 {found} 签名，而不是 {expected}")
            }
            Self::OutOfTurn { line, found, expected } => format!(
                "第 {line} 行是第 {found} 条，此处应为第 {expected} 条：有条目被删除、插入或移动"
            ),
            Self::CheckpointDiffers { seq } => {
                format!("第 {seq} 条所签名的过去与其前的条目不符：其前的条目被改动过")
            }
            Self::Signature { seq, .. } => format!("第 {seq} 条处的签名不是该部署的密钥所签"),
            Self::NoEnd { seq } => format!("导出止于第 {seq} 条，没有签名的结尾：被截断"),
            Self::EndDiffers => "签名的结尾属于另一条链：条目被改动，或属于另一份导出".to_owned(),
            Self::BehindEnd { line } => format!("第 {line} 行在签名的结尾之后"),
            Self::WitnessDiffers { seq } => {
                format!("见证人所见的第 {seq} 条与此不同：记录在见证之后被改写或分叉")
            }
            Self::WitnessSawMore { witnessed, at, end } => format!(
                "见证人于 {at} 已见到第 {witnessed} 条，而本导出止于第 {end} 条：记录被截断，或这是较早的导出"
            ),
        })
    }
}

impl Verdict for ReceiptFault {
    fn zh(&self) -> Option<String> {
        Some(match self {
            Self::OtherKey { found, expected } => format!("由 {found} 签名，而不是 {expected}"),
            Self::Signature(_) => "签名不成立：内容被改动，或不是该密钥所签".to_owned(),
            Self::NotAReceipt => "所签的内容不是回执".to_owned(),
        })
    }
}

impl Verdict for WitnessAlarm {
    fn zh(&self) -> Option<String> {
        match self {
            Self::CutShort { witnessed, end } => {
                Some(format!("记录被截断：已见证至第 {witnessed} 条，现止于第 {end} 条"))
            }
            Self::Rewritten { seq } => Some(format!("记录被改写：第 {seq} 条与所见证的不同")),
            Self::Export(fault) => fault.zh(),
        }
    }
}

impl Verdict for DecommissionFailure {
    fn zh(&self) -> Option<String> {
        Some(match self {
            Self::Nothing { path } => format!("{} 中没有存储", path.display()),
            Self::Already { path } => {
                format!("{} 已经终止；证书为其中的 decommissioned.json", path.display())
            }
            Self::File { path, source } => format!("{} 无法写入：{source}", path.display()),
            Self::Cell(_) | Self::Backend(_) | Self::Store(_) => return None,
            Self::Interrupted { path, digits } => format!(
                "{} 的终止在销毁密钥之后中断；请以 `--confirm {digits} --output FILE` 重复该命令以完成",
                path.display()
            ),
            Self::OtherCell { given, pledged } => {
                format!("配置中的根密钥为 {given}，而正在销毁的是 {pledged}：请使用开始时的配置")
            }
            Self::Pledge { path } => format!("{} 不是事先签名的证书", path.display()),
            Self::Inside { path, root } => {
                format!("{} 位于将被清除的 {} 中：请另指定位置", path.display(), root.display())
            }
        })
    }
}
