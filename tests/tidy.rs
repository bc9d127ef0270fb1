//! What no compiler checks: who calls whom, what is absent from which code, and that documents and code agree.
//!
//! Each rule says what broke and what to do, and each is fed something bad, to see that it can fail.

#![expect(clippy::expect_used, reason = "a test may, and so may what it is made of")]

#[path = "tidy/calls.rs"]
mod calls;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, line, product};

/// Code that a simulation runs, and has to run the same each time.
const DETERMINISTIC: &[&str] =
    &["src/model", "src/policy/", "src/steps/", "src/workflow/", "src/store/", "src/sim/", "src/cloud/limiter.rs"];

/// Places that may start a task or a thread.
const MAY_SPAWN: &[(&str, &str)] = &[
    ("src/app.rs", "the wiring, which ends the process when a task that must live ends"),
    ("src/store/open.rs", "the committer's thread"),
    ("src/sim/arm/", "the loopback servers"),
    ("src/clean/", "a process of its own; namespaces belong to a thread"),
];

/// Places outside tests that may panic on a value.
const MAY_EXPECT: &[(&str, &str)] = &[("src/sim/scene.rs", "constants of the simulated scene, parsed in every test")];

fn in_any(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| source.path.starts_with(place))
}

fn places(source: &Source, needles: &[&str], what: &str) -> Vec<String> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    for needle in needles {
        found.extend(source.lines_with(needle).into_iter().map(|at| (at, *needle)));
    }
    found.sort_unstable();
    found.iter().map(|(at, needle)| format!("{}:{at}: `{needle}`: {what}", source.path)).collect()
}

/// Order that differs from process to process.
fn unordered(source: &Source) -> Vec<String> {
    if !in_any(source, DETERMINISTIC) {
        return Vec::new();
    }
    places(
        source,
        &["HashMap", "HashSet", "RandomState"],
        "its order differs from process to process, and so would a simulation; use BTreeMap, BTreeSet",
    )
}

/// A `select!` that throws dice.
fn unbiased(source: &Source) -> Vec<String> {
    let fair = |at: &usize| {
        let inside = source.code[*at..].trim_start_matches("select!").trim_start().trim_start_matches(['{', '(']);
        !inside.trim_start().starts_with("biased;")
    };
    let all = source.code.match_indices("select!").map(|(at, _)| at);
    all.filter(fair)
        .map(|at| {
            let at = line(&source.code, at);
            format!("{}:{at}: a `select!` without `biased;` throws dice that no seed knows", source.path)
        })
        .collect()
}

/// Tasks and threads that nobody watches.
fn spawns(source: &Source) -> Vec<String> {
    if MAY_SPAWN.iter().any(|(place, _)| source.path.starts_with(place)) {
        return Vec::new();
    }
    places(
        source,
        &[
            "tokio::spawn",
            "task::spawn",
            "thread::spawn",
            "thread::Builder",
            "thread::scope",
            "spawn_blocking",
            "JoinSet",
        ],
        "only src/app.rs spawns (tests/tidy.rs lists the exceptions): if a task that must live ends, the process ends",
    )
}

/// Panics on a value.
fn panics(source: &Source) -> Vec<String> {
    if MAY_EXPECT.iter().any(|(place, _)| source.path.starts_with(place)) {
        return Vec::new();
    }
    places(
        source,
        &[".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("],
        "world wrong: return an error; us wrong: say so and stop in words that a person can report",
    )
}

/// Waiting and repeating in a step.
fn patience(source: &Source) -> Vec<String> {
    if !in_any(source, &["src/steps/"]) {
        return Vec::new();
    }
    places(
        source,
        &["sleep(", "sleep_until(", "timeout(", "interval(", "loop {", "while "],
        "a step looks, asks once and returns; the engine waits and repeats, durably",
    )
}

/// `#[allow]`, which nobody notices when it is needed no longer.
fn allows(source: &Source) -> Vec<String> {
    places(source, &["#[allow(", "#![allow("], "write #[expect(lint, reason = \"…\")]")
}

fn report(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule} ({} found)\n  {}", found.len(), found.join("\n  "));
}

fn each(rule: fn(&Source) -> Vec<String>) -> Vec<String> {
    product().iter().flat_map(rule).collect()
}

#[test]
fn calls_go_one_way() {
    let rule = "calls go right only: cli, http -> app -> workflow -> steps -> policy -> model (docs/ARCHITECTURE.md)";
    report(rule, &calls::wrong(&product()));
}

#[test]
fn libraries_stay_at_home() {
    report("each library of the outside world has one home", &calls::strangers(&product()));
}

#[test]
fn a_simulation_is_the_same_every_time() {
    report("no order by chance in deterministic code", &each(unordered));
    report("every select! is biased", &each(unbiased));
}

#[test]
fn only_the_wiring_spawns() {
    report("tasks and threads start in one place", &each(spawns));
}

#[test]
fn nothing_panics_on_a_value() {
    report("no unwrap, no expect outside tests", &each(panics));
}

#[test]
fn steps_have_no_patience() {
    report("no sleep and no loop in a step", &each(patience));
}

#[test]
fn lints_are_expected_not_allowed() {
    report("no #[allow]", &each(allows));
}

/// Each rule finds its snippet wrong, leaves the same words alone in comments, strings and tests, and elsewhere.
#[test]
fn each_rule_can_fail() {
    type Rule = fn(&Source) -> Vec<String>;
    let bad: &[(&str, Rule, &str, &str)] = &[
        ("unordered", unordered, "src/workflow/x.rs", "use std::collections::HashMap;"),
        ("unordered", unordered, "src/store/x.rs", "fn f() { std::collections::HashSet::new(); }"),
        ("unbiased", unbiased, "src/workflow/x.rs", "fn f() { tokio::select! {\n a = b => {} } }"),
        ("spawns", spawns, "src/workflow/x.rs", "fn f() { tokio::spawn(g()); }"),
        ("spawns", spawns, "src/cli.rs", "fn f() { std::thread::Builder::new() }"),
        ("panics", panics, "src/cli.rs", "fn f() { g().unwrap() }"),
        ("panics", panics, "src/store/x.rs", "fn f() { g()\n.expect(\"x\") }"),
        ("patience", patience, "src/steps/x.rs", "async fn act() { tokio::time::sleep(PAUSE).await }"),
        ("patience", patience, "src/steps/x.rs", "async fn act() { loop { g().await } }"),
        ("allows", allows, "src/cli.rs", "#[allow(dead_code)]\nfn f() {}"),
    ];
    for (name, rule, path, code) in bad {
        assert_eq!(rule(&Source::new(path, code)).len(), 1, "{name} finds this wrong: {code}");
        let commented = code.replace('\n', " ");
        for harmless in [
            format!("// {commented}\nfn f() {{}}"),
            format!("#[cfg(test)]\nmod tests {{ {code} }}"),
            format!("const TEXT: &str = r##\"{code}\"##;"),
        ] {
            assert_eq!(
                rule(&Source::new(path, &harmless)),
                Vec::<String>::new(),
                "{name} leaves this alone: {harmless}"
            );
        }
    }
    let good: &[(Rule, &str, &str)] = &[
        (unordered, "src/clean/x.rs", "use std::collections::HashMap;"),
        (unbiased, "src/workflow/x.rs", "fn f() { tokio::select! {\n        biased;\n a = b => {} } }"),
        (spawns, "src/app.rs", "fn f() { tokio::spawn(g()); }"),
        (spawns, "src/clean/x.rs", "fn f() { Command::new(\"x\").spawn() }"),
        (panics, "src/cli.rs", "fn f() { g().unwrap_or_default() }"),
        (patience, "src/workflow/x.rs", "fn f() { loop { g() } }"),
    ];
    for (rule, path, code) in good {
        assert_eq!(rule(&Source::new(path, code)), Vec::<String>::new(), "{path} {code}");
    }
}
