//! Recognises personal identifiers, so that none is ever stored (REQUIREMENTS D1, PIPL 6: data
//! minimisation).

use thiserror::Error;

/// A kind of personal identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PersonalIdentifier {
    /// A citizen identification number: 18 digits with checksum (GB 11643-1999) or the older 15.
    #[error("a citizen identification number")]
    CitizenNumber,
    /// A mobile telephone number of mainland China.
    #[error("a mobile telephone number")]
    MobileNumber,
    /// An e-mail address.
    #[error("an e-mail address")]
    Email,
}

/// The first personal identifier in `text`, if any.
///
/// Digits of other scripts are read as digits, writing without spaces and separators inside
/// numbers (`138-1234-5678`) are seen through. A mobile number inside a word that could be
/// hexadecimal is not one: opaque references often hold such runs. A citizen number is found
/// inside any word, because its check character tells.
///
/// ```
/// use assent::types::{PersonalIdentifier, personal_identifier};
/// assert_eq!(
///     personal_identifier("11010519491231002X"),
///     Some(PersonalIdentifier::CitizenNumber)
/// );
/// assert_eq!(personal_identifier("67e55044-10b1-426f-9247-bb680e5fe0c8"), None);
/// ```
#[must_use]
pub fn personal_identifier(text: &str) -> Option<PersonalIdentifier> {
    let plain: String = text.chars().map(narrow).collect();
    if holds_email(&plain) {
        return Some(PersonalIdentifier::Email);
    }
    let words = || plain.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    if words().any(holds_citizen_number) {
        return Some(PersonalIdentifier::CitizenNumber);
    }
    if words().any(holds_mobile_number) {
        return Some(PersonalIdentifier::MobileNumber);
    }
    let words: Vec<&str> = words().collect();
    let numbers = words.split(|word| !is_number(word));
    numbers.flat_map(joined).find_map(|number| whole_number(&number))
}

/// The zeros of other scripts whose digits people type: Arabic-Indic, Persian, Devanagari,
/// full-width.
const ZEROS: [u32; 4] = [0x0660, 0x06F0, 0x0966, 0xFF10];
/// The mathematical digits: five alphabets of ten.
const MATHEMATICAL: std::ops::RangeInclusive<u32> = 0x1D7CE..=0x1D7FF;

/// Maps digits of other scripts and full-width forms to ASCII.
fn narrow(c: char) -> char {
    let code = u32::from(c);
    let digit = if MATHEMATICAL.contains(&code) {
        Some((code - MATHEMATICAL.start()) % 10)
    } else {
        ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)).map(|zero| code - zero)
    };
    if let Some(digit) = digit.and_then(|d| char::from_digit(d, 10)) {
        return digit;
    }
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(code - 0xFEE0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    }
}

/// Digits, and perhaps the X that ends a citizen number.
fn is_number(word: &str) -> bool {
    let digits = word.strip_suffix(['x', 'X']).unwrap_or(word);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Every run of neighbouring numbers as one: the first of `3 138 1234 5678` does not hide the rest.
fn joined(numbers: &[&str]) -> Vec<String> {
    let windows =
        |from: usize| (from + 1..=numbers.len()).map(move |to| numbers[from..to].concat());
    (0..numbers.len()).flat_map(windows).filter(|number| number.len() <= LONGEST).collect()
}

/// The longest number that is looked at: 18 characters.
const LONGEST: usize = 18;

fn whole_number(number: &str) -> Option<PersonalIdentifier> {
    if is_citizen_18(number) || is_citizen_15(number) {
        return Some(PersonalIdentifier::CitizenNumber);
    }
    let national = number.strip_prefix("0086").or_else(|| number.strip_prefix("86"));
    (is_mobile(number) || national.is_some_and(is_mobile))
        .then_some(PersonalIdentifier::MobileNumber)
}

/// 18 characters with a right check character anywhere in the word, or the older form alone.
fn holds_citizen_number(word: &str) -> bool {
    let anywhere = |from: usize| word.get(from..from + LONGEST).is_some_and(is_citizen_18);
    is_citizen_15(word) || (0..word.len()).any(anywhere)
}

/// Eleven digits between letters that no hexadecimal number has.
fn holds_mobile_number(word: &str) -> bool {
    let foreign = word.bytes().any(|b| b.is_ascii_alphabetic() && !b.is_ascii_hexdigit());
    foreign
        && word
            .split(|c: char| !c.is_ascii_digit())
            .any(|digits| whole_number(digits) == Some(PersonalIdentifier::MobileNumber))
}

fn is_mobile(digits: &str) -> bool {
    let b = digits.as_bytes();
    b.len() == 11
        && b.iter().all(u8::is_ascii_digit)
        && b[0] == b'1'
        && (b'3'..=b'9').contains(&b[1])
}

/// GB 11643-1999: 17 digits, the date of birth at 6..14, check character by ISO 7064 MOD 11-2.
fn is_citizen_18(word: &str) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    const CHECK: &[u8; 11] = b"10X98765432";
    let b = word.as_bytes();
    if b.len() != 18 || !b[..17].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = b[..17].iter().zip(WEIGHTS).map(|(d, w)| u32::from(d - b'0') * w).sum();
    CHECK[(sum % 11) as usize] == b[17].to_ascii_uppercase()
        && (1800..2200).contains(&digits(&b[6..10]))
        && is_month_day(&b[10..14])
}

/// The form before 1999: 15 digits, the date of birth at 6..12 with a two-digit year.
fn is_citizen_15(word: &str) -> bool {
    let b = word.as_bytes();
    b.len() == 15
        && b.iter().all(u8::is_ascii_digit)
        && (11..=91).contains(&digits(&b[..2]))
        && is_month_day(&b[8..12])
}

fn is_month_day(mmdd: &[u8]) -> bool {
    (1..=12).contains(&digits(&mmdd[..2])) && (1..=31).contains(&digits(&mmdd[2..]))
}

fn digits(b: &[u8]) -> u32 {
    b.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'))
}

/// RFC 5322's everyday form, whatever stands around it: a character of a name, @, then labels with
/// a dot between them, the one after the dot beginning with two letters.
fn holds_email(text: &str) -> bool {
    text.match_indices('@').any(|(at, _)| {
        let named = text[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || "._%+-".contains(c));
        let after = &text[at + 1..];
        let end = after.find(|c: char| !(c.is_alphanumeric() || ".-".contains(c)));
        let mut labels = after[..end.unwrap_or(after.len())].split('.');
        let first = labels.next().is_some_and(|label| !label.is_empty());
        named
            && first
            && labels.any(|label| label.chars().take_while(|c| c.is_alphabetic()).count() >= 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A valid number: random region, date and serial, correct check character.
    fn citizen_number(seed: u64) -> String {
        const WEIGHTS: [u64; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
        let h = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        let head = format!(
            "{:02}{:04}{:04}{:02}{:02}{:03}",
            11 + h % 55,
            (h >> 8) % 10_000,
            1930 + (h >> 24) % 90,
            1 + (h >> 32) % 12,
            1 + (h >> 40) % 28,
            (h >> 48) % 1000
        );
        let sum: u64 = head.bytes().zip(WEIGHTS).map(|(d, w)| u64::from(d - b'0') * w).sum();
        format!(
            "{head}{}",
            ["1", "0", "X", "9", "8", "7", "6", "5", "4", "3", "2"][(sum % 11) as usize]
        )
    }

    #[test]
    fn d1_refuses_100_000_valid_citizen_numbers() {
        for seed in 0..100_000 {
            let id = citizen_number(seed);
            assert_eq!(personal_identifier(&id), Some(PersonalIdentifier::CitizenNumber), "{id}");
        }
    }

    #[test]
    fn d1_accepts_100_000_uuids() {
        for _ in 0..100_000 {
            let id = uuid::Uuid::new_v4().to_string();
            assert_eq!(personal_identifier(&id), None, "{id}");
        }
    }

    /// How often opaque references of the kinds that people use are taken for something personal.
    #[test]
    fn d1_realistic_opaque_references_are_rarely_taken_for_persons() {
        const REFERENCES: u64 = 20_000;
        type Kind = fn(u64) -> String;
        let kinds: [(&str, Kind, u64); 9] = [
            ("resident-000123", |h| format!("resident-{:06}", h % 1_000_000), 0),
            ("B3-1204-2", |h| format!("B{}-{:04}-{}", h % 20, (h >> 8) % 3_300, (h >> 24) % 9), 0),
            ("E0042137", |h| format!("E{:07}", h % 10_000_000), 0),
            (
                "2026-11-29-0042",
                |h| format!("2026-11-{:02}-{:04}", 1 + h % 30, (h >> 8) % 10_000),
                0,
            ),
            ("16 hexadecimal", |h| format!("{h:016x}"), 0),
            ("32 hexadecimal", |h| format!("{h:016x}{:016x}", h.rotate_left(17)), 0),
            ("card number, 10 digits", |h| format!("{:010}", h % 10_000_000_000), 0),
            ("card number, 16 digits", |h| format!("{:016}", h % 10_000_000_000_000_000), 0),
            // A number of 18 digits has a right check character one time in eleven; that it is a
            // date too makes it rare.
            ("18 random digits", |h| format!("{:018}", h % 1_000_000_000_000_000_000), 400),
        ];
        for (name, kind, most) in kinds {
            let hash = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) ^ (n << 40);
            let taken = (0..REFERENCES)
                .filter(|n| personal_identifier(&kind(hash(*n))).is_some())
                .count() as u64;
            eprintln!("{name}: {taken} of {REFERENCES} taken for a personal identifier");
            assert!(taken <= most, "{name}: {taken}");
        }
    }

    #[test]
    fn sees_through_disguises() {
        use PersonalIdentifier::{CitizenNumber, Email, MobileNumber};
        for (text, kind) in [
            ("138 1234 5678", MobileNumber),
            ("+86-138-1234-5678", MobileNumber),
            ("tel:13812345678", MobileNumber),
            ("１３８１２３４５６７８", MobileNumber),
            ("id 11010519491231002x", CitizenNumber),
            ("110105 19491231 002X", CitizenNumber),
            ("110105491231002", CitizenNumber),
            ("a.b+c@mail.example.org", Email),
            ("mailto <a@b.cn>", Email),
            ("mailto:foo@bar.com?x", Email),
            ("a@b.com:17", Email),
            ("foo@bar.com/x", Email),
            ("foo@bar.com_1", Email),
            ("手机13812345678", MobileNumber),
            ("13812345678号", MobileNumber),
            ("u13812345678", MobileNumber),
            ("13812345678x", MobileNumber),
            ("tel8613812345678", MobileNumber),
            ("3 138 1234 5678", MobileNumber),
            ("+86 (0)138 1234 5678", MobileNumber),
            ("١٣٨١٢٣٤٥٦٧٨", MobileNumber),
            ("𝟏𝟑𝟖𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖", MobileNumber),
            ("身份证11010519491231002X", CitizenNumber),
            ("11010519491231002X先生", CitizenNumber),
            ("id11010519491231002X", CitizenNumber),
        ] {
            assert_eq!(personal_identifier(text), Some(kind), "{text}");
        }
    }

    #[test]
    fn lets_opaque_references_through() {
        for text in ["resident-0017", "B3-1204-2", "u@7", "2025-06-01", "11010519491231002", "x1y2"]
        {
            assert_eq!(personal_identifier(text), None, "{text}");
        }
    }
}
