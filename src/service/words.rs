//! What people read, in English and Chinese: decisions, reasons against a face, refusals by their
//! stable reason.
//!
//! One table. `Notices.GetMessages` gives it to whoever shows something to a person; refusals carry
//! their Chinese words as `google.rpc.LocalizedMessage`. Refusals of consents and policies have
//! words of their own (`consent/words.rs`), because they name what is wrong.

use tonic::Code;

use super::{proto, to_wire};
use crate::pipeline::DecodeError;
use crate::types::Quality;

/// The language of the translations.
pub(super) const LANGUAGE: &str = "zh-CN";

/// Name on the wire, English, Chinese.
pub(super) const WORDS: [(&str, &str, &str); 42] = [
    ("DECISION_MATCH", "Recognised. Please pass.", "识别通过，请通行。"),
    (
        "DECISION_NO_MATCH",
        "Not recognised. Please use another way in.",
        "未能识别，请使用其他方式通行。",
    ),
    (
        "DECISION_NO_FACE",
        "No face was seen. Please stand in front of the gate.",
        "未看到人脸，请站到通道前。",
    ),
    (
        "DECISION_SEVERAL_FACES",
        "There are several people. Please come one by one.",
        "画面中有多人，请逐一通行。",
    ),
    (
        "DECISION_LOW_QUALITY",
        "The picture is not good enough. Please try again or use another way in.",
        "图像质量不足，请重试或使用其他方式。",
    ),
    (
        "DECISION_SPOOF_SUSPECTED",
        "This cannot be accepted. Please use another way in.",
        "无法接受，请使用其他方式通行。",
    ),
    ("DECISION_STALE_FRAME", "The picture was too old. Please try again.", "画面已过时，请重试。"),
    (
        "DECISION_LOCKED_OUT",
        "Too many attempts. Please use another way in, or try again later.",
        "尝试次数过多，请使用其他方式，或稍后再试。",
    ),
    (
        "DECISION_FACE_DISABLED",
        "Faces are switched off here. Please use another way in.",
        "此处未启用人脸，请使用其他方式通行。",
    ),
    ("QUALITY_REASON_TOO_SMALL", "The face is too small; come closer.", "人脸过小，请靠近。"),
    ("QUALITY_REASON_BLURRED", "The face is blurred; keep still.", "人脸模糊，请保持不动。"),
    ("QUALITY_REASON_TURNED", "The face is turned away; look at the camera.", "请正对镜头。"),
    ("QUALITY_REASON_DARK", "The face is too dark.", "光线过暗。"),
    ("QUALITY_REASON_OVEREXPOSED", "The face is overexposed.", "光线过亮。"),
    ("QUALITY_REASON_SEVERAL_FACES", "There are several faces.", "画面中有多张人脸。"),
    ("QUALITY_REASON_CUT_OFF", "The face is cut off by the edge.", "人脸未完整进入画面。"),
    ("QUALITY_REASON_NO_FACE", "There is no face.", "未看到人脸。"),
    (
        "QUALITY_REASON_INCONSISTENT",
        "This is not the face of the first picture.",
        "与第一张照片不是同一张脸。",
    ),
    ("COMPARISON_FORBIDDEN", "This gate does not compare so.", "此通道不允许这种比对方式。"),
    ("CONSENT", "The consent record is not accepted.", "同意记录未被接受。"),
    (
        "CONSENT_USED",
        "This consent was used before; every enrolment needs its own.",
        "该同意已用过，每次登记须有单独的同意。",
    ),
    ("CONTROLLER_UNKNOWN", "There is no such controller.", "没有这个处理者。"),
    (
        "DUPLICATE",
        "This face is enrolled already under another reference.",
        "该人脸已以其他编号登记。",
    ),
    ("FILING", "That does not fit where the filing stands.", "与当前备案状态不符。"),
    ("GATE_UNKNOWN", "There is no such gate.", "没有这个通道。"),
    ("INTENT_MISSING", "The gate must say how the person asked.", "通道须说明本人的主动要求。"),
    (
        "KEY_REUSED",
        "This idempotency key was used for another enrolment.",
        "该幂等键已用于另一次登记。",
    ),
    ("LIVENESS_MODEL", "The model pack has no liveness model.", "模型包中没有活体检测模型。"),
    (
        "LOW_ON_SPACE",
        "The service's disk is full; withdrawals go on.",
        "服务磁盘已满；撤回仍可进行。",
    ),
    ("LOW_QUALITY", "A picture is not good enough for a template.", "照片质量不足以登记。"),
    ("MODEL_CONTRACT", "The embedding is of another model.", "特征来自另一个模型。"),
    (
        "NO_ALTERNATIVE_UP",
        "No other way in works; the face must not be the only one.",
        "其他通行方式均不可用，人脸不得成为唯一方式。",
    ),
    (
        "NOT_WATCHED",
        "This alternative has no heartbeat in the policy.",
        "规则中该替代方式未设心跳。",
    ),
    (
        "OPERATING_POINT",
        "The calibration does not reach the rates that the policy asks for.",
        "标定数据达不到规则要求的错误率。",
    ),
    (
        "OPERATING_POINT_OUTGROWN",
        "The gallery is larger than this gate's error rate allows.",
        "登记人数超出此通道错误率的适用范围。",
    ),
    (
        "PAD_MISSING",
        "The gate must say whether a living person stands there.",
        "通道须给出活体检测结论。",
    ),
    ("PAD_NEEDS_FRAME", "Liveness is judged on a whole picture here.", "活体判断需要完整画面。"),
    ("POLICY", "The policy file is refused as a whole.", "规则文件整体未被接受。"),
    ("REVOKED", "What was enrolled under this key was withdrawn.", "该登记已被撤回。"),
    ("AT_CAPACITY", "The service is at capacity; try again.", "服务繁忙，请稍后重试。"),
    ("TOO_LATE", "The answer would have come too late.", "已超过等待时间。"),
    (
        "UNAVAILABLE",
        "The service does not answer now; use another way in.",
        "服务暂不可用，请使用其他方式。",
    ),
];

/// The Chinese words of a refusal that has none of its own, by its reason or its code.
pub(super) fn zh(reason: Option<&str>, code: Code) -> Option<&'static str> {
    const BY_CODE: [(Code, &str); 3] = [
        (Code::ResourceExhausted, "AT_CAPACITY"),
        (Code::DeadlineExceeded, "TOO_LATE"),
        (Code::Unavailable, "UNAVAILABLE"),
    ];
    let of_code = || BY_CODE.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
    for_people(reason.or_else(of_code)?).map(|(_, zh)| zh)
}

/// What people read for a name on the wire, in English and Chinese.
pub(crate) fn for_people(name: &str) -> Option<(&'static str, &'static str)> {
    WORDS.iter().find(|(known, ..)| *known == name).map(|(_, en, zh)| (*en, *zh))
}

/// What is wrong with a frame that was to become a template, in Chinese.
pub(super) fn zh_of_frame((frame, quality): (usize, &Quality)) -> Option<String> {
    let reasons = quality.reasons.iter().map(|reason| {
        let name = to_wire::reason_of(*reason).as_str_name();
        for_people(name).map_or(name, |(_, zh)| zh.trim_end_matches('。'))
    });
    let reasons: Vec<&str> = reasons.collect();
    (!reasons.is_empty()).then(|| format!("第 {frame} 帧：{}", reasons.join("、")))
}

/// Why a frame cannot be decoded, in Chinese.
pub(super) fn zh_of_frame_fault(fault: &DecodeError) -> String {
    match fault {
        DecodeError::Empty => "图像为空".to_owned(),
        DecodeError::UnknownFormat => "图像既不是 JPEG 也不是 PNG".to_owned(),
        DecodeError::TooManyPixels { width, height, limit } => {
            format!("图像为 {width} x {height} 像素，超过上限 {limit}")
        }
        DecodeError::TooLong { width, height } => format!("图像 {width} x {height} 的边长超过上限"),
        DecodeError::Truncated => "图像不完整".to_owned(),
        DecodeError::Malformed { format, .. } => format!("{format} 已损坏"),
        DecodeError::TooShort { needed, actual } => {
            format!("原始图像有 {actual} 字节，按其尺寸需要 {needed} 字节")
        }
        DecodeError::Stride { stride, row } => {
            format!("行距 {stride} 字节小于每行的 {row} 字节")
        }
        DecodeError::OddSize { width, height } => {
            format!("图像为 {width} x {height} 像素：此格式的宽高须为偶数")
        }
        DecodeError::AlignedSize { needed, actual } => {
            format!("对齐的人脸应有 {needed} 字节（112 x 112 RGB），此处有 {actual}")
        }
    }
}

/// The whole table, for whoever shows something to a person.
pub(super) fn messages() -> proto::GetMessagesResponse {
    let text = |language: &str, text: &str| proto::MessageText {
        language: language.to_owned(),
        text: text.to_owned(),
    };
    let messages = WORDS.iter().map(|(name, en, zh)| proto::Message {
        name: (*name).to_owned(),
        texts: vec![text("en", en), text(LANGUAGE, zh)],
    });
    proto::GetMessagesResponse { messages: messages.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decision or a reason without words fails here, in either language.
    #[test]
    fn every_decision_and_every_reason_has_words_in_both_languages() {
        let decisions = (1..).map_while(|n| proto::Decision::try_from(n).ok());
        let decisions = decisions.map(|decision| decision.as_str_name());
        let reasons = (1..).map_while(|n| proto::QualityReason::try_from(n).ok());
        let reasons = reasons.map(|reason| reason.as_str_name());
        let mut seen = 0;
        for name in decisions.chain(reasons) {
            assert!(WORDS.iter().any(|(known, ..)| *known == name), "{name}");
            seen += 1;
        }
        assert!(seen > 15, "{seen}");
        for (name, en, zh) in WORDS {
            assert!(en.is_ascii() && en.ends_with('.'), "{name}: {en}");
            assert!(zh.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{name}: {zh}");
            assert!(zh.ends_with('。'), "{name}: {zh}");
        }
    }

    /// Every reason that `fault.rs` gives has words.
    #[test]
    fn every_reason_of_a_refusal_has_words() {
        let source = include_str!("fault.rs");
        let quoted = source.split('"').skip(1).step_by(2);
        let is_reason = |text: &&str| {
            text.len() > 4 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        };
        let mut seen = 0;
        for reason in quoted.filter(is_reason) {
            assert!(WORDS.iter().any(|(known, ..)| *known == reason), "{reason}");
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
    }

    /// What no person at a gate and no operator should have to know.
    #[test]
    fn no_word_is_internal() {
        for (name, en, _) in WORDS {
            for word in ["panic", "mutex", "null", "tensor", "slot", "None"] {
                assert!(!en.contains(word), "{name}: {en}");
            }
        }
    }
}
