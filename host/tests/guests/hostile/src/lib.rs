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
            "echo:hub/hub@0.1.0": echo_sdk::wit::hub,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
        },
    });
}

use bindings::exports::echo::hostile::api::{Amount, Answer, Big, FloodRequest, Guest};
use echo_sdk::sql::Database;
use echo_sdk::wit::hub::{Class, PushRequest, push};
use echo_sdk::wit::sql::Transaction;
use echo_sdk::{Error, Sql};

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
            push(&PushRequest {
                users: request.users.clone(),
                event: "flood".to_owned(),
                payload: format!("{{\"number\":{number}}}"),
                class: Class::Durable,
                receipt: None,
            })
            .map_err(|_| Error::unavailable("the host takes no more"))?;
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

    fn cycle() -> Result<Answer, Error> {
        bindings::echo::hostile::api::cycle().map(|inner| Answer { text: inner.text })
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Hostile with_types_in bindings);
