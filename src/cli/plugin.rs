//! `kubectl kamino`: this binary by the name `kubectl-kamino`. It finds the controller's pod and runs the command in it.

use std::{ffi::OsString, path::Path, process::ExitCode};

use super::{
    exit::Code,
    run::{asker, code_of, wait},
};
use crate::app::{Ran, Whereabouts, in_the_pod};

const NAME: &str = "kubectl-kamino";

/// What makes sense in a pod that serves.
const COMMANDS: &[&str] = &[
    "list", "describe", "plan", "start", "resume", "pause", "approve", "reject", "cancel", "rescue", "status",
    "images", "doctor", "store", "config", "version", "help",
];

/// Flags of ours for every command that have a value; a command is no value.
const WITH_VALUE: &[&str] = &["--config", "--store", "--log", "--log-format"];

const USAGE: &str = "\
Runs a command of kamino-wf in the controller's pod, with your own rights.

Usage: kubectl kamino [-n NAMESPACE] [--context NAME] [--kubeconfig FILE] COMMAND...

Commands: list, describe, plan, start, resume, pause, approve, reject, cancel, rescue, status, images, doctor, store, config,
version; each with --help.

  -n, --namespace NAMESPACE  where the controller is; otherwise the context's, otherwise kamino-wf
      --context NAME         context in the kubeconfig
      --kubeconfig FILE      otherwise KUBECONFIG, then ~/.kube/config

You need the rights to list pods there, and to get and create pods/exec. Exit codes are the command's own.";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Help,
    Run(Whereabouts, Vec<String>),
}

/// Whether this process was called by the plugin's name.
pub(super) fn called(name: Option<&OsString>) -> bool {
    let name = name.map(Path::new).and_then(Path::file_stem);
    name.is_some_and(|name| name == NAME)
}

/// Whether this command makes sense in the pod.
pub(super) fn runs(command: &str) -> bool {
    COMMANDS.contains(&command)
}

pub(super) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let ran = match asked(arguments) {
        Ok(Asked::Help) => {
            println!("{USAGE}");
            return Code::Ok.into();
        }
        Ok(Asked::Run(at, arguments)) => wait(in_the_pod(at, arguments, &asker())),
        Err(words) => {
            eprintln!("kubectl kamino: {words}\n\n{USAGE}");
            return Code::Usage.into();
        }
    };
    match ran {
        Ok(Ran::Ended(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ok(Ran::Signal(signal)) => Code::Signal(signal).into(),
        Err(error) => {
            eprintln!("kubectl kamino: {error:#}");
            code_of(&error).into()
        }
    }
}

/// Ours are the flags that say where; all else is the command's.
fn asked(arguments: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut arguments = arguments
        .map(|it| it.into_string().map_err(|it| format!("{} is no text", it.display())))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let mut at = Whereabouts::default();
    let mut rest: Vec<String> = Vec::new();
    let mut command: Option<String> = None;
    let mut value_follows = false;
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rest.push(argument);
            rest.extend(arguments);
            break;
        }
        let (flag, attached) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
            _ => match argument.strip_prefix("-n").filter(|value| !value.is_empty()) {
                Some(value) if !argument.starts_with("--") => {
                    ("-n".to_owned(), Some(value.trim_start_matches('=').to_owned()))
                }
                _ => (argument.clone(), None),
            },
        };
        let mut value = || {
            let value = attached.clone().or_else(|| arguments.next()).filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            _ if value_follows => {
                value_follows = false;
                rest.push(argument);
            }
            "-n" | "--namespace" => at.namespace = Some(value()?),
            "--context" => at.context = Some(value()?),
            "--kubeconfig" => at.kubeconfig = Some(value()?.into()),
            "--by" => return Err("who asks is what the API server says; --by can't be used here".into()),
            _ => {
                value_follows = attached.is_none() && WITH_VALUE.contains(&flag.as_str());
                if command.is_none() && !flag.starts_with('-') {
                    command = Some(argument.clone());
                }
                rest.push(argument);
            }
        }
    }
    match command {
        Some(command) if COMMANDS.contains(&command.as_str()) => Ok(Asked::Run(at, rest)),
        Some(command) => Err(format!("{command:?} is nothing to run in the pod; there are {}", COMMANDS.join(", "))),
        None if rest.iter().all(|flag| ["-h", "--help"].contains(&flag.as_str())) => Ok(Asked::Help),
        None => Err("which command?".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Result<Asked, String> {
        asked(words.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    #[test]
    fn flags_that_say_where_are_ours_and_all_else_is_the_commands() {
        let at = |namespace: Option<&str>, context: Option<&str>, kubeconfig: Option<&str>| Whereabouts {
            kubeconfig: kubeconfig.map(Into::into),
            context: context.map(Into::into),
            namespace: namespace.map(Into::into),
        };
        for (words, whereabouts, rest) in [
            ("list", at(None, None, None), "list"),
            ("-n ops list -o json", at(Some("ops"), None, None), "list -o json"),
            ("list --namespace=ops -o json", at(Some("ops"), None, None), "list -o json"),
            ("-nops describe 0123 --watch", at(Some("ops"), None, None), "describe 0123 --watch"),
            ("--log debug list --context a --kubeconfig=b", at(None, Some("a"), Some("b")), "--log debug list"),
            ("--log list cancel 0123 --revision 7", at(None, None, None), "--log list cancel 0123 --revision 7"),
            ("store check", at(None, None, None), "store check"),
            ("start --node -- -n", at(None, None, None), "start --node -- -n"),
            ("list --help", at(None, None, None), "list --help"),
        ] {
            let rest = rest.split(' ').map(str::to_owned).collect();
            assert_eq!(of(words), Ok(Asked::Run(whereabouts, rest)), "{words}");
        }
        for words in ["", "-h", "--help", "-n ops --help"] {
            assert_eq!(of(words), Ok(Asked::Help), "{words}");
        }
        for (words, problem) in [
            ("serve", "\"serve\" is nothing to run"),
            ("clean --device x", "\"clean\" is nothing"),
            ("simulate", "\"simulate\" is nothing"),
            ("list -n", "-n needs a value"),
            ("list --context=", "--context needs a value"),
            ("cancel 0123 --by root", "--by can't be used"),
            ("-v", "which command"),
        ] {
            let said = of(words).expect_err(words);
            assert!(said.contains(problem), "{words}: {said}");
        }
    }

    #[test]
    fn it_is_known_by_its_name() {
        for (name, expected) in [
            ("kubectl-kamino", true),
            ("/usr/local/bin/kubectl-kamino", true),
            ("kubectl-kamino.exe", true),
            ("kamino-wf", false),
            ("/kubectl-kamino/kamino-wf", false),
        ] {
            assert_eq!(called(Some(&name.into())), expected, "{name}");
        }
        assert!(!called(None));
    }
}
