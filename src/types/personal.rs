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
/// Full-width digits and separators inside numbers (`138-1234-5678`) are seen through. A number
/// inside a longer word of letters and digits is not one: opaque references often hold such runs.
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
    if plain.split(|c: char| c.is_whitespace() || ",;<>()[]\"'|".contains(c)).any(is_email) {
        return Some(PersonalIdentifier::Email);
    }
    let words = plain.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    words.map(str::to_owned).chain(joined_numbers(&plain)).find_map(|word| number(&word))
}

/// Maps full-width forms to ASCII.
fn narrow(c: char) -> char {
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    }
}

/// Neighbouring numbers joined: `138-1234-5678` is one number, `4f18-8352` is none.
fn joined_numbers(text: &str) -> Vec<String> {
    let mut runs = vec![String::new()];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        let digits = word.strip_suffix(['x', 'X']).unwrap_or(word);
        match runs.last_mut() {
            Some(run) if digits.bytes().all(|b| b.is_ascii_digit()) => run.push_str(word),
            _ => runs.push(String::new()),
        }
    }
    runs
}

fn number(word: &str) -> Option<PersonalIdentifier> {
    if !word.is_ascii() {
        return None;
    }
    if is_citizen_18(word) || is_citizen_15(word) {
        return Some(PersonalIdentifier::CitizenNumber);
    }
    let national = word.strip_prefix("0086").or_else(|| word.strip_prefix("86")).unwrap_or(word);
    (is_mobile(word) || is_mobile(national)).then_some(PersonalIdentifier::MobileNumber)
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

/// RFC 5322's everyday form: something@label.label, the last label at least two letters.
fn is_email(word: &str) -> bool {
    let Some((local, domain)) = word.rsplit_once('@') else { return false };
    let Some((_, last)) = domain.trim_end_matches('.').rsplit_once('.') else { return false };
    !local.is_empty() && last.chars().count() >= 2 && last.chars().all(char::is_alphabetic)
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
