//! How answers are printed, as `kubectl` users expect it: `-o table|wide|json|yaml|name`.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::run::print_json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// For people.
    Table,
    /// For people with a wide window: nothing is cut or left out.
    Wide,
    /// For programs; stable, with apiVersion.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line, for another command.
    Name,
}

#[derive(Debug, Args)]
pub(super) struct ViewArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: View,
}

/// The same data in the words of YAML.
pub(super) fn print_yaml(value: &Value) -> Result<()> {
    let text = serde_saphyr::to_string(value).context("failed to print as YAML")?;
    println!("{}", text.trim_end());
    Ok(())
}

/// For programs, one way or the other; for the rest `people` is asked.
pub(super) fn print(
    view: View,
    value: impl FnOnce() -> Result<Value>,
    people: impl FnOnce(bool) -> String,
    names: impl FnOnce() -> Vec<String>,
) -> Result<()> {
    match view {
        View::Table => println!("{}", people(false)),
        View::Wide => println!("{}", people(true)),
        View::Json => print_json(&value()?)?,
        View::Yaml => print_yaml(&value()?)?,
        View::Name => names().iter().for_each(|name| println!("{name}")),
    }
    Ok(())
}
