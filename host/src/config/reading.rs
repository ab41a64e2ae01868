//! From the file and the variables to settings.

use std::collections::BTreeMap;
use std::ffi::OsString;

use toml::{Table, Value};

use echo_base::names::ServiceName;
use echo_runtime::route_settings::{IdentityKey, RouteSettings};

use super::address::password_of;
use super::{Config, GatewayConfig, Mode, routes};

/// The settings while they are put together. A value that is wrong is noted and left out, so that all mistakes come to light at once.
pub struct Reading {
    known: Table,
    table: Table,
    environment: BTreeMap<String, String>,
    routes: RouteSettings,
    problems: Vec<String>,
}

const SERVICES: &str = "services";
const GATEWAY: &str = "gateway";
const SECRETS: [(&str, &str); 12] = [
    ("server", "admin_token"),
    ("server", "cursor_key"),
    ("server", "metrics_token"),
    ("passwords", "fingerprint_key"),
    ("tokens", "master_key"),
    ("http", "vapid_key"),
    ("http", "fcm_service_account"),
    ("http", "apns_key"),
    ("sql", "url"),
    ("sql", "password"),
    ("blob", "access_key_id"),
    ("blob", "secret_access_key"),
];

/// Says where a secret stands.
fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// Addresses, which may have a password in them: then they are secrets.
const ADDRESSES: [(&str, &str); 2] = [("cache", "url"), ("events", "url")];

impl Reading {
    pub fn new(mode: Mode, environment: BTreeMap<String, String>) -> Self {
        let known = Table::try_from(Config::defaults(mode)).expect("settings are a table");
        Self { table: known.clone(), known, environment, routes: RouteSettings::default(), problems: Vec::new() }
    }

    pub fn file(&mut self, name: &str, text: &str) {
        let sections: Table = match text.parse() {
            Ok(sections) => sections,
            Err(error) => return self.problems.push(format!("{name}: {error}")),
        };
        let (mut routes, problems) = routes::read(name, text);
        self.problems.extend(problems);
        self.identity_keys(&mut routes);
        self.routes = routes;
        for (section, content) in sections {
            if !self.known.contains_key(&section) {
                self.unknown(name, &section);
                continue;
            }
            let Value::Table(entries) = content else {
                self.problems.push(format!("{name}: {section} is a section: write [{section}]"));
                continue;
            };
            for (key, value) in entries {
                match value {
                    Value::Table(settings) if section == SERVICES => {
                        settings.into_iter().for_each(|(setting, value)| self.set_service(name, &key, setting, &value));
                    }
                    _ if section == SERVICES => self.problems.push(format!("{name}: write [services.{key}] and the settings below it")),
                    // Read above.
                    _ if section == GATEWAY && routes::KEYS.contains(&key.as_str()) => {}
                    value => self.set(name, &section, &key, value),
                }
            }
        }
    }

    /// Puts the keys, and the headers that are secrets, in the place of where they stand.
    fn identity_keys(&mut self, routes: &mut RouteSettings) {
        for prefix in &mut routes.prefixes {
            for (name, value) in prefix.request_headers.set.iter_mut().filter(|(_, value)| is_reference(value)) {
                match self.secret(value) {
                    Ok(secret) => *value = secret,
                    Err(reason) => {
                        let at = format!("{}: gateway.prefixes {:?}", prefix.origin, prefix.prefix);
                        self.problems.push(format!("{at}: request_headers: set {name}: {reason}"));
                    }
                }
            }
            let Some(key) = &mut prefix.identity_key else { continue };
            match self.secret(key.text()) {
                Ok(secret) => *key = IdentityKey::new(secret),
                Err(reason) => {
                    self.problems.push(format!("{}: gateway.prefixes {:?}: identity_key: {reason}", prefix.origin, prefix.prefix))
                }
            }
        }
    }

    /// `ECHO_SECTION__KEY`, and `ECHO_SERVICES__NAME__KEY`. Variables without the double underscore are others' business.
    pub fn variables(&mut self) {
        for (variable, text) in self.environment.clone() {
            let path = variable.strip_prefix("ECHO_").unwrap_or(&variable).to_lowercase();
            match path.split("__").collect::<Vec<_>>()[..] {
                [SERVICES, service, key] => self.set_service(&variable, service, key.to_owned(), &Value::String(text)),
                [section, key] => match self.known.get(section).and_then(|section| section.get(key)) {
                    None => self.unknown(&variable, &format!("{section}.{key}")),
                    Some(default) => match from_text(default, &text) {
                        Some(value) => self.set(&variable, section, key, value),
                        None => self.problems.push(format!("{variable}: {text:?} is no {}", default.type_str())),
                    },
                },
                _ => self.unknown(&variable, &path.replace("__", ".")),
            }
        }
    }

    fn set(&mut self, origin: &str, section: &str, key: &str, value: Value) {
        if self.known[section].get(key).is_none() {
            return self.unknown(origin, &format!("{section}.{key}"));
        }
        let value = match (&value, SECRETS.contains(&(section, key))) {
            // An address without a password is none.
            (Value::String(text), true)
                if (section, key) == ("sql", "url") && text.starts_with("postgres") && password_of(text).is_none() =>
            {
                value
            }
            (Value::String(text), _) if ADDRESSES.contains(&(section, key)) && !text.is_empty() => match self.address(text) {
                Ok(address) => Value::String(address),
                Err(reason) => return self.problems.push(format!("{origin}: {section}.{key}: {reason}")),
            },
            (Value::String(text), true) if !text.is_empty() => match self.secret(text) {
                Ok(secret) => Value::String(secret),
                Err(reason) => return self.problems.push(format!("{origin}: {section}.{key}: {reason}")),
            },
            _ => value,
        };
        // Alone among defaults, so that whatever is wrong is this value's.
        let mut probe = self.known.clone();
        let entries = probe[section].as_table_mut().expect("every section is a table");
        entries.insert(key.to_owned(), value.clone());
        match probe.try_into::<Config>() {
            Ok(_) => {
                let entries = self.table[section].as_table_mut().expect("every section is a table");
                entries.insert(key.to_owned(), value);
            }
            Err(error) => self.problems.push(format!("{origin}: {section}.{key}: {}", error.message())),
        }
    }

    fn set_service(&mut self, origin: &str, service: &str, key: String, value: &Value) {
        if let Err(error) = ServiceName::parse(service) {
            return self.problems.push(format!("{origin}: {error}"));
        }
        let mut text = as_text(value);
        if is_reference(&text) {
            text = match self.secret(&text) {
                Ok(secret) => secret,
                Err(reason) => return self.problems.push(format!("{origin}: services.{service}.{key}: {reason}")),
            };
        }
        let services = self.table[SERVICES].as_table_mut().expect("every section is a table");
        let settings = services.entry(service).or_insert_with(|| Value::Table(Table::new()));
        settings.as_table_mut().expect("only tables are put here").insert(key, Value::String(text));
    }

    fn secret(&self, reference: &str) -> Result<String, String> {
        let text = if let Some(name) = reference.strip_prefix("env:") {
            // Looked up here and not among the overrides: any variable may hold a secret.
            std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?
        } else if let Some(path) = reference.strip_prefix("file:") {
            std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?
        } else {
            return Err("a secret does not stand in the settings; write \"env:NAME\" or \"file:PATH\"".to_owned());
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err(format!("{reference} is empty")) } else { Ok(text.to_owned()) }
    }

    fn address(&self, text: &str) -> Result<String, String> {
        if is_reference(text) {
            return self.secret(text);
        }
        // A user without a password is none: `redis://user@host`.
        let has_password = text.split(',').any(|address| {
            let authority = address.split_once("://").map_or(address, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
            authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
        });
        if has_password {
            Err("an address with a password in it does not stand in the settings; write \"env:NAME\" or \"file:PATH\"".to_owned())
        } else {
            Ok(text.to_owned())
        }
    }

    fn unknown(&mut self, origin: &str, path: &str) {
        let nearest = self.nearest(path).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
        self.problems.push(format!("{origin}: there is no setting {path}{nearest}"));
    }

    fn nearest(&self, path: &str) -> Option<String> {
        let leaf = path.rsplit('.').next().unwrap_or(path);
        let likeness = |known: &str, known_leaf: &str| {
            // A right name in the wrong section is nearer than a wrong name in the right one.
            if known_leaf == leaf { 1.0 } else { strsim::normalized_damerau_levenshtein(known, path) }
        };
        let sections = self.known.keys().map(|section| (section.clone(), section.clone()));
        let keys = self.known.iter().flat_map(|(section, keys)| {
            keys.as_table().into_iter().flat_map(Table::keys).map(move |key| (format!("{section}.{key}"), key.clone()))
        });
        let candidates: Box<dyn Iterator<Item = (String, String)>> = if path.contains('.') { Box::new(keys) } else { Box::new(sections) };
        let best = candidates.map(|(known, leaf)| (likeness(&known, &leaf), known)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(likeness, _)| *likeness > 0.5).map(|(_, known)| known)
    }

    /// And all that was wrong, which is as by default.
    pub fn finish(self, mode: Mode) -> (Config, Vec<String>) {
        let mut problems = self.problems;
        let config = self.table.try_into::<Config>().unwrap_or_else(|error| {
            problems.push(error.message().to_owned());
            Config::defaults(mode)
        });
        let RouteSettings { overrides: routes, prefixes, services_off } = self.routes;
        (Config { mode, gateway: GatewayConfig { routes, prefixes, services_off, ..config.gateway }, ..config }, problems)
    }
}

/// `section.key` of all settings; not of lists, whose entries are said to be wrong one by one.
pub fn setting_names(mode: Mode) -> Vec<String> {
    let known = Table::try_from(Config::defaults(mode)).expect("settings are a table");
    let keys = |(section, keys): (String, Value)| {
        let keys = keys.as_table().map(|keys| keys.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let is_list = |key: &String| section == GATEWAY && routes::KEYS.contains(&key.as_str());
        keys.into_iter().filter(|key| !is_list(key)).map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    known.into_iter().flat_map(keys).collect()
}

/// The name stands in the text, and is not the beginning or the end of another.
pub fn mentions(text: &str, name: &str) -> bool {
    let is_part = |character: Option<char>| character.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + name.len()..].chars().next()))
}

pub fn environment() -> BTreeMap<String, String> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os()
        .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
        .filter(|(name, _)| name.starts_with("ECHO_") && name.contains("__"))
        .collect()
}

/// A variable's text as a value of the default's type; a list is separated by commas.
fn from_text(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Some(Value::String(text.to_owned())),
    }
}

/// A string as it is, anything else as TOML writes it.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
