//! `kamino-wf config`: which settings are in force, and why.

use anyhow::Result;
use clap::{CommandFactory as _, parser::ValueSource};
use serde_json::json;

use super::{
    args::Cli,
    exit::Code,
    render,
    view::{View, print},
};
use crate::{
    config::{Overrides, Setting, Source, effective},
    http::VERSION,
};

pub(super) fn run(overrides: &Overrides, output: View) -> Result<Code> {
    // Whether a flag or its variable spoke is known to the parser only.
    let matches = Cli::command().get_matches();
    let by_flag = |flag: &str| {
        let mut level = Some(&matches);
        let mut found = false;
        while let Some(matches) = level {
            let source = matches.try_contains_id(flag).unwrap_or(false).then(|| matches.value_source(flag)).flatten();
            found |= source == Some(ValueSource::CommandLine);
            level = matches.subcommand().map(|(_, inner)| inner);
        }
        found
    };
    let settings = effective(overrides, &by_flag, &|name| std::env::var(name).ok())?;
    print(
        output,
        || Ok(json!({ "apiVersion": VERSION, "kind": "Settings", "settings": settings })),
        |_| table(&settings),
        || settings.iter().map(|setting| setting.name.clone()).collect(),
    )?;
    Ok(Code::Ok)
}

fn table(settings: &[Setting]) -> String {
    let rows = settings.iter().map(|Setting { name, value, from }| {
        let from = match from {
            Source::Default => "default".to_owned(),
            Source::File(path) => path.display().to_string(),
            Source::Variable(name) => format!("variable {name}"),
            Source::Flag(name) => format!("flag {name}"),
        };
        vec![name.clone(), value.clone(), from]
    });
    render::rows(&["SETTING", "VALUE", "FROM"], rows)
}
