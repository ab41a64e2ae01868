//! Roles of an account, as the operator grants them in the setting `roles`. They go into every token that is made from then on.

use echo_sdk::log;

/// What a token can hold.
const ROLES_MAX: usize = 16;
const ROLE_BYTES_MAX: usize = 64;

/// `granted`: `NUMBER=ROLE` or `NUMBER=ROLE ROLE`, separated by commas. What is not understood grants nothing, and the log says so.
pub fn of_number(granted: &str, phone: &str) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for grant in granted.split(',').map(str::trim).filter(|grant| !grant.is_empty()) {
        match read(grant) {
            Some((number, named)) if number == phone => roles.extend(named.map(str::to_owned)),
            Some(_) => {}
            None => log::warn("the setting `roles` has a grant that is not understood: it is NUMBER=ROLE, such as +14155550101=admin", &[]),
        }
    }
    roles.sort_unstable();
    roles.dedup();
    roles.truncate(ROLES_MAX);
    roles
}

fn read(grant: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let (number, roles) = grant.split_once('=')?;
    let number = number.trim();
    let is_number = number.strip_prefix('+').is_some_and(|digits| digits.len() >= 7 && digits.bytes().all(|digit| digit.is_ascii_digit()));
    let are_roles = roles.split_whitespace().next().is_some() && roles.split_whitespace().all(is_role);
    (is_number && are_roles).then_some((number, roles.split_whitespace()))
}

fn is_role(text: &str) -> bool {
    text.len() <= ROLE_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_roles_that_are_granted_to_it_and_no_others() {
        let granted = "+14155550101=admin, +4930123456=support admin,+14155550101 = auditor";
        for (phone, expect) in [
            ("+14155550101", &["admin", "auditor"][..]),
            ("+4930123456", &["admin", "support"]),
            ("+1415555010", &[]),
            ("+141555501011", &[]),
            ("", &[]),
        ] {
            assert_eq!(of_number(granted, phone), expect, "{phone}");
        }
        assert_eq!(of_number("", "+14155550101"), [""; 0]);
    }

    #[test]
    fn what_is_not_understood_grants_nothing() {
        for grant in ["admin", "+14155550101", "+14155550101=", "14155550101=admin", "+14155550101=Admin", "=admin", "+1415x=admin"] {
            assert!(read(grant).is_none(), "{grant}");
        }
    }
}
