//! Every setting with its default, the mistakes that are found, and what is never shown.

use super::*;
use std::os::unix::fs::PermissionsExt;

const ECHO_TOML: &str = include_str!("../../../echo.toml");

fn read(mode: Mode, text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Config::from_sources(mode, Some(("echo.toml", text)), environment, Overrides::default())
}

fn refused(text: &str, variables: &[(&str, &str)], expect: &[&str]) {
    let message = read(Mode::Serve, text, variables).expect_err(text).to_string();
    for expect in expect {
        assert!(message.contains(expect), "{message:?} does not say {expect:?}");
    }
    assert_eq!(message.lines().count(), expect.len(), "one line for each mistake: {message}");
}

/// `echo.toml` with its settings no longer commented out.
fn uncommented() -> String {
    let is_setting = |line: &str| {
        let name = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    ECHO_TOML.lines().map(|line| if is_setting(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn echo_toml_as_it_comes_changes_nothing() {
    for mode in [Mode::Serve, Mode::Dev] {
        assert_eq!(read(mode, ECHO_TOML, &[]).unwrap(), Config::defaults(mode));
    }
}

#[test]
fn echo_toml_names_every_setting_with_its_default() {
    assert_eq!(read(Mode::Serve, &uncommented(), &[]).unwrap(), Config::defaults(Mode::Serve));
    let written: Table = uncommented().parse().unwrap();
    for (section, keys) in Table::try_from(Config::defaults(Mode::Serve)).unwrap() {
        for key in keys.as_table().unwrap().keys() {
            assert!(written.get(&section).and_then(|section| section.get(key)).is_some(), "{section}.{key} is missing");
        }
    }
}

#[test]
fn echo_toml_says_what_is_different_in_dev() {
    let (serve, dev) = (Table::try_from(Config::defaults(Mode::Serve)).unwrap(), Table::try_from(Config::defaults(Mode::Dev)).unwrap());
    for (section, keys) in &dev {
        for (key, value) in keys.as_table().unwrap() {
            if serve[section][key] != *value {
                let begin = ECHO_TOML.find(&format!("# {key} = ")).unwrap();
                let line = ECHO_TOML[begin..].lines().next().unwrap();
                assert!(line.ends_with(&format!("# dev: {value}")), "{line:?} does not end with the default in dev, {value}");
            }
        }
    }
}

#[test]
fn later_sources_go_over_earlier_ones() {
    let text =
        "[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\n[tokens]\naccess_ttl = \"5m\"\n[log]\nlevel = \"warn\"\n";
    let variables = [("ECHO_SERVER__LISTEN", "127.0.0.1:3"), ("ECHO_LOG__LEVEL", "debug"), ("ECHO_GATEWAY__RATE_SCALE", "7")];
    let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let overrides = Overrides { listen: Some("127.0.0.1:4".parse().unwrap()), data: Some("elsewhere".into()), ..Overrides::default() };
    let config = Config::from_sources(Mode::Dev, Some(("echo.toml", text)), environment, overrides).unwrap();
    assert_eq!(config.server.listen.port(), 4);
    assert_eq!(config.server.admin_listen.port(), 2);
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.gateway.rate_scale, 7);
    assert_eq!(config.tokens.access_ttl, Duration::from_secs(300));
    assert_eq!(config.data.dir, Path::new("elsewhere"));
    assert_eq!(config.plugins_folder(), Some(Path::new("target/plugins")));
    assert_eq!(Config::defaults(Mode::Serve).plugins_folder(), None);
}

#[test]
fn a_certificate_and_its_key_go_together() {
    assert_eq!(Config::defaults(Mode::Serve).tls(), None);
    let both = read(Mode::Serve, "[server]\ntls_cert = \"a.pem\"\ntls_key = \"b.pem\"\n", &[]).unwrap();
    assert_eq!(both.tls(), Some((Path::new("a.pem"), Path::new("b.pem"))));
    refused("[server]\ntls_cert = \"a.pem\"\n", &[], &["server.tls_cert and server.tls_key go together"]);
    refused("[server]\nconnections_max = 0\n", &[], &["server.connections_max must be above 0"]);
}

#[test]
fn variables_have_the_type_of_their_setting() {
    let variables = [
        ("ECHO_SERVER__PUBLIC_METRICS", "false"),
        ("ECHO_SERVER__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("ECHO_SERVICES__MESSAGE__EDIT_WINDOW_S", "60"),
    ];
    let config = read(Mode::Serve, "", &variables).unwrap();
    assert!(!config.server.public_metrics);
    assert_eq!(config.server.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.services["message"]["edit_window_s"], "60");
    refused("", &[("ECHO_SERVER__PUBLIC_METRICS", "maybe")], &["ECHO_SERVER__PUBLIC_METRICS: \"maybe\" is no boolean"]);
    refused("", &[("ECHO_SERVER__LISTN", "x")], &["did you mean server.listen?"]);
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_right_one() {
    refused("[server]\nlisten_addr = \"x\"\n", &[], &["echo.toml: there is no setting server.listen_addr; did you mean server.listen?"]);
    refused("[server]\nrate_scale = 3\n", &[], &["did you mean gateway.rate_scale?"]);
    refused("[tokens]\nacess_ttl = \"1m\"\n", &[], &["did you mean tokens.access_ttl?"]);
    refused("[servr]\nlisten = \"x\"\n", &[], &["there is no setting servr; did you mean server?"]);
    refused("[zzzzzzzzzz]\n", &[], &["echo.toml: there is no setting zzzzzzzzzz"]);
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_setting() {
    refused(
        "log = 3\n[server]\nlisten = \"here\"\npublic_metrics = 1\n[sql]\nsynchronous = \"sometimes\"\n[tokens]\naccess_ttl = \"soon\"\n",
        &[],
        &["log is a section", "server.listen: ", "server.public_metrics: ", "sql.synchronous: ", "tokens.access_ttl: "],
    );
    let message = read(Mode::Serve, "[server\n", &[]).unwrap_err().to_string();
    assert!(message.contains("echo.toml: ") && message.contains("line 1"), "{message}");
}

#[test]
fn development_mode_is_for_this_machine() {
    for key in ["listen", "admin_listen"] {
        let text = format!("[server]\n{key} = \"0.0.0.0:7000\"\n");
        let refused = read(Mode::Dev, &text, &[]).expect_err("refused").to_string();
        assert!(refused.contains(&format!("server.{key}: ")) && refused.contains("--expose-dev"), "{refused}");
        assert!(read(Mode::Serve, &text, &[]).is_ok());
        let exposed = Overrides { expose_dev: true, ..Overrides::default() };
        assert!(Config::from_sources(Mode::Dev, Some(("echo.toml", &text)), BTreeMap::new(), exposed).is_ok());
    }
    for address in ["127.0.0.1:7000", "127.8.8.8:7000", "[::1]:7000"] {
        assert!(read(Mode::Dev, &format!("[server]\nlisten = \"{address}\"\n"), &[]).is_ok(), "{address}");
    }
}

#[test]
fn values_are_checked() {
    for (text, expect) in [
        ("[tokens]\naccess_ttl = \"2d\"\n", "tokens.access_ttl"),
        ("[tokens]\naccess_ttl = \"1500ms\"\n", "whole seconds"),
        ("[tokens]\nrotate_every = \"1m\"\n", "tokens.rotate_every"),
        ("[server]\nallowed_origins = [\"app.example.org\"]\n", "app.example.org"),
        ("[server]\nadmin_names = [\"http://admin.example.org\"]\n", "server.admin_names"),
        ("[server]\nallowed_origins = [\"https://app.example.org/path\"]\n", "/path"),
        ("[server]\nrequest_timeout = \"0s\"\n", "server.request_timeout"),
        ("[server]\nadmin_listen = \"0.0.0.0:8080\"\n", "the same address"),
        ("[gateway]\nrate_scale = 0\n", "gateway.rate_scale"),
        ("[passwords]\ncost = \"light\"\n", "dev mode only"),
        ("[log]\nlevel = \"info,=,\"\n", "log.level"),
        ("[log]\nlevel = \"loud\"\n", "log.level"),
        ("[log]\nlevel = \"info,loud\"\n", "log.level"),
        ("[data]\nplugins = \"/no/such/folder\"\n", "there is no folder /no/such/folder"),
        ("[data]\ndir = \"\"\n", "data.dir"),
        ("[plugins]\nmigration_timeout = \"5m\"\n", "plugins.migration_timeout"),
        ("[plugins]\nversions_kept = 1\n", "plugins.versions_kept"),
        ("[queue]\ndead_letter_ttl = \"1s\"\n", "queue.dead_letter_ttl"),
        ("[queue]\ndead_letters_max = 0\n", "queue.dead_letters_max"),
        ("[queue]\nwaiting_max = 0\n", "queue.waiting_max"),
        ("[services]\nauth = 1\n", "[services.auth]"),
        ("[services.Auth]\na = 1\n", "Auth"),
    ] {
        refused(text, &[], &[expect]);
    }
    assert_eq!(read(Mode::Dev, "[passwords]\ncost = \"light\"\n", &[]).unwrap().passwords.cost, PasswordCost::Light);
    assert!(read(Mode::Serve, "[server]\nallowed_origins = [\"*\", \"http://localhost:3000\"]\n", &[]).is_ok());
}

#[test]
fn secrets_come_from_elsewhere_and_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "the operator's token\n").unwrap();
    let text = format!("[server]\nadmin_token = \"file:{0}\"\n[services.auth]\nkey = \"file:{0}\"\n", path.display());
    let config = read(Mode::Serve, &text, &[]).unwrap();
    assert_eq!(config.admin_token().unwrap(), "the operator's token");
    assert_eq!(config.services["auth"]["key"], "the operator's token");
    assert!(!format!("{:?}", config.server).contains("the operator's token"));
    let home = std::env::var("PATH").unwrap();
    assert_eq!(read(Mode::Serve, "[server]\nadmin_token = \"env:PATH\"\n", &[]).unwrap().admin_token().unwrap(), home);
    refused("[server]\nadmin_token = \"secret\"\n", &[], &["env:NAME"]);
    refused("[server]\nadmin_token = \"env:ECHO_NO_SUCH_VARIABLE\"\n", &[], &["ECHO_NO_SUCH_VARIABLE is not set"]);
    refused("[services.auth]\nkey = \"file:/no/such/file\"\n", &[], &["services.auth.key: /no/such/file"]);
}

#[test]
fn addresses_of_engines_are_checked_and_hold_no_password_in_the_open() {
    let config = read(Mode::Serve, "[cache]\nurl = \"redis://cache.example:6379\"\nprefix = \"echo-1\"\n", &[]).unwrap();
    assert_eq!(config.cache.url.text(), Some("redis://cache.example:6379"));
    refused("[cache]\nurl = \"redis://:word@cache.example\"\n", &[], &["an address with a password in it"]);
    refused("[cache]\nurl = \"http://cache.example\"\n", &[], &["cache.url must be such as"]);
    refused("[cache]\nurl = \"redis://\"\n", &[], &["cache.url"]);
    refused("[cache]\nprefix = \"a:{b}\"\n", &[], &["cache.prefix"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("address");
    std::fs::write(&path, "rediss://user:word@cache.example\n").unwrap();
    let config = read(Mode::Serve, &format!("[cache]\nurl = \"file:{}\"\n", path.display()), &[]).unwrap();
    assert_eq!(config.cache.url.text(), Some("rediss://user:word@cache.example"));
    assert!(!format!("{:?}", config.cache).contains("word"));
}

#[test]
fn events_go_by_nats_where_postgresql_keeps_them_too() {
    let sql = "[sql]\nurl = \"postgres://echo@db.example/echo\"\n[tokens]\nmaster_key = \"env:PATH\"\n";
    let settings = format!("{sql}[events]\nurl = \"nats://a.example:4222, tls://b.example:4222\"\nreplicas = 1\n");
    let config = read(Mode::Serve, &settings, &[]).unwrap();
    assert_eq!(config.events.url.text(), Some("nats://a.example:4222, tls://b.example:4222"));
    assert_eq!((config.events.prefix.as_str(), config.events.replicas, config.events.old_servers), ("echo", 1, false));
    refused("[events]\nurl = \"nats://a.example\"\n", &[], &["events.url needs sql.url"]);
    refused("[events]\nurl = \"nats://echo:word@a.example\"\n", &[], &["events.url: an address with a password in it"]);
    refused("[events]\nurl = \"nats://a.example,http://b.example\"\n", &[], &["events.url must be such as", "events.url needs sql.url"]);
    refused("[events]\nreplicas = 2\n", &[], &["events.replicas"]);
    refused("[events]\nprefix = \"a.b\"\n", &[], &["events.prefix"]);
    refused("[events]\nbytes_max = 1\n", &[], &["events.bytes_max"]);
}

#[test]
fn files_are_in_the_data_folder_in_a_shared_one_or_in_a_bucket() {
    assert!(matches!(read(Mode::Serve, "", &[]).unwrap().blobs(), Ok(BlobStore::Embedded)));
    for (url, path) in [("file:/srv/files", "/srv/files"), ("file:///srv/files", "/srv/files")] {
        let config = read(Mode::Serve, &format!("[blob]\nurl = \"{url}\"\n"), &[]).unwrap();
        assert!(matches!(config.blobs(), Ok(BlobStore::Folder(folder)) if folder == Path::new(path)), "{url}");
    }
    let keys = "access_key_id = \"env:PATH\"\nsecret_access_key = \"env:PATH\"\n";
    let config = read(Mode::Serve, &format!("[blob]\nurl = \"s3://files.example/echo/a/\"\n{keys}"), &[]).unwrap();
    let Ok(BlobStore::Bucket(settings)) = config.blobs() else { panic!("no bucket") };
    assert_eq!((settings.bucket.as_str(), settings.prefix.as_str(), settings.region.as_str()), ("files.example", "echo/a", "us-east-1"));
    for url in ["s3://", "s3://a", "s3://bucket//a", "s3://bucket/a b", "http://bucket", "files"] {
        refused(
            &format!("[blob]\nurl = \"{url}\"\n{}", if url.starts_with("s3:") { keys } else { "" }),
            &[],
            &["blob.url must be such as"],
        );
    }
    refused("[blob]\nurl = \"file:files\"\n", &[], &["wants a whole path"]);
    refused("[blob]\nurl = \"file:/srv/../files\"\n", &[], &["wants a whole path"]);
    refused("[blob]\nurl = \"s3://bucket\"\n", &[], &["a bucket wants both"]);
    refused(&format!("[blob]\n{keys}"), &[], &["are for a blob.url such as"]);
    refused("[blob]\nendpoint = \"https://s3.example.org\"\n", &[], &["blob.endpoint is for"]);
    refused(&format!("[blob]\nurl = \"s3://bucket\"\nendpoint = \"s3.example.org\"\n{keys}"), &[], &["blob.endpoint must be such as"]);
    refused("[blob]\nsecret_access_key = \"in the open\"\n", &[], &["env:NAME"]);
}

#[test]
fn a_secret_that_is_not_configured_is_made_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = Overrides { data: Some(folder.path().join("data")), ..Overrides::default() };
    let config = Config::from_sources(Mode::Dev, None, BTreeMap::new(), overrides).unwrap();
    let (token, key) = (config.admin_token().unwrap(), config.fingerprint_key().unwrap());
    assert_eq!(token.len(), 64);
    assert_eq!((config.admin_token().unwrap(), config.fingerprint_key().unwrap()), (token.clone(), key));
    let vapid_key = || config.dev_vapid_key(|| format!("{:?}", std::time::Instant::now())).unwrap();
    assert!(vapid_key().is_some() && vapid_key() == vapid_key());
    assert_eq!(read(Mode::Serve, "", &[]).unwrap().dev_vapid_key(String::new).unwrap(), None, "the operator's, or none");
    let cursor_key = config.cursor_key().unwrap();
    let given = read(Mode::Serve, "[server]\ncursor_key = \"env:PATH\"\n", &[]).unwrap().cursor_key().unwrap();
    assert_ne!(given, cursor_key);
    refused("[server]\ncursor_key = \"secret\"\n", &[], &["env:NAME"]);
    assert_eq!(config.cursor_key().unwrap(), cursor_key);
    assert_ne!(cursor_key, key);
    let path = folder.path().join("data/secrets/admin.token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, "").unwrap();
    assert_ne!(config.admin_token().unwrap(), token, "an empty file is no token");
}

#[test]
fn hosts_of_one_database_derive_what_they_share_from_the_master_key() {
    let [folder, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let key = folder.path().join("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    let sql = "[sql]\nurl = \"postgres://echo@db.example.org/echo\"\n";
    let host = |data: &Path, more: &str| {
        let text = format!("{sql}[tokens]\nmaster_key = \"file:{}\"\n[data]\ndir = \"{}\"\n{more}", key.display(), data.display());
        read(Mode::Serve, &text, &[]).unwrap()
    };
    let [a, b] = [host(folder.path(), ""), host(other.path(), "")];
    assert_eq!((a.cursor_key().unwrap(), a.fingerprint_key().unwrap()), (b.cursor_key().unwrap(), b.fingerprint_key().unwrap()));
    assert_ne!(a.cursor_key().unwrap(), a.fingerprint_key().unwrap());
    let set = host(folder.path(), "[server]\ncursor_key = \"env:PATH\"\n");
    assert_ne!(set.cursor_key().unwrap(), a.cursor_key().unwrap(), "what is set has the last word");
    assert_eq!(set.fingerprint_key().unwrap(), a.fingerprint_key().unwrap());
    assert!(!format!("{:?}", a.tokens).contains("0123456789abcdef"));

    refused(sql, &[], &["tokens.master_key: sql.url wants one"]);
    refused(sql, &[], &["openssl rand -base64 32"]);
    std::fs::write(&key, "short\n").unwrap();
    let short = format!("{sql}[tokens]\nmaster_key = \"file:{}\"\n", key.display());
    refused(&short, &[], &["tokens.master_key: it has 5 characters"]);
    refused("[tokens]\nmaster_key = \"env:PATH\"\n", &[], &["tokens.master_key is for sql.url"]);
    refused("[tokens]\nmaster_key = \"in the open\"\n", &[], &["env:NAME"]);
}

#[test]
fn a_service_gets_its_own_settings_over_its_manifest() {
    let config =
        read(Mode::Dev, "[services.message]\nedit_window_s = 60\nnames = [\"a\", \"b\"]\n[services.user]\nx = true\n", &[]).unwrap();
    let defaults = BTreeMap::from([
        ("edit_window_s".to_owned(), Value::Integer(900)),
        ("delete_window_s".to_owned(), Value::Integer(172_800)),
        ("greeting".to_owned(), Value::String("hello".to_owned())),
    ]);
    let settings = config.service_settings(&ServiceName::parse("message").unwrap(), &defaults);
    assert!(settings.dev_mode);
    let expect = [("delete_window_s", "172800"), ("edit_window_s", "60"), ("greeting", "hello"), ("names", "[\"a\", \"b\"]")];
    assert_eq!(settings.values, expect.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect());
}
