//! Which passwords are accepted (after NIST SP 800-63B §3.1.1.2: length, which the contract states, and a list of common ones, no rules of
//! composition), and the way to the
//! host's hashing.

use echo_sdk::Error;
use echo_sdk::wit::passwords::{self, Algorithm, PasswordError, Standing, Verdict};

/// Different characters that a password must have.
const DISTINCT_MIN: usize = 4;
/// The current password and those before it that may not be taken again.
pub const PASSWORDS_REMEMBERED: u64 = 5;

/// Those of at least eight characters that people choose most, one a line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// Errors: 422 `weak_password` for the field, which says why.
pub fn check(field: &str, password: &str, phone: &str) -> Result<(), Error> {
    match weakness(password, phone) {
        Some(reason) => Err(Error::invalid_field(field, "weak_password", reason)),
        None => Ok(()),
    }
}

/// Takes long: never in a transaction.
pub fn hash(password: &str, standing: Standing) -> Result<String, Error> {
    Ok(passwords::hash(password, Algorithm::Argon2id, standing)?)
}

/// Takes long, without a stored hash as well: never in a transaction. What is too long to be anybody's password matches nothing.
pub fn matches(password: &str, stored: Option<&str>, standing: Standing) -> Result<Verdict, Error> {
    match passwords::verify(password, stored, standing) {
        Err(PasswordError::TooLong) => Ok(Verdict { matches: false, needs_rehash: false }),
        other => Ok(other?),
    }
}

fn weakness(password: &str, phone: &str) -> Option<&'static str> {
    let characters: Vec<char> = password.chars().collect();
    if is_phone(password, phone) {
        return Some("not the phone number");
    }
    if COMMON.lines().any(|common| common == password.to_lowercase()) {
        return Some("one of the most common passwords");
    }
    let mut distinct = characters.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < DISTINCT_MIN {
        return Some("at least 4 different characters");
    }
    if is_run(&characters) {
        return Some("not a run of neighbouring characters");
    }
    None
}

/// The number itself, with or without separators, plus sign, calling code.
fn is_phone(password: &str, phone: &str) -> bool {
    let is_separator = |c: char| matches!(c, ' ' | '+' | '-' | '.' | '(' | ')' | '/');
    if !password.chars().all(|c| c.is_ascii_digit() || is_separator(c)) {
        return false;
    }
    let digits: String = password.chars().filter(char::is_ascii_digit).collect();
    // A national number is the end of the whole one; its trunk prefix is not in there.
    let national = digits.trim_start_matches('0');
    national.len() >= 6 && phone.ends_with(national)
}

/// `12345678`, `hgfedcba`: each character the one after or before its neighbour.
fn is_run(characters: &[char]) -> bool {
    let steps = |step: i64| characters.windows(2).all(|pair| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0])) == step);
    steps(1) || steps(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: &str = "+14155552671";

    #[test]
    fn weak_passwords_are_refused_with_their_reason() {
        for (password, reason) in [
            ("+14155552671", "phone"),
            ("1 (415) 555-2671", "phone"),
            ("04155552671", "phone"),
            ("Password", "common"),
            ("iloveyou1", "common"),
            ("aaaaaaaaaaaa", "different"),
            ("abcabcabc", "different"),
            ("23456789", "run"),
            ("hgfedcba", "run"),
        ] {
            let why = weakness(password, PHONE).unwrap_or_else(|| panic!("{password} is weak"));
            assert!(why.contains(reason), "{password}: {why}");
        }
    }

    #[test]
    fn good_passwords_pass() {
        for password in ["correct horse battery staple", "Tr0ub4dor&3", "Sup3rSecret!", "пароль-мой-друг", "49182734650"] {
            assert_eq!(weakness(password, PHONE), None, "{password}");
        }
        assert_eq!(weakness(&"aB3$".repeat(32), PHONE), None);
    }

    #[test]
    fn the_list_is_as_the_check_expects_it() {
        let mut seen = std::collections::HashSet::new();
        for line in COMMON.lines() {
            assert!(line.len() >= 8 && line == line.to_lowercase() && seen.insert(line), "{line:?}");
        }
        assert!(seen.len() >= 200, "{}", seen.len());
    }
}
