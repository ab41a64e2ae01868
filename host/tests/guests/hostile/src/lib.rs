//! A service that misbehaves on demand, to show that it hurts nobody else.

#[allow(clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:guests/hostile",
        generate_all,
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:http/http@0.1.0": echo_sdk::wit::http,
            "echo:hub/hub@0.1.0": echo_sdk::wit::hub,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
        },
    });
}

use bindings::echo::hostile::pushes::{self, Wave};
use bindings::exports::echo::hostile::api::{Amount, Answer, Big, FetchRequest, FloodRequest, Guest, StatementRequest, Texts};
use bindings::exports::echo::hub::events;
use echo_sdk::sql::{Database, uuid};
use echo_sdk::wit::http;
use echo_sdk::wit::sql::{Transaction, Value, query};
use echo_sdk::{Error, Sql, params};

struct Hostile;

fn answer(text: &str) -> Result<Answer, Error> {
    Ok(Answer { text: text.to_owned() })
}

impl Guest for Hostile {
    fn fine() -> Result<Answer, Error> {
        answer("fine")
    }

    fn spin() -> Result<Answer, Error> {
        let mut count = 0u64;
        loop {
            count = std::hint::black_box(count.wrapping_add(1));
        }
    }

    fn bomb() -> Result<Answer, Error> {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        loop {
            blocks.push(vec![1; 1 << 20]);
            std::hint::black_box(&blocks);
        }
    }

    fn recurse() -> Result<Answer, Error> {
        fn deeper(depth: u64) -> u64 {
            let kept = std::hint::black_box([depth; 16]);
            if depth == u64::MAX { 0 } else { deeper(depth + 1) + kept[0] }
        }
        answer(&deeper(0).to_string())
    }

    fn trap() -> Result<Answer, Error> {
        panic!("on demand")
    }

    fn huge_reply(request: Amount) -> Result<Big, Error> {
        Ok(Big { items: vec!["x".repeat(1024); request.count as usize] })
    }

    fn flood(request: FloodRequest) -> Result<Answer, Error> {
        for number in 0..request.count {
            pushes::flood(&request.users, Wave { number }).map_err(|_| Error::unavailable("the host takes no more"))?;
        }
        answer("flooded")
    }

    fn leave_open() -> Result<Answer, Error> {
        let transaction = Transaction::begin()?;
        transaction.execute("INSERT INTO marks DEFAULT VALUES", &[])?;
        std::mem::forget(transaction);
        answer("left open")
    }

    fn marks() -> Result<Amount, Error> {
        let count: Option<(i64,)> = Database.row("SELECT count(*) FROM marks", Vec::new())?;
        Ok(Amount { count: count.map_or(0, |(count,)| count as u32) })
    }

    fn mark() -> Result<(), Error> {
        Database.execute("INSERT INTO marks DEFAULT VALUES", Vec::new())?;
        Ok(())
    }

    fn label() -> Result<Answer, Error> {
        answer(&echo_sdk::config::text("label").unwrap_or_default())
    }

    fn hold(request: Amount) -> Result<Answer, Error> {
        while Self::marks()?.count < request.count {}
        Self::label()
    }

    fn wait_for_mark() -> Result<Answer, Error> {
        Self::mark()?;
        Self::hold(Amount { count: 2 })
    }

    fn devices() -> Result<Texts, Error> {
        let rows: Vec<(String, bool)> = Database.rows("SELECT device_id, connected FROM devices ORDER BY device_id", Vec::new())?;
        Ok(Texts { items: rows.into_iter().map(|(device, connected)| if connected { device } else { format!("-{device}") }).collect() })
    }

    fn statement(request: StatementRequest) -> Result<Amount, Error> {
        let params: Vec<_> = request.texts.iter().map(|text| Value::Text(text.repeat(request.times as usize))).collect();
        let rows = query(&request.sql, &params)?;
        Ok(Amount { count: rows.rows.len() as u32 })
    }

    fn fetch(request: FetchRequest) -> Result<Texts, Error> {
        let transaction = if request.in_transaction { Some(Transaction::begin()?) } else { None };
        let to = |url: &String| http::Request {
            method: "GET".to_owned(),
            url: url.clone(),
            headers: Vec::new(),
            body: Vec::new(),
            credential: request.credential.clone(),
            timeout_ms: u32::MAX,
        };
        let answers = http::send(&request.urls.iter().map(to).collect::<Vec<_>>());
        drop(transaction);
        Ok(Texts { items: answers.iter().map(|answer| format!("{:?}", answer.as_ref().map(|response| response.status))).collect() })
    }

    fn cycle() -> Result<Answer, Error> {
        bindings::echo::hostile::api::cycle().map(|inner| Answer { text: inner.text })
    }
}

impl events::Guest for Hostile {
    fn connected(_key: String, event: events::Connection) -> Result<(), Error> {
        hear(&event, true)
    }

    fn disconnected(_key: String, event: events::Connection) -> Result<(), Error> {
        hear(&event, false)
    }

    /// Not subscribed to.
    fn acknowledged(_key: String, _event: events::Acknowledgements) -> Result<(), Error> {
        Ok(())
    }
}

/// The two topics may overtake each other: the newer socket counts, and of one socket that it is closed.
fn hear(event: &events::Connection, connected: bool) -> Result<(), Error> {
    Database.execute(
        "INSERT INTO devices (user_id, device_id, connection_id, connected) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, device_id) DO UPDATE SET connection_id = excluded.connection_id, connected = excluded.connected \
         WHERE excluded.connection_id > devices.connection_id \
         OR (excluded.connection_id = devices.connection_id AND excluded.connected = FALSE)",
        params![uuid(&event.user_id), &event.device_id, uuid(&event.connection_id), connected],
    )?;
    Ok(())
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Hostile with_types_in bindings);
