//! Command lines, as they are understood and refused.

use super::*;
use clap::CommandFactory;

fn parsed(line: &str) -> Command {
    Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}")).command
}

#[test]
fn a_password_is_not_given_on_the_command_line() {
    for good in
        ["postgres://echo@db.example/echo", "postgres:///echo?host=/run", "env:DATABASE_URL", "file:/run/url", "postgres://db:5432/echo"]
    {
        assert_eq!(database_address(good).as_deref(), Ok(good));
    }
    assert!(database_address("mysql://x/y").is_err());
    assert!(database_address("postgres://echo:secret@db.example/echo").unwrap_err().contains("env:NAME"));
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn the_commands_of_the_interface_are_understood() {
    let Command::Serve(serve) =
        parsed("echod serve --config echo.toml --data d --listen 127.0.0.1:0 --admin-listen 127.0.0.1:1 --plugins p --check")
    else {
        panic!("no serve")
    };
    assert!(serve.check);
    let overrides = serve.host.overrides();
    assert_eq!((overrides.data, overrides.plugins), (Some("d".into()), Some("p".into())));
    assert_eq!((overrides.listen.unwrap().port(), overrides.admin_listen.unwrap().port()), (0, 1));
    assert_eq!(serve.host.config_file(), Some("echo.toml".into()));
    assert_eq!(parsed("echod dev").host().map(|(mode, _)| mode), Some(Mode::Dev));
    let Command::Dev(dev) = parsed("echod dev --expose-dev --listen 0.0.0.0:1") else { panic!("no dev") };
    assert!(dev.overrides().expose_dev && dev.overrides().listen.is_some());

    let Command::Plugin { command: Plugin::Deploy { file, dry_run, allow, grant, admin } } =
        parsed("echod plugin deploy a.wasm --dry-run --allow a --allow b --grant echo:sql,echo:log --admin http://h:1 --token t --data d")
    else {
        panic!("no deploy")
    };
    assert_eq!((allow, grant), (vec!["a".into(), "b".into()], vec!["echo:sql".to_owned(), "echo:log".to_owned()]));
    assert_eq!((file, dry_run, admin.admin.as_deref(), admin.token.as_deref()), ("a.wasm".into(), true, Some("http://h:1"), Some("t")));
    let Command::Plugin { command: Plugin::Pack(pack) } = parsed("echod plugin pack plugins/auth --component c.wasm -o a.wasm") else {
        panic!("no pack")
    };
    assert_eq!((pack.component("auth"), pack.output), ("c.wasm".into(), "a.wasm".into()));
    let Command::Plugin { command: Plugin::Pack(pack) } = parsed("echod plugin pack plugins/auth/ -o a.wasm") else { panic!("no pack") };
    assert!(pack.component("auth").ends_with("plugin/auth.wasm"));
    let Command::Plugin { command: Plugin::New(new) } = parsed("echod plugin new polls --sdk s") else { panic!("no new") };
    assert_eq!((new.folder(), new.sdk), ("polls".into(), "s".into()));
    let Command::Ready(ready) = parsed("echod ready --data d --wait 60") else { panic!("no ready") };
    assert_eq!((ready.url, ready.data, ready.wait), (None, "d".into(), 60));
    for line in [
        "echod ready",
        "echod reload",
        "echod plugin list",
        "echod plugin inspect a.wasm",
        "echod plugin history auth",
        "echod plugin rollback auth",
    ] {
        assert!(parsed(line).host().is_none());
    }
}

#[test]
fn a_move_names_a_folder_and_a_database() {
    let Command::Migrate(migrate) = parsed("echod migrate --from sqlite:/var/lib/echo --to postgres://echo@db/echo --config c.toml") else {
        panic!("no migrate")
    };
    let overrides = migrate.overrides();
    assert_eq!(overrides.data, Some("/var/lib/echo".into()));
    assert_eq!((overrides.sql_url.as_deref(), migrate.config_file()), (Some("postgres://echo@db/echo"), Some("c.toml".into())));
    for (line, expect) in
        [("echod migrate status --plugins p", "Status"), ("echod migrate up", "Up"), ("echod migrate back --data d", "Back")]
    {
        let Command::Migrate(Migrate { command: Some(command), .. }) = parsed(line) else { panic!("{line}") };
        assert!(format!("{command:?}").starts_with(expect), "{line}");
    }
}

#[test]
fn every_shell_is_served_and_every_command_has_a_page() {
    use clap::ValueEnum;
    for shell in clap_complete::Shell::value_variants() {
        let script = completions(*shell);
        assert!(["doctor", "rollback", "dry-run"].iter().all(|word| script.contains(word)), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    write_man_pages(folder.path()).unwrap();
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("echod.1").contains("Exit status"));
    for name in ["echod-serve.1", "echod-doctor.1", "echod-plugin-deploy.1", "echod-token-new.1"] {
        assert!(page(name).contains(".SH OPTIONS"), "{name}");
    }
}

#[test]
fn help_teaches_by_examples_that_are_understood() {
    let mut shown = 0;
    let mut open = vec![(0, Cli::command())];
    while let Some((depth, command)) = open.pop() {
        open.extend(command.get_subcommands().map(|below| (depth + 1, below.clone())));
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(depth > 1 || help.contains("Examples:\n"), "{} has no examples", command.get_name());
        for line in help.lines().filter_map(|line| line.strip_prefix("  echod ")) {
            // What it does stands behind several spaces, what follows in a shell behind a sign.
            let line = line.split("  ").next().and_then(|line| line.split(" |").next()).and_then(|line| line.split(" >").next());
            let line = line.and_then(|line| line.split(" &&").next()).unwrap_or_default();
            let words = line.split('\'').enumerate().flat_map(|(at, part)| match at % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![part.to_owned()],
            });
            let words: Vec<String> = std::iter::once("echod".to_owned()).chain(words).collect();
            assert!(Cli::try_parse_from(&words).is_ok(), "{words:?}: {}", Cli::try_parse_from(&words).unwrap_err());
            shown += 1;
        }
    }
    assert!(shown > 30, "only {shown} examples were found");
}

#[test]
fn every_command_with_a_table_gives_json_too() {
    for line in [
        "plugin list",
        "plugin history auth",
        "plugin rollback auth",
        "plugin deploy a.wasm",
        "plugin inspect a.wasm",
        "plugin verify a.wasm",
        "plugin diff a 1.0.0 live",
        "migrate status",
        "migrate up",
        "reload",
        "token list",
        "token audit",
        "token new a --scope read",
        "backup d",
    ] {
        assert!(Cli::try_parse_from(format!("echod {line} --json").split(' ')).is_ok(), "{line}");
    }
    let Command::Doctor(doctor) = parsed("echod doctor --dev --json --data d --listen 127.0.0.1:0") else { panic!("no doctor") };
    assert!(doctor.dev && doctor.json && doctor.host.overrides().data == Some("d".into()));
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "echod migrate",
        "echod migrate --to postgres://echo@db/echo",
        "echod migrate --from /var/lib/echo",
        "echod migrate --from postgres://echo@db/echo",
        "echod migrate back --from sqlite:d",
        "echod",
        "echod serve --listen here",
        "echod dev --check",
        "echod serve --expose-dev",
        "echod ready --wait long",
        "echod plugin",
        "echod plugin pack plugins/auth",
        "echod fly",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}
