//! What the pages for operators name is there: metrics, settings, commands. And every metric is on the page that says what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use super::{host_sources, none, read};

const PAGES: [&str; 3] = ["host/docs/OPERATE.md", "host/docs/SCALE.md", "README.md"];

#[test]
fn operators_find_every_metric_and_no_other_on_their_page() {
    let mut counted = BTreeSet::new();
    for source in host_sources() {
        let names = words(&read(&source.path))
            .into_iter()
            .filter(|word| word.starts_with("echo_") && METRIC_ENDS.iter().any(|end| word.ends_with(end)));
        counted.extend(names.filter(|name| !name.starts_with("echo_test_")));
    }
    assert!(counted.len() > 20, "only {counted:?} were found in the sources");
    let page = read("host/docs/OPERATE.md");
    let named: BTreeSet<String> =
        words(&page).into_iter().filter(|word| METRIC_ENDS.iter().any(|end| word.ends_with(end)) && word.starts_with("echo_")).collect();
    none(counted.symmetric_difference(&named).map(|name| format!("{name} is in the sources or in OPERATE.md and not in both")).collect());
}

const METRIC_ENDS: [&str; 5] = ["_total", "_seconds", "_in_flight", "_sockets", "_open"];

#[test]
fn settings_and_commands_that_operators_read_of_are_there() {
    let mut wrong = Vec::new();
    let settings = settings();
    let (commands, tasks) = (read("host/src/cli.rs"), read("xtask/src/main.rs"));
    let mut named = 0;
    for page in PAGES {
        let text = read(page);
        for quoted in text.split('`').skip(1).step_by(2) {
            let name = quoted.split([' ', '=']).next().unwrap_or_default();
            if let Some((section, key)) = name.split_once('.')
                && let Some(keys) = settings.get(section)
                && key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            {
                named += 1;
                if !keys.contains(key) {
                    wrong.push(format!("{page}: there is no setting {name}"));
                }
            }
        }
        for (before, known) in [("echod ", &commands), ("cargo xtask ", &tasks)] {
            for rest in text.split(before).skip(1) {
                let word: String = rest.chars().take_while(|letter| letter.is_ascii_lowercase()).collect();
                let is_code = ["`", "$ "].iter().any(|sign| text.contains(&format!("{sign}{before}{word}")));
                if word.is_empty() || !is_code {
                    continue;
                }
                named += 1;
                let variant = word[..1].to_ascii_uppercase() + &word[1..];
                if !["(", " {", ",", "\n"].iter().any(|end| known.contains(&format!("    {variant}{end}"))) {
                    wrong.push(format!("{page}: there is no `{before}{word}`"));
                }
            }
        }
    }
    assert!(named > 20, "only {named} settings and commands were found");
    none(wrong);
}

/// The sections of echo.toml and their keys.
fn settings() -> BTreeMap<String, BTreeSet<String>> {
    let mut settings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in read("echo.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && !key.contains(' ')
        {
            settings.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    settings
}

fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').map(str::to_owned).collect()
}
