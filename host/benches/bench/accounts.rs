//! Accounts as clients make them: register, take the code from the development outbox, verify.

use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use echo_client::{Method, Tokens};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::Server;

pub struct Account {
    pub user_id: Uuid,
    pub access_token: String,
    refresh_token: String,
    obtained: Instant,
}

/// The outbox shows the newest 200.
const BATCH: usize = 100;
const CONCURRENCY: usize = 8;
/// Half of what an access token lives.
const OLD: Duration = Duration::from_secs(450);

pub async fn create(server: &Server, count: usize) -> Result<Vec<Account>> {
    let begin = Instant::now();
    let mut accounts = Vec::with_capacity(count);
    while accounts.len() < count {
        let numbers = accounts.len()..count.min(accounts.len() + BATCH);
        let phones: Vec<String> = numbers.map(|number| format!("+1212{:07}", 2_000_000 + number)).collect();
        let registrations = phones.iter().map(|phone| register(server, phone));
        let registrations: Vec<String> = stream::iter(registrations).buffered(CONCURRENCY).try_collect().await?;
        let codes = codes(server, &phones).await?;
        let verifications =
            phones.iter().zip(&registrations).map(|(phone, registration)| verify(server, registration, phone, &codes[phone]));
        // In order, so that account 0 is number 0 in every run.
        accounts.extend(stream::iter(verifications).buffered(CONCURRENCY).try_collect::<Vec<_>>().await?);
        print!("\raccounts: {} of {count}", accounts.len());
        std::io::stdout().flush()?;
    }
    println!(" in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(accounts)
}

/// New tokens for those whose access token is half through its life.
pub async fn refresh_old(server: &Server, accounts: &mut [Account]) -> Result<()> {
    let old = accounts.iter_mut().filter(|account| account.obtained.elapsed() > OLD);
    let refreshed = old.map(|account| async move {
        let body = json!({"refresh_token": account.refresh_token});
        *account = tokens(server, "/api/v1/auth/refresh", &body).await?;
        anyhow::Ok(())
    });
    stream::iter(refreshed).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await.map(drop)
}

/// The registration's id.
async fn register(server: &Server, phone: &str) -> Result<String> {
    let registered = server.echo.register(phone, "tuba-Granite-41-window", Some(&format!("Bench {phone}"))).await?;
    Ok(registered.registration_id)
}

/// New tokens, of one of the requests that give some. Nobody is signed in by it: one client asks for all accounts.
async fn tokens(server: &Server, path: &str, body: &Value) -> Result<Account> {
    let tokens: Tokens = server.echo.request(Method::POST, path).anonymous().json(body).send().await?;
    let Tokens { user_id, access_token, refresh_token, .. } = tokens;
    Ok(Account { user_id, access_token, refresh_token, obtained: Instant::now() })
}

/// Codes arrive through the queue, so soon after the answer, not with it.
async fn codes(server: &Server, phones: &[String]) -> Result<HashMap<String, String>> {
    #[derive(Deserialize)]
    struct Outbox {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        to: Option<String>,
        code: Option<String>,
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut found = HashMap::new();
    loop {
        let outbox: Outbox = server.echo.get("/dev/outbox").send().await.context("/dev/outbox")?;
        for item in outbox.items {
            if let (Some(to), Some(code)) = (item.to, item.code)
                && phones.contains(&to)
            {
                // The newest stands first.
                found.entry(to).or_insert(code);
            }
        }
        if found.len() == phones.len() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{} of {} codes are in the development outbox after 60 s", found.len(), phones.len());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn verify(server: &Server, registration: &str, phone: &str, code: &str) -> Result<Account> {
    let body = json!({"registration_id": registration, "phone": phone, "otp": code, "device": {"id": "bench", "platform": "linux"}});
    tokens(server, "/api/v1/auth/verify-otp", &body).await
}
