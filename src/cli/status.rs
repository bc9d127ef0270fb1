//! `status`: each pool on a few lines, or as JSON.

use anyhow::Result;
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::{args::Output, exit::Code, list::all_runs, render::span, run::print_json};
use crate::{
    app::{self, PoolStatus, Status},
    clock::{Clock as _, SystemClock},
    config::Config,
    http::VERSION as API_VERSION,
    policy::takeover::Finding,
    workflow::Summary,
};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(config: &Config, args: &StatusArgs) -> Result<Code> {
    let runs = all_runs(config).await?;
    let status = app::status(config, args.pool.as_deref(), &runs).await?;
    match args.output {
        Output::Table => println!("{}", rendered(&status, SystemClock.now())),
        Output::Json => {
            let mut value = serde_json::to_value(&status)?;
            value["apiVersion"] = API_VERSION.into();
            value["kind"] = "Status".into();
            print_json(&value)?;
        }
    }
    Ok(if status.complete() { Code::Ok } else { Code::Failed })
}

fn rendered(status: &Status, now: Timestamp) -> String {
    let mut texts: Vec<String> = status.pools.iter().map(|pool| of_pool(pool, now).join("\n")).collect();
    if texts.is_empty() {
        texts.push("There is no pool in the settings; docs/examples/config.yaml is a whole file.".into());
    }
    let of_cluster = status.kamino.iter().flat_map(finding).collect::<Vec<_>>();
    texts.extend((!of_cluster.is_empty()).then(|| of_cluster.join("\n")));
    texts.extend(status.troubles.iter().map(|trouble| format!("Not read    {trouble}")));
    texts.join("\n\n")
}

fn of_pool(pool: &PoolStatus, now: Timestamp) -> Vec<String> {
    let mut lines = vec![format!("Pool        {}", pool.pool)];
    let capacity = pool.capacity.map_or_else(String::new, |capacity| format!(", set to {capacity} instances"));
    lines.push(format!("Scale set   {}{capacity}", pool.scale_set));
    lines.push(match &pool.model {
        Some(model) if model.follows_definition => {
            format!("Model       follows {}", pool.definition.names().join("/"))
        }
        Some(model) => format!("Model       {}: not the pool's image definition yet", model.image),
        None => "Model       there is no such scale set, or it could not be read".into(),
    });
    lines.push(match &pool.newest {
        Some(newest) => {
            let age = newest.age_seconds.map_or_else(|| "of unknown age".into(), |age| format!("{} old", aged(age)));
            let donor = newest.donor.as_ref().map_or_else(String::new, |donor| format!(", from {donor}"));
            format!("Newest      {}, {age}{donor}, made by {}", newest.version, newest.maker.as_str())
        }
        None => "Newest      there is no published version".into(),
    });
    if let Some(versions) = &pool.versions {
        lines.push(format!(
            "Versions    {}: {} published, {} pinned; {} by kamino-wf, {} by kamino, {} by others",
            versions.total, versions.published, versions.pinned, versions.kamino_wf, versions.kamino, versions.foreign
        ));
    }
    lines.extend(pool.image_holds.map(|what| format!("Image holds {what}")));
    for (at, count) in pool.instances.iter().enumerate() {
        let label = if at == 0 { "Instances " } else { "          " };
        let newest = if count.newest { " (the newest)" } else { "" };
        lines.push(format!("{label}  {:>3} from {}{newest}", count.instances, count.image));
    }
    lines.push(format!("Open run    {}", one_run(pool.open_run.as_ref(), now)));
    lines.push(format!("Last run    {}", one_run(pool.last_run.as_ref(), now)));
    lines.push(match pool.next_run {
        Some(at) => format!("Next run    {at:.0}, in {}", span(at.duration_since(now))),
        None => "Next run    none by itself".into(),
    });
    lines.extend(pool.kamino.iter().flat_map(finding));
    lines.extend(pool.troubles.iter().map(|trouble| format!("Not read    {trouble}")));
    lines
}

fn finding(finding: &Finding) -> [String; 2] {
    let Finding { kind: _, thing, seen, remedy } = finding;
    [format!("Of kamino   {thing}: {seen}"), format!("            {remedy}")]
}

fn aged(seconds: i64) -> String {
    span(SignedDuration::from_secs(seconds))
}

fn one_run(summary: Option<&Summary>, now: Timestamp) -> String {
    let Some(summary) = summary else { return "none".into() };
    format!("{} {}, moved {} ago", summary.run, summary.in_words(), span(now.duration_since(summary.moved)))
}
