//! The suite that every password backend passes.

use super::{Algorithm, PasswordError, Passwords, Requester, Standing, Verification};
use echo_base::limits;

pub async fn suite(passwords: &dyn Passwords) {
    every_algorithm_tells_right_from_wrong(passwords).await;
    too_long_is_refused(passwords).await;
    nobody_matches_nothing(passwords).await;
    garbage_is_no_hash(passwords).await;
    fingerprints_are_stable(passwords);
}

pub fn requester() -> Requester {
    Requester { standing: Standing::Stranger, client: "192.0.2.7".to_owned() }
}

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Argon2id, Algorithm::Bcrypt, Algorithm::Scrypt];

async fn every_algorithm_tells_right_from_wrong(passwords: &dyn Passwords) {
    for algorithm in ALGORITHMS {
        for password in ["correct horse battery staple", "пароль 密码 🐎", "", " x "] {
            let hash = passwords.hash(password, algorithm, &requester()).await.unwrap();
            let verdict = passwords.verify(password, Some(&hash), &requester()).await.unwrap();
            assert_eq!(verdict, Verification { matches: true, needs_rehash: algorithm != Algorithm::Argon2id });
            for wrong in [format!("{password}!"), password.to_uppercase() + "\u{301}", "something else".to_owned()] {
                assert!(!passwords.verify(&wrong, Some(&hash), &requester()).await.unwrap().matches, "{wrong:?} for {password:?}");
            }
            assert_ne!(hash, passwords.hash(password, algorithm, &requester()).await.unwrap(), "each hash has a salt of its own");
        }
    }
}

async fn too_long_is_refused(passwords: &dyn Passwords) {
    for (algorithm, bytes_max) in [
        (Algorithm::Argon2id, limits::PASSWORD_BYTES_MAX),
        (Algorithm::Scrypt, limits::PASSWORD_BYTES_MAX),
        (Algorithm::Bcrypt, limits::BCRYPT_PASSWORD_BYTES_MAX),
    ] {
        let longest = "p".repeat(bytes_max);
        let hash = passwords.hash(&longest, algorithm, &requester()).await.unwrap();
        assert!(passwords.verify(&longest, Some(&hash), &requester()).await.unwrap().matches);
        assert_eq!(passwords.hash(&format!("{longest}p"), algorithm, &requester()).await, Err(PasswordError::TooLong));
    }
    let longer = "p".repeat(limits::PASSWORD_BYTES_MAX + 1);
    assert_eq!(passwords.verify(&longer, None, &requester()).await, Err(PasswordError::TooLong));
}

async fn nobody_matches_nothing(passwords: &dyn Passwords) {
    for password in ["", "correct horse"] {
        assert_eq!(passwords.verify(password, None, &requester()).await, Ok(Verification { matches: false, needs_rehash: false }));
    }
}

async fn garbage_is_no_hash(passwords: &dyn Passwords) {
    let good = passwords.hash("x", Algorithm::Argon2id, &requester()).await.unwrap();
    let without_output = good.rsplit_once('$').unwrap().0;
    let long = format!("$argon2id${}", "a".repeat(100_000));
    for garbage in ["", "x", "$", "$2b$", "$2b$10$short", "$md5$abc", "$argon2id$v=19$m=0,t=0,p=0$AAAA$AAAA", without_output, &long] {
        assert_eq!(passwords.verify("x", Some(garbage), &requester()).await, Err(PasswordError::MalformedHash), "{garbage:?}");
    }
}

fn fingerprints_are_stable(passwords: &dyn Passwords) {
    let one = passwords.fingerprint("123456");
    assert_eq!(one, passwords.fingerprint("123456"));
    assert_ne!(one, passwords.fingerprint("123457"));
    assert!(one.len() == 64 && one.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()), "{one}");
}
