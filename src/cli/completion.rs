//! What shells and `man` are told of the commands: made from the commands themselves, so that it can't be behind them.

use std::{ffi::OsString, io, path::Path, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::{Shell, generate};

use super::{args::Cli, exit::Code, plugin};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum For {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell.
    shell: For,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory, which has to be there.
    directory: PathBuf,
}

pub(super) fn script(args: &CompletionArgs) -> Result<Code> {
    let text = match args.shell {
        For::Bash => bash(),
        For::Zsh => generated(Shell::Zsh, Cli::command(), PRODUCT),
        For::Fish => generated(Shell::Fish, Cli::command(), PRODUCT),
    };
    io::Write::write_all(&mut io::stdout(), text.as_bytes()).context("failed to print the script")?;
    Ok(Code::Ok)
}

const PRODUCT: &str = "kamino-wf";

fn generated(shell: Shell, mut command: Command, name: &'static str) -> String {
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// `clap_complete` 4.6.11 writes two different words for a name with a hyphen, in the parts of its script for bash that have to
/// meet: no command within a command is completed. So it is told a name without one, and the last lines are put right.
fn bash() -> String {
    const PLAIN: &str = "kaminowf";
    let text = generated(Shell::Bash, Cli::command().name(PLAIN), PLAIN);
    text.lines()
        .map(|line| match line.strip_suffix(PLAIN).filter(|_| line.trim_start().starts_with("complete ")) {
            Some(rest) => format!("{rest}{PRODUCT}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

pub(super) fn pages(args: &ManArgs) -> Result<Code> {
    clap_mangen::generate_to(Cli::command(), &args.directory)
        .with_context(|| format!("failed to write man pages into {}", args.directory.display()))?;
    Ok(Code::Ok)
}

/// kubectl asks a program of this name how to complete `kubectl kamino`.
const NAME: &str = "kubectl_complete-kamino";

pub(super) fn called(name: Option<&OsString>) -> bool {
    name.and_then(|name| Path::new(name).file_stem()).is_some_and(|name| name == NAME)
}

/// A candidate a line, and in the last one that files are none (cobra's `ShellCompDirectiveNoFileComp`).
pub(super) fn for_kubectl(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    for candidate in candidates(&words) {
        println!("{candidate}");
    }
    println!(":4");
    Code::Ok.into()
}

/// What may come in the place of the last word.
fn candidates(words: &[String]) -> Vec<String> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut cli = Cli::command();
    cli.build();
    let mut at = &cli;
    for word in before.iter().filter(|word| !word.starts_with('-')) {
        // A flag's value is no command, nor is a run's id.
        if let Some(next) = at.find_subcommand(word) {
            at = next;
        }
    }
    let top = at.get_name() == cli.get_name();
    let flag = before.last().filter(|word| word.starts_with('-'));
    let values = flag.and_then(|flag| values_of(at, flag));
    let found: Vec<String> = match values {
        Some(values) => values,
        None if last.starts_with('-') => flags(at),
        None => at.get_subcommands().map(|command| command.get_name().to_owned()).collect(),
    };
    let fits = |word: &String| {
        word.starts_with(last) && (!top || last.starts_with('-') || flag.is_some() || plugin::runs(word))
    };
    found.into_iter().filter(fits).collect()
}

fn flags(command: &Command) -> Vec<String> {
    let visible = command.get_arguments().filter(|it| !it.is_hide_set());
    visible.filter_map(|it| Some(format!("--{}", it.get_long()?))).collect()
}

/// The words that a flag takes, if it takes only some.
fn values_of(command: &Command, flag: &str) -> Option<Vec<String>> {
    let named = |it: &&clap::Arg| {
        it.get_long().is_some_and(|long| flag == format!("--{long}"))
            || it.get_short().is_some_and(|short| flag == format!("-{short}"))
    };
    let argument = command.get_arguments().find(named)?;
    if !argument.get_action().takes_values() {
        return None;
    }
    Some(argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Vec<String> {
        candidates(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn kubectl_is_told_what_may_come_next() {
        let top = of(&[""]);
        assert!(top.contains(&"list".into()) && top.contains(&"store".into()), "{top:?}");
        assert!(
            !top.contains(&"serve".into()) && !top.contains(&"clean".into()),
            "these don't run in the pod: {top:?}"
        );
        assert_eq!(of(&["des"]), ["describe"]);
        assert!(of(&["store", ""]).contains(&"export".into()));
        assert_eq!(of(&["list", "--wat"]), ["--watch"]);
        assert_eq!(of(&["list", "-o", ""]), ["table", "wide", "json", "yaml", "name"]);
        assert_eq!(of(&["list", "--output", "y"]), ["yaml"]);
        assert!(of(&["list", "--state", "need"]).contains(&"needs-person".into()));
        assert_eq!(of(&["list", "--watch", ""]), Vec::<String>::new());
        assert!(!of(&["list", "--"]).contains(&"--by".into()), "what is hidden is not offered");
        assert_eq!(of(&["nonsense", "--zzz"]), Vec::<String>::new());
    }

    #[test]
    fn it_is_known_by_its_name() {
        assert!(called(Some(&"/usr/bin/kubectl_complete-kamino".into())));
        assert!(!called(Some(&"kubectl-kamino".into())) && !called(None));
    }
}
