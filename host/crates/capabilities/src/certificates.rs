//! What an operator can do about a server's certificate that is not accepted.

use std::error::Error;

/// Why, and what to do, where an error comes from the server's certificate. None: it has another cause.
pub fn refusal(error: &dyn Error) -> Option<String> {
    let mut reasons = vec![error.to_string()];
    let mut source = error.source();
    while let Some(inner) = source {
        reasons.push(inner.to_string());
        source = inner.source();
    }
    of_text(&reasons.join(": "))
}

/// As `refusal`, of an error's text.
pub fn of_text(reason: &str) -> Option<String> {
    let lower = reason.to_ascii_lowercase();
    if !lower.contains("certificate") {
        return None;
    }
    let advice = if lower.contains("name") {
        "it is for another name: write the address with a name that is in the certificate"
    } else if lower.contains("expired") || lower.contains("not valid yet") {
        "its time is over or has not begun: renew it, and look at the clocks"
    } else {
        "nobody whom this machine trusts vouches for it: add its CA to those that the operating system trusts, or name a file with it in the variable SSL_CERT_FILE \
         (PostgreSQL: or in the address, ?sslmode=verify-full&sslrootcert=FILE)"
    };
    Some(format!("the server's certificate is not accepted: {advice} ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_accepted_is_told_from_other_errors_and_with_what_to_do() {
        for (reason, expect) in [
            ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
            ("invalid peer certificate: certificate not valid for name \"127.0.0.1\"", "another name"),
            ("invalid peer certificate: Expired", "renew it"),
        ] {
            let said = of_text(reason).unwrap();
            assert!(said.contains(expect) && said.contains(reason), "{said}");
        }
        assert_eq!(refusal(&std::io::Error::other("connection refused")), None);
    }
}
