//! The known bugs of the Python tool (kamino): none of them is here, and each has a test that says so. The list is in
//! docs/takeover.md.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use clap::CommandFactory as _;
use kamino_wf::{
    cli::{Cli, Code},
    cloud::Power,
    config::{Config, Overrides},
    model::{Capture, UniformId},
    policy::obligations::DO_NOT_DISRUPT,
    sim::{Scene, Session, Stop, spec},
};

use crate::harness::{run, simulated};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn stop() -> Scene {
    Scene { capture: Capture::Stop, ..Scene::nominal() }
}

/// A row of the list: its number, and the file and name of its test.
fn rows() -> Vec<(usize, String, String)> {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/takeover.md")).expect("the page");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _bug, _here, test] = cells[..] else { return None };
        let (file, name) = test.split_once(": ")?;
        Some((number.parse().ok()?, file.trim_matches('`').to_owned(), name.trim_matches('`').to_owned()))
    };
    page.lines().filter(|line| line.starts_with('|')).filter_map(row).collect()
}

#[test]
fn each_of_the_twenty_one_bugs_has_a_test_that_is_there() {
    let rows = rows();
    let numbers: Vec<usize> = rows.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=21).collect::<Vec<_>>(), "a row for each, in order");
    for (number, file, name) in rows {
        let text = fs::read_to_string(Path::new(ROOT).join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (before, _) =
            text.split_once(&format!("fn {name}(")).unwrap_or_else(|| panic!("{number}: no {name} in {file}"));
        let attribute = before.trim_end_matches("async ").trim_end().rsplit('\n').next().unwrap_or_default().trim();
        assert!(attribute.starts_with("#[") && attribute.contains("test"), "{number}: {name} in {file} is no test");
    }
}

/// Bug 1: it took the cordon off before the node was back.
#[test]
fn while_the_donor_is_not_back_its_cordon_stays() {
    simulated(async || {
        let session = Session::new(stop());
        let (shared, away) = (Arc::clone(&session.shared), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&away);
        let session = session.watched(Arc::new(move |_, line| {
            let world = shared.world();
            for machine in world.machines.values() {
                let Some(node) = world.nodes.iter().find(|node| node.name == machine.node) else { continue };
                let node = world.shown(node);
                if machine.power != Power::Running || !node.ready {
                    counted.fetch_add(1, Ordering::Relaxed);
                    assert!(node.unschedulable, "{} is away and takes pods, at {:?}", node.name, line.event);
                }
            }
        }));
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        assert_eq!(outcome.summary.expect("a run").state, "done");
        assert!(away.load(Ordering::Relaxed) > 3, "it was away");
    });
}

/// Bug 7: it knew a scale set by a part of its name.
#[test]
fn a_scale_set_whose_name_only_begins_alike_is_another() {
    let of = |group: &str, set: &str| {
        let id = format!(
            "/subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/{group}/providers/\
             Microsoft.Compute/virtualMachineScaleSets/{set}/virtualMachines/0"
        );
        UniformId::parse(&id).expect("an id").scale_set()
    };
    let ours = spec(&Scene::nominal()).scale_set;
    assert_eq!(of(&ours.resource_group().to_lowercase(), &ours.name().to_uppercase()), ours, "case does not count");
    for (group, set) in [(ours.resource_group(), "pool10"), (ours.resource_group(), "xpool1"), ("other", ours.name())] {
        assert_ne!(of(group, set), ours, "{group}/{set}");
    }
}

/// Bug 10: it removed annotations that were there before, and uncordoned what others had cordoned.
#[test]
fn what_was_on_nodes_before_is_on_them_afterwards() {
    simulated(async || {
        let session = Session::new(stop());
        let cordoned = {
            let mut world = session.shared.world();
            let node = world.nodes.last_mut().expect("a node");
            node.unschedulable = true;
            node.name.clone()
        };
        let before: Vec<_> = session.shared.world().nodes.iter().map(|node| node.annotations.clone()).collect();
        assert!(before.iter().any(|all| all.contains_key(DO_NOT_DISRUPT)), "there is something to be restored");
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        assert!(outcome.run.is_some_and(|run| run.asked.contains("ReleaseNode")), "{}", outcome.log.join("\n"));
        let world = session.shared.world();
        let after: Vec<_> = world.nodes.iter().map(|node| node.annotations.clone()).collect();
        assert_eq!(before, after);
        for node in &world.nodes {
            assert_eq!(node.unschedulable, node.name == cordoned, "{}", node.name);
        }
    });
}

/// Bug 12: its chart asks for a version of `CronJob` that servers have dropped in 1.25.
#[test]
fn the_charts_cron_job_is_of_a_version_that_servers_have() {
    let mut jobs = 0;
    for entry in fs::read_dir(Path::new(ROOT).join("charts/kamino-wf/templates")).expect("the chart") {
        let path = entry.expect("an entry").path();
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a template");
        assert!(!text.contains("v1beta1"), "{}", path.display());
        if text.contains("kind: CronJob") {
            assert!(text.contains("apiVersion: batch/v1\n"), "{}", path.display());
            jobs += 1;
        }
    }
    assert_eq!(jobs, 1);
}

/// Bug 16: it puts the service principal's password on a command line, where every process can read it.
#[test]
fn no_flag_takes_a_secret() {
    let mut commands = vec![Cli::command()];
    let mut flags = 0;
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            flags += 1;
            let secret = ["secret", "password", "token", "credential"].iter().any(|word| long.contains(word));
            assert!(!secret, "{}: --{long}", command.get_name());
        }
    }
    assert!(flags > 30, "only {flags} flags were seen");
}

/// Bug 18: its snapshot has one name for all runs of a scale set.
#[test]
fn two_runs_of_one_scale_set_share_no_name() {
    let names =
        |seed| run(&Scene { seed, ..Scene::nominal() }, |_| {}).0.run.expect("a run").outputs["ChooseNames"].clone();
    let (one, other) = (names(0), names(1));
    for field in ["snapshot", "disk", "cleaning", "nonce"] {
        assert!(one[field].is_string(), "{one}");
        assert_ne!(one[field], other[field], "{field}");
    }
}

/// Bug 19: its Job succeeds when an update of one of several scale sets has failed.
#[test]
fn several_runs_end_as_the_worst_of_them() {
    let (done, _) = run(&Scene::nominal(), |_| {});
    let failed = simulated(async || {
        let session = Session::new(Scene::nominal());
        session.shared.world().nodes.clear();
        session.run(Stop::AtRest).await.expect("the store never fails")
    });
    let [done, failed] = [done, failed].map(|outcome| outcome.summary.expect("a run"));
    assert_eq!((done.state.as_str(), failed.state.as_str()), ("done", "undone"));
    assert_eq!(Code::worst(std::slice::from_ref(&done)), Code::Ok);
    assert_eq!(Code::worst(&[done.clone(), failed.clone()]), Code::Undone);
    assert_eq!(Code::worst(&[failed, done]), Code::Undone);
}

/// Bug 21: it makes the gallery's name of the resource group's, and those of two groups can be one.
#[test]
fn the_gallery_is_named_by_a_person_and_never_derived() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    let set = spec(&Scene::nominal()).scale_set;
    fs::write(&path, format!("pools:\n- {{ name: pool1, scaleSet: {set}, profile: kubeadm }}\n")).expect("a file");
    let error = Config::load(Overrides { config: Some(path), ..Overrides::default() }, &|_| None);
    let error = error.expect_err("no gallery").to_string();
    assert!(error.contains("gallery"), "{error}");
}
