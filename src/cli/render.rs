//! Runs as people read them: tables on stdout, a line per event on stderr.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::{SignedDuration, Timestamp};

use crate::{
    doctor::{Report, State},
    http::AuditEntry,
    workflow::{ApprovalView, Description, Event, Outcome, Run, Summary, left_in_words, needless},
};

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

/// Lines without the spaces at their ends.
pub(super) fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A span in its two largest units, as in `2h 05m`.
pub(super) fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A table of these rows.
pub(super) fn rows(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = table(header);
    for row in rows {
        table.add_row(row);
    }
    text(&table)
}

const COLUMNS: [&str; 8] = ["RUN", "SCALE SET", "STATE", "STEP", "DONOR", "VERSION", "AGE", "WHY"];
const WIDE_COLUMNS: [&str; 13] = [
    "RUN",
    "SCALE SET",
    "STATE",
    "STAGE",
    "STEP",
    "DONOR",
    "VERSION",
    "STARTED",
    "MOVED",
    "AGE",
    "WARNINGS",
    "ID",
    "WHY",
];

/// The header of `list`.
pub(super) fn columns(wide: bool) -> &'static [&'static str] {
    if wide { &WIDE_COLUMNS } else { &COLUMNS }
}

/// A run's row in `list`.
pub(super) fn row(summary: &Summary, now: Timestamp, wide: bool) -> Vec<String> {
    let or_dash = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".into());
    let why = match (&summary.why, summary.until) {
        (Some(why), Some(until)) => format!("until {until:.0}: {why}"),
        (Some(why), None) => why.clone(),
        (None, _) => String::new(),
    };
    let (run, scale_set, state) = (summary.run.clone(), summary.scale_set.name().to_owned(), summary.state.clone());
    let (step, donor, version) = (or_dash(&summary.step), or_dash(&summary.donor), or_dash(&summary.version));
    let age = span(now.duration_since(summary.started));
    if wide {
        let (at, id) = (or_dash(&summary.stage), summary.id.0.to_string());
        let (started, moved) = (format!("{:.0}", summary.started), format!("{:.0}", summary.moved));
        let warnings = summary.warnings.to_string();
        vec![run, scale_set, state, at, step, donor, version, started, moved, age, warnings, id, why]
    } else {
        vec![run, scale_set, state, step, donor, version, age, cut(&why, 100)]
    }
}

/// The table of `list`, newest first.
pub(super) fn list(summaries: &[Summary], now: Timestamp) -> String {
    list_as(summaries, now, false)
}

/// The same, with everything or the most important.
pub(super) fn list_as(summaries: &[Summary], now: Timestamp, wide: bool) -> String {
    if summaries.is_empty() {
        return "There are no runs yet; `kamino-wf start --pool NAME --wait` begins one.".into();
    }
    rows(columns(wide), summaries.iter().rev().map(|summary| row(summary, now, wide)))
}

/// The table of `list --audit`, newest first.
pub(super) fn audit(entries: &[AuditEntry], wide: bool) -> String {
    let cut = |text: &str, most: usize| if wide { text.to_owned() } else { cut(text, most) };
    if entries.is_empty() {
        return "Nobody has asked for anything yet.".into();
    }
    let mut table = table(&["WHEN", "WHO", "UID", "ASKED", "RUN", "REVISION", "RESULT", "WHY"]);
    for entry in entries.iter().rev() {
        let revision = match (entry.before, entry.after) {
            (Some(before), Some(after)) if before != after => format!("{before} to {after}"),
            (_, Some(after)) => after.to_string(),
            (_, None) => "-".into(),
        };
        let run = match (&entry.scale_set, entry.run.is_empty()) {
            (Some(scale_set), true) => format!("of {scale_set}"),
            _ => entry.run.clone(),
        };
        table.add_row([
            format!("{:.0}", entry.at),
            cut(&entry.by, 60),
            entry.peer.map_or_else(|| "-".into(), |peer| peer.uid.to_string()),
            entry.verb.as_str().to_owned(),
            run,
            revision,
            entry.verdict.as_str().to_owned(),
            cut(entry.why.as_deref().unwrap_or_default(), 100),
        ]);
    }
    text(&table)
}

/// What `doctor` prints: a line for each check, and below it what to do.
pub(super) fn doctor(report: &Report) -> String {
    let mut lines = Vec::new();
    for check in &report.checks {
        lines.push(format!("{:<8} {}: {}", check.state.as_str(), check.name, check.seen));
        lines.extend(check.remedy.iter().map(|remedy| format!("{:<8}   {remedy}", "")));
    }
    let count = |state| report.count(state);
    lines.push(String::new());
    lines.push(format!(
        "{}: {} ok, {} warnings, {} wrong, {} not looked at.",
        if report.good() { "Nothing is wrong" } else { "Something is wrong" },
        count(State::Ok),
        count(State::Warning),
        count(State::Wrong),
        count(State::Skipped)
    ));
    lines.join("\n")
}

pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// What `describe` prints, with notes cut or whole.
pub(super) fn describe(run: &Description, now: Timestamp, wide: bool) -> String {
    let cut = |text: &str, most: usize| if wide { text.to_owned() } else { cut(text, most) };
    let summary = &run.summary;
    let mut lines = vec![
        format!("Run        {}  ({})", summary.run, summary.id.0),
        format!("Scale set  {}", summary.scale_set),
        format!("Asked by   {}, {} ago, release {}", run.by, span(now.duration_since(summary.started)), run.release),
        format!("Donor      {}", summary.donor.as_deref().unwrap_or("not chosen yet")),
        format!("Version    {}", summary.version.as_deref().unwrap_or("not chosen yet")),
        format!(
            "State      {}{}",
            summary.state,
            summary.why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
        ),
    ];
    if let Some(until) = summary.until {
        lines.push(format!("Next       {until:.0}, in {}", span(until.duration_since(now))));
    }
    match (summary.state.as_str(), words_to(summary)) {
        (_, Some((go, stop))) => lines.push(format!("To go on   {go}   (or: {stop})")),
        ("needs-person", None) => lines.push("To go on   see docs/RUNBOOK.md, \"A run ended as needs-person\"".into()),
        (_, None) => {}
    }
    if let Some(by) = &run.pause {
        lines.push(format!(
            "Pause      asked for by {by}: before the next stage   (back: kamino-wf resume {})",
            summary.run
        ));
    }
    for ApprovalView { gate, by, at } in &run.approvals {
        lines.push(format!("Approved   {} by {by}, {at:.0}", gate.as_str()));
    }
    for warning in &run.warnings {
        lines.push(format!("Warning    {warning}"));
    }
    lines.push(String::new());
    let mut table = table(&["STAGE", "STEP", "STATE", "TOOK", "REQUESTS", "NOTE"]);
    let mut stage = "";
    for step in &run.steps {
        let took = match (step.began, step.ended) {
            (Some(began), Some(ended)) => span(ended.duration_since(began)),
            (Some(began), None) if step.state == "current" => format!("{} so far", span(now.duration_since(began))),
            (Some(_) | None, None) | (None, Some(_)) => "-".into(),
        };
        table.add_row([
            if stage == step.stage { String::new() } else { step.stage.clone() },
            step.step.clone(),
            step.state.clone(),
            took,
            if step.requests == 0 { "-".into() } else { step.requests.to_string() },
            cut(step.note.as_deref().unwrap_or_default(), 120),
        ]);
        stage = &step.stage;
    }
    lines.push(text(&table));
    lines.join("\n")
}

/// What a person says to a run that stands so that it goes on, and so that it does not.
fn words_to(summary: &Summary) -> Option<(String, String)> {
    let run = &summary.run;
    let (go, stop) = match summary.state.as_str() {
        "parked" | "paused" => ("resume", "cancel"),
        "needs-approval" => ("approve", "reject"),
        _ => return None,
    };
    Some((format!("kamino-wf {go} {run}"), format!("kamino-wf {stop} {run}")))
}

/// To somebody whose run stands: what to look at, and what to say. `drive` is the flag with which it goes on here.
pub(super) fn to_a_person(summary: &Summary, drive: &str) -> String {
    let run = &summary.run;
    let drive = if summary.state == "needs-approval" { "" } else { drive };
    let then = words_to(summary).map_or_else(String::new, |(go, stop)| format!(", then `{go}{drive}` or `{stop}`"));
    format!("run {run} waits for a person: `kamino-wf describe {run}`{then}")
}

/// An event in words, for somebody who watches; `None` for what only the journal needs.
#[must_use]
pub(super) fn progress(run: &Run, event: &Event) -> Option<String> {
    let words = words(run, event)?;
    Some(format!("{:.0} {} {words}", event.at(), run.id))
}

/// The words of an event.
pub(super) fn words(run: &Run, event: &Event) -> Option<String> {
    let step = run.step_name().unwrap_or_default();
    let ended = || {
        let at = run.position().map(crate::workflow::Position::step)?;
        run.plan.get(at.checked_sub(1)?).map(|step| step.name.as_str())
    };
    Some(match event {
        Event::Started { by, .. } => format!("started by {by} for scale set {}", run.spec.scale_set.name()),
        Event::Asking { attempt: 1, .. } => format!("{step}: asked"),
        Event::Asking { attempt, .. } => format!("{step}: asked again ({attempt})"),
        Event::Confirmed { output, .. } => {
            let step = ended()?;
            format!("{step}: {}", found(step, output))
        }
        Event::SetBack { why, .. } => format!("{step}: failed and will be tried again: {why}"),
        Event::Waiting { why, until, .. } => format!("{step}: waiting until {until:.0}: {why}"),
        Event::Skipped { why, .. } => format!("{}: left: {why}", ended()?),
        Event::Undoing { why, .. } => format!("going back: {why}"),
        Event::PersonAsked { why, .. } => format!("{step}: a person is asked, and it goes on being tried: {why}"),
        Event::Paying { .. } => format!("{step}: gives the node back"),
        Event::Parked { why, .. } => format!("{step}: a person is asked: {why}"),
        Event::Resumed { by, .. } => format!("resumed by {by}"),
        Event::CancelRequested { by, .. } => format!("cancelled by {by}"),
        Event::AbandonRequested { by, .. } => format!("abandoned by {by}"),
        Event::PauseRequested { by, .. } => format!("to be paused before the next stage, says {by}"),
        Event::Paused { .. } => format!("{step}: paused before it"),
        Event::ApprovalAsked { gate, why, until, .. } => {
            format!("{step}: asks for an approval ({}) until {until:.0}: {why}", gate.as_str())
        }
        Event::Approved { gate, by, .. } => format!("{} approved by {by}", gate.as_str()),
        Event::Rejected { gate, by, .. } => format!("{} rejected by {by}", gate.as_str()),
        Event::Ended { outcome, .. } => match outcome {
            Outcome::Done => "done: new nodes are made from the new image".into(),
            Outcome::Undone { why } if needless(why) => format!("nothing to do: {why}"),
            Outcome::Undone { why } => format!("failed, and nothing of it is left: {why}"),
            Outcome::Cancelled => "cancelled, and nothing of it is left".into(),
            Outcome::NeedsPerson { why } => format!("failed, and something of it is left: {why}"),
            Outcome::Abandoned { left } => format!("abandoned; {}", left_in_words(left)),
        },
        Event::Asked { accepted, .. } => format!("{step}: {}", accepted.said.as_ref()?),
        Event::Owed { .. }
        | Event::Paid { .. }
        | Event::Decided { .. }
        | Event::NotAsked { .. }
        | Event::Cleared { .. }
        | Event::StepUndone { .. } => return None,
    })
}

/// What a step found or made, in words.
fn found(step: &str, output: &serde_json::Value) -> String {
    let text = |pointer: &str| output.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
    let last = |pointer: &str| text(pointer).rsplit('/').next().unwrap_or_default().to_owned();
    match step {
        "Preflight" => "nothing speaks against it".into(),
        "RankNodes" => format!("the donor is {}, kernel {}", text("/donor/node"), text("/donor/kernel")),
        "ChooseNames" => format!("the version will be {}", last("/version")),
        "DrainNode" => match output["left"].as_array().map_or(0, Vec::len) {
            1 => "nothing is left on the node but one pod that stays".into(),
            stay => format!("nothing is left on the node but {stay} pods that stay"),
        },
        "CleanCopy" => "the copy is clean, says the cleaner's report".into(),
        "VerifyVersion" => "proved".into(),
        "PublishVersion" => "new nodes may take it".into(),
        "PatchModel" => match output["changed"].as_array() {
            Some(parts) if parts.is_empty() => "the scale set followed the image already".into(),
            Some(_) | None => "the scale set follows the image, and nothing else changed".into(),
        },
        "PlanPrune" => {
            let gone =
                output["verdicts"].as_array().map_or(0, |all| all.iter().filter(|v| v["delete"] == true).count());
            format!("{gone} old versions may go")
        }
        "PlanScaleOut" => match (output.pointer("/grow/to"), output.pointer("/refused/why")) {
            (Some(to), _) => format!("the scale set grows to {to} instances"),
            (None, Some(_)) => "the scale set is not to grow".into(),
            (None, None) => "nobody asked for more instances".into(),
        },
        "ChooseHelper" => format!("node {} takes the copy, behind lun {}", text("/at/node"), output["lun"]),
        "AwaitNode" => format!("the first instance that was made from it is {}", last("/instance")),
        "CanaryNode" => match (output.pointer("/passed/node"), output.pointer("/failed/reasons")) {
            (Some(_), _) => format!("its first node {} is good", text("/passed/node")),
            (None, Some(reasons)) => {
                let reasons = reasons.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
                format!("its first node is NOT good: {}", reasons.collect::<Vec<_>>().join("; "))
            }
            (None, None) => "no node has tried it".into(),
        },
        "WithdrawVersion" => match output.as_str() {
            Some("withdrawn") => "the version is withdrawn: new nodes come from the one before it".into(),
            Some("gone") => "the version was deleted by somebody".into(),
            Some("only_one") => "no other version is published, so it STAYS PUBLISHED".into(),
            Some(_) | None => "nothing speaks against the version".into(),
        },
        _ => "done".into(),
    }
}
