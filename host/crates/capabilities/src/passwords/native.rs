//! Password hashing in this process: argon2id, bcrypt and scrypt on blocking threads, so many at once and so many waiting.
//! Knows no users and stores nothing.

use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Algorithm, PasswordError, Passwords, Requester, Verification};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params, Version};
use async_trait::async_trait;
use echo_base::limits;
use hmac::{Hmac, KeyInit, Mac};
use scrypt::Scrypt;
use sha2::Sha256;
use turns::Turns;

mod turns;

/// What one hash costs to make. `production` unless an operator asks for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub argon2_memory_kib: u32,
    pub argon2_passes: u32,
    pub argon2_lanes: u32,
    /// log2 of the rounds.
    pub bcrypt_cost: u32,
    /// log2 of N.
    pub scrypt_log_n: u8,
}

impl Cost {
    /// argon2id 64 MiB, 3 passes, 2 lanes (RFC 9106 asks for this much memory and passes); bcrypt cost 12; scrypt N = 2^17, r = 8, p = 1.
    pub const fn production() -> Self {
        Self { argon2_memory_kib: 64 * 1024, argon2_passes: 3, argon2_lanes: 2, bcrypt_cost: 12, scrypt_log_n: 17 }
    }

    /// For benches and tests that are about something else. Protects nobody.
    pub const fn light() -> Self {
        Self { argon2_memory_kib: 64, argon2_passes: 1, argon2_lanes: 1, bcrypt_cost: 4, scrypt_log_n: 8 }
    }
}

/// Cheap to share; one per host, because it is the bound on the hashes that run at once.
pub struct NativePasswords {
    hashing: Arc<Hashing>,
    fingerprints: Hmac<Sha256>,
    turns: Arc<Turns>,
}

impl NativePasswords {
    /// `key`: the host's secret for fingerprints; the same one after a restart.
    pub fn new(key: [u8; 32], cost: Cost) -> Self {
        Self {
            hashing: Arc::new(Hashing::new(cost)),
            fingerprints: Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"),
            turns: Turns::new(limits::PASSWORD_WORKERS),
        }
    }

    async fn run<R: Send + 'static>(
        &self,
        requester: &Requester,
        work: impl FnOnce(&Hashing) -> R + Send + 'static,
    ) -> Result<R, PasswordError> {
        let turn = self.turns.take(requester).await?;
        let hashing = self.hashing.clone();
        let task = tokio::task::spawn_blocking(move || {
            // Held until the work ends, even if nobody waits for it any more.
            let _turn = turn;
            work(&hashing)
        });
        task.await.map_err(|error| {
            tracing::error!(%error, "a password worker failed");
            PasswordError::Busy
        })
    }
}

#[async_trait]
impl Passwords for NativePasswords {
    async fn hash(&self, password: &str, algorithm: Algorithm, requester: &Requester) -> Result<String, PasswordError> {
        let bytes_max = match algorithm {
            Algorithm::Argon2id | Algorithm::Scrypt => limits::PASSWORD_BYTES_MAX,
            Algorithm::Bcrypt => limits::BCRYPT_PASSWORD_BYTES_MAX,
        };
        if password.len() > bytes_max {
            return Err(PasswordError::TooLong);
        }
        let password = password.to_owned();
        self.run(requester, move |hashing| hashing.hash(&password, algorithm)).await?
    }

    async fn verify(&self, password: &str, stored: Option<&str>, requester: &Requester) -> Result<Verification, PasswordError> {
        if password.len() > limits::PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let stored = stored.map(Stored::parse).transpose()?;
        let password = password.to_owned();
        self.run(requester, move |hashing| hashing.verify(&password, stored.as_ref())).await
    }

    fn fingerprint(&self, secret: &str) -> String {
        let mut mac = self.fingerprints.clone();
        mac.update(secret.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A stored hash whose parameters are within what verifying may cost.
enum Stored {
    Argon2(PasswordHash),
    Scrypt(PasswordHash),
    Bcrypt(String),
}

impl Stored {
    fn parse(text: &str) -> Result<Self, PasswordError> {
        let stored = Self::read(text).ok_or(PasswordError::MalformedHash)?;
        if stored.affordable() { Ok(stored) } else { Err(PasswordError::MalformedHash) }
    }

    fn read(text: &str) -> Option<Self> {
        if text.len() > limits::PASSWORD_HASH_BYTES_MAX {
            return None;
        }
        if text.starts_with("$2") {
            text.parse::<bcrypt::HashParts>().ok()?;
            return Some(Self::Bcrypt(text.to_owned()));
        }
        let hash = PasswordHash::new(text).ok()?;
        // A hash without a salt or an output would match nothing, in no time.
        hash.salt.as_ref().and(hash.hash.as_ref())?;
        match hash.algorithm.as_str() {
            "argon2id" | "argon2i" | "argon2d" => Some(Self::Argon2(hash)),
            "scrypt" => Some(Self::Scrypt(hash)),
            _ => None,
        }
    }

    fn affordable(&self) -> bool {
        match self {
            Self::Argon2(hash) => Params::try_from(hash).is_ok_and(|params| {
                params.m_cost() <= limits::PASSWORD_MEMORY_KIB_MAX
                    && params.t_cost() <= limits::PASSWORD_PASSES_MAX
                    && params.p_cost() <= limits::PASSWORD_LANES_MAX
            }),
            Self::Scrypt(hash) => scrypt::Params::try_from(hash).is_ok_and(|params| {
                // RFC 7914: 128 · r · N bytes, once for each p.
                let blocks = u64::from(params.r()) * u64::from(params.p());
                params.log_n() < 32 && (blocks << params.log_n()) / 8 <= u64::from(limits::PASSWORD_MEMORY_KIB_MAX)
            }),
            Self::Bcrypt(text) => text.parse::<bcrypt::HashParts>().is_ok_and(|parts| parts.get_cost() <= limits::BCRYPT_COST_MAX),
        }
    }
}

/// The work itself, on a blocking thread.
struct Hashing {
    cost: Cost,
    argon2: Argon2<'static>,
    scrypt: Scrypt,
    /// A hash of nothing: what is verified for an account that does not exist.
    decoy: Stored,
    #[cfg(test)]
    argon2_runs: AtomicUsize,
}

impl Hashing {
    fn new(cost: Cost) -> Self {
        let params = Params::new(cost.argon2_memory_kib, cost.argon2_passes, cost.argon2_lanes, Some(OUTPUT_BYTES));
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params.expect("the costs are in argon2's range"));
        let scrypt = scrypt::Params::new(cost.scrypt_log_n, 8, 1).expect("the costs are in scrypt's range");
        Self {
            cost,
            decoy: decoy(&argon2),
            argon2,
            scrypt: Scrypt::from(scrypt),
            #[cfg(test)]
            argon2_runs: AtomicUsize::new(0),
        }
    }

    fn hash(&self, password: &str, algorithm: Algorithm) -> Result<String, PasswordError> {
        let salt: [u8; 16] = rand::random();
        let hashed = match algorithm {
            Algorithm::Argon2id => self.argon2.hash_password_with_salt(password.as_bytes(), &salt).map(|hash| hash.to_string()).ok(),
            Algorithm::Scrypt => self.scrypt.hash_password_with_salt(password.as_bytes(), &salt).map(|hash| hash.to_string()).ok(),
            Algorithm::Bcrypt => bcrypt::hash_with_salt(password, self.cost.bcrypt_cost, salt).map(|hash| hash.to_string()).ok(),
        };
        // Lengths and parameters were checked before; what is left is a defect, and the caller can only try again.
        hashed.ok_or(PasswordError::Busy)
    }

    fn verify(&self, password: &str, stored: Option<&Stored>) -> Verification {
        let equal = self.equal(password, stored.unwrap_or(&self.decoy));
        let matches = equal && stored.is_some();
        Verification { matches, needs_rehash: stored.is_some_and(|stored| self.weaker(stored)) }
    }

    fn equal(&self, password: &str, stored: &Stored) -> bool {
        match stored {
            Stored::Argon2(hash) => {
                #[cfg(test)]
                self.argon2_runs.fetch_add(1, Ordering::Relaxed);
                self.argon2.verify_password(password.as_bytes(), hash).is_ok()
            }
            Stored::Scrypt(hash) => self.scrypt.verify_password(password.as_bytes(), hash).is_ok(),
            // bcrypt looks at 72 bytes alone: what begins the same would match.
            Stored::Bcrypt(text) => {
                let equal = bcrypt::verify(password, text).unwrap_or(false);
                equal && password.len() <= limits::BCRYPT_PASSWORD_BYTES_MAX
            }
        }
    }

    /// Weaker than what `hash` makes of argon2id now.
    fn weaker(&self, stored: &Stored) -> bool {
        let Stored::Argon2(hash) = stored else { return true };
        hash.algorithm.as_str() != "argon2id"
            || hash.version != Some(Version::V0x13.into())
            || hash.hash.as_ref().is_none_or(|output| output.as_bytes().len() < OUTPUT_BYTES)
            || Params::try_from(hash)
                .map_or(true, |params| params.m_cost() < self.cost.argon2_memory_kib || params.t_cost() < self.cost.argon2_passes)
    }
}

const OUTPUT_BYTES: usize = 32;

/// The form of a hash, with random bytes where the password's would be: verifying against it is the whole work, and never a match.
fn decoy(argon2: &Argon2<'_>) -> Stored {
    use argon2::password_hash::phc::{Output, ParamsString, Salt};
    let (salt, output): ([u8; 16], [u8; OUTPUT_BYTES]) = (rand::random(), rand::random());
    Stored::Argon2(PasswordHash {
        algorithm: argon2::Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).expect("argon2's own parameters"),
        salt: Some(Salt::new(&salt).expect("16 bytes are a salt")),
        hash: Some(Output::new(&output).expect("32 bytes are an output")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwords::suite;

    const KEY: [u8; 32] = [7; 32];

    fn light() -> NativePasswords {
        NativePasswords::new(KEY, Cost::light())
    }

    #[tokio::test]
    async fn it_passes_the_suite() {
        suite::suite(&light()).await;
    }

    #[tokio::test]
    async fn production_hashes_say_their_parameters_and_are_good_enough() {
        let passwords = NativePasswords::new(KEY, Cost::production());
        for (algorithm, prefix, needs_rehash) in [
            (Algorithm::Argon2id, "$argon2id$v=19$m=65536,t=3,p=2$", false),
            (Algorithm::Bcrypt, "$2b$12$", true),
            (Algorithm::Scrypt, "$scrypt$ln=17,r=8,p=1$", true),
        ] {
            let hash = passwords.hash("correct horse", algorithm, &suite::requester()).await.unwrap();
            assert!(hash.starts_with(prefix), "{hash}");
            assert_eq!(
                passwords.verify("correct horse", Some(&hash), &suite::requester()).await,
                Ok(Verification { matches: true, needs_rehash })
            );
        }
    }

    #[tokio::test]
    async fn a_weaker_hash_is_to_be_made_anew() {
        let weak = light().hash("correct horse", Algorithm::Argon2id, &suite::requester()).await.unwrap();
        let stronger = NativePasswords::new(KEY, Cost { argon2_passes: 2, ..Cost::light() });
        assert_eq!(
            stronger.verify("correct horse", Some(&weak), &suite::requester()).await,
            Ok(Verification { matches: true, needs_rehash: true })
        );
        let strong = stronger.hash("correct horse", Algorithm::Argon2id, &suite::requester()).await.unwrap();
        assert_eq!(
            light().verify("correct horse", Some(&strong), &suite::requester()).await,
            Ok(Verification { matches: true, needs_rehash: false })
        );
        let old = weak.replace("argon2id", "argon2i");
        assert_eq!(
            light().verify("correct horse", Some(&old), &suite::requester()).await,
            Ok(Verification { matches: false, needs_rehash: true })
        );
    }

    #[tokio::test]
    async fn an_unknown_account_costs_one_argon2id_with_the_same_parameters() {
        let passwords = light();
        let known = passwords.hash("correct horse", Algorithm::Argon2id, &suite::requester()).await.unwrap();
        let runs = || passwords.hashing.argon2_runs.load(Ordering::Relaxed);
        passwords.verify("wrong", Some(&known), &suite::requester()).await.unwrap();
        assert_eq!(runs(), 1);
        passwords.verify("wrong", None, &suite::requester()).await.unwrap();
        assert_eq!(runs(), 2);
        let Stored::Argon2(decoy) = &passwords.hashing.decoy else { panic!("the decoy is argon2id") };
        let known = PasswordHash::new(&known).unwrap();
        assert_eq!((decoy.algorithm, decoy.version, &decoy.params), (known.algorithm, known.version, &known.params));
        assert_eq!(decoy.salt.as_ref().map(|salt| salt.len()), known.salt.as_ref().map(|salt| salt.len()));
    }

    #[tokio::test]
    async fn a_hash_that_would_cost_too_much_is_refused_before_the_work() {
        let passwords = light();
        let hash = passwords.hash("correct horse", Algorithm::Argon2id, &suite::requester()).await.unwrap();
        for greedy in [
            hash.replace("m=64", "m=4194304"),
            hash.replace("t=1", "t=4000000000"),
            hash.replace("p=1", "p=200"),
            passwords.hash("x", Algorithm::Bcrypt, &suite::requester()).await.unwrap().replace("$04$", "$31$"),
            passwords.hash("x", Algorithm::Scrypt, &suite::requester()).await.unwrap().replace("ln=8", "ln=30"),
            passwords.hash("x", Algorithm::Scrypt, &suite::requester()).await.unwrap().replace("p=1", "p=100000"),
        ] {
            assert_eq!(
                passwords.verify("correct horse", Some(&greedy), &suite::requester()).await,
                Err(PasswordError::MalformedHash),
                "{greedy}"
            );
        }
        assert_eq!(passwords.hashing.argon2_runs.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn bcrypt_does_not_take_a_longer_password_that_begins_the_same() {
        let passwords = light();
        let password = "x".repeat(limits::BCRYPT_PASSWORD_BYTES_MAX);
        let hash = passwords.hash(&password, Algorithm::Bcrypt, &suite::requester()).await.unwrap();
        assert!(passwords.verify(&password, Some(&hash), &suite::requester()).await.unwrap().matches);
        assert!(!passwords.verify(&format!("{password}y"), Some(&hash), &suite::requester()).await.unwrap().matches);
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let passwords = Arc::new(light());
        let mut taken = Vec::new();
        for _ in 0..limits::PASSWORD_WORKERS {
            taken.push(passwords.turns.take(&suite::requester()).await.unwrap());
        }
        let waiting: Vec<_> = (0..limits::PASSWORD_STRANGERS_WAITING_MAX)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify("x", None, &suite::requester()).await })
            })
            .collect();
        while passwords.turns.waiting() < limits::PASSWORD_STRANGERS_WAITING_MAX {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.verify("x", None, &suite::requester()).await, Err(PasswordError::Busy));
        drop(taken);
        for task in waiting {
            assert!(!task.await.unwrap().unwrap().matches);
        }
        assert_eq!(passwords.turns.waiting(), 0);
        assert!(passwords.verify("x", None, &suite::requester()).await.is_ok());
    }

    #[test]
    fn a_fingerprint_is_hmac_sha_256() {
        // RFC 4231, test case 2, with its key filled up with zeros, which HMAC does itself.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let passwords = NativePasswords::new(key, Cost::light());
        let expect = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(passwords.fingerprint("what do ya want for nothing?"), expect);
    }
}
