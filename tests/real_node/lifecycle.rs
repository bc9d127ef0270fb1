//! What users do with a release: install, test, upgrade, go back, lose the pod, uninstall. The store outlives it all.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

use kamino_wf::clock::{Clock as _, SystemClock};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    guest::{Form, Lab},
    plant::plant,
    plugin,
    release::{Release, Said},
    support::{
        binary::PRODUCT,
        installed::until,
        world::{Cleaner, Plan},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_outlives_upgrade_rollback_the_pod_and_the_release() {
    let Some(lab) = Lab::new() else { return };
    let donor = lab.base(Form::Gpt, "donor.img");
    plant(&donor, "kubeadm");
    let plan = Plan { scale: 0.005, cleaner: Cleaner::Real(donor.image.clone()), ..Plan::default() };
    let Some(release) = Release::prepare("lives-on", plan).await else { return };
    let began = Instant::now();
    release.apply("install").assert(0, &["STATUS: deployed"]);
    println!("helm install --wait: {:.1} s", began.elapsed().as_secs_f32());
    idle(&release).await;
    release.helm(&["test", "lives-on", "--timeout", "1m"]).assert(0, &["Phase:          Succeeded"]);
    let run = release.start().await;
    until("a request", async || !release.site.writes().is_empty()).await;
    // Something in the store that all of the following has to keep.
    release.answer(&["cancel", &run]).await.assert(0, &[]);
    release.until_state(&run, "cancelled").await;
    let first = release.pod().await;

    release.write_values(&|values| values["podAnnotations"] = json!({ "example.com/revision": "2" }));
    release.apply("upgrade").assert(0, &["REVISION: 2"]);
    let second = release.pod().await;
    assert_ne!(first, second);
    release.answer(&["list"]).await.assert(0, &[&run, "cancelled"]);
    release.helm(&["rollback", "lives-on", "1", "--wait", "--timeout", "1m"]).assert(0, &[]);
    let third = release.pod().await;
    assert_ne!(second, third);
    release.answer(&["list"]).await.assert(0, &[&run, "cancelled"]);

    // The pod goes, and another comes with the same volume.
    release.kubectl(&["delete", "pod", &third, "--wait"]).assert(0, &[]);
    let fourth = release.pod().await;
    assert_ne!(third, fourth);
    release.answer(&["list"]).await.assert(0, &[&run, "cancelled"]);

    by_kubectl(&release).await;

    // Two at a time: the volume refuses the second, and says so.
    release.kubectl(&["scale", "deployment/lives-on-kamino-wf", "--replicas", "2"]).assert(0, &[]);
    until("a pod that the volume refuses", async || {
        let events = release.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        events.stdout.contains("PersistentVolumeClaim with ReadWriteOncePod access mode already in-use")
    })
    .await;
    sleep(Duration::from_secs(3)).await;
    let ready = release.kubectl(&["get", "deployment/lives-on-kamino-wf", "-o", "jsonpath={.status.readyReplicas}"]);
    assert_eq!(ready.stdout, "1", "{ready:?}");
    release.kubectl(&["scale", "deployment/lives-on-kamino-wf", "--replicas", "1"]).assert(0, &[]);

    release.helm(&["uninstall", "lives-on", "--wait"]).assert(0, &["kept due to the resource policy"]);
    release.kubectl(&["get", "persistentvolumeclaim/lives-on-kamino-wf"]).assert(0, &["Bound"]);
    until("the pods to go", async || release.pods().await.is_empty()).await;
    release.apply("install").assert(0, &["STATUS: deployed"]);
    release.answer(&["list"]).await.assert(0, &[&run, "cancelled"]);
}

/// As `kubectl kamino`, by a person who may list pods of the namespace and run commands in them: a run is started, held by a
/// restart, resumed, and followed to its end.
async fn by_kubectl(release: &Release) {
    let person = plugin::person(release.cluster, "lives-on").await;
    let folder = tempfile::tempdir().expect("a folder");
    symlink(PRODUCT, folder.path().join("kubectl-kamino")).expect("a link");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let kamino = |arguments: &[&str]| {
        let mut command = Command::new(release.cluster.binary("kubectl"));
        command.args(["kamino", "--namespace", "lives-on"]).args(arguments).env("HOME", folder.path());
        Said::of(command.env("PATH", &path).env("KUBECONFIG", &person.kubeconfig))
    };
    kamino(&["list"]).assert(0, &["cancelled"]);
    let started = kamino(&["start", "--pool", "pool1"]);
    let run = started.assert(0, &["driven by the process that holds the store"]).stdout.trim().to_owned();
    release.write_values(&|values| values["holdOnStart"] = true.into());
    release.apply("upgrade").assert(0, &["STATUS: deployed"]);
    until("the run to be held", async || kamino(&["list"]).stdout.contains("held since")).await;
    kamino(&["resume", &run]).assert(0, &["goes on"]);
    kamino(&["describe", &run, "--watch"]).assert(0, &["done: new nodes are made from the new image"]);
    kamino(&["list", "--audit"]).assert(0, &[&person.user, "resume"]);
}

/// Instead of the daemon: a Job now and then, on the same kind of volume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_cron_job_it_updates_every_pool_and_ends() {
    let Some(lab) = Lab::new() else { return };
    let donor = lab.base(Form::Gpt, "donor.img");
    plant(&donor, "kubeadm");
    let plan = Plan { scale: 0.002, cleaner: Cleaner::Real(donor.image.clone()), ..Plan::default() };
    let Some(release) = Release::prepare("by-cron", plan).await else { return };
    release.write_values(&|values| values["mode"] = "cronjob".into());
    release.apply("install").assert(0, &["STATUS: deployed"]);
    assert!(release.pods().await.is_empty(), "never both");
    release.kubectl(&["create", "job", "--from=cronjob/by-cron-kamino-wf", "now"]).assert(0, &[]);
    let waited = release.kubectl(&["wait", "--for=condition=complete", "job/now", "--timeout=100s"]);
    let logs = release.kubectl(&["logs", "job/now"]);
    waited.assert(0, &[]);
    logs.assert(0, &["done: new nodes are made from the new image"]);
    assert_eq!(release.site.left().await, Vec::<String>::new());
    release.site.assert_donors_untouched().await;
}

/// What docs/BENCHMARKS.md says of the daemon that has nothing to do.
async fn idle(release: &Release) {
    let pod = release.pod().await;
    let of = async |file| release.cluster.proc_of("lives-on", &pod, file).await;
    let number = |text: &str| text.split_whitespace().next().and_then(|it| it.parse::<f64>().ok()).expect("a number");
    let status = of("status").await;
    let mebibytes = |key: &str| number(status.lines().find_map(|line| line.strip_prefix(key)).expect(key)) / 1024.0;
    let (own, binary) = (mebibytes("RssAnon:"), mebibytes("RssFile:"));
    // As the kubelet and `kubectl top` count it: without what the kernel can drop, such as pages of the binary that nobody uses.
    let working_set = working_set(&of("cgroup").await) / 1024.0 / 1024.0;

    // In hundredths of a second since the machine started, behind a name that may hold anything.
    let stat = of("stat").await;
    let began = number(stat.rsplit_once(')').expect("its name").1.split_whitespace().nth(19).expect("field 22"));
    let uptime = number(&fs::read_to_string("/proc/uptime").expect("the machine's"));
    let age = uptime - began / 100.0;
    let started = SystemClock.now() - Duration::from_secs_f64(age);
    let logs = release.kubectl(&["logs", &pod]);
    let leads = logs.stdout.lines().find(|line| line.contains("\"message\":\"leads\"")).expect("it leads");
    let leads: serde_json::Value = serde_json::from_str(leads).expect("JSON");
    let leads: jiff::Timestamp = leads["timestamp"].as_str().expect("when").parse().expect("a time");
    let took = leads.duration_since(started).as_millis_f64();
    println!(
        "the idle daemon: working set {working_set:.1} MiB ({own:.1} MiB its own, {binary:.1} MiB mapped of its binary), \
         {took:.0} ms from its start to leading"
    );
    assert!(working_set <= 30.0, "{working_set} MiB");
}

/// The memory of a control group, of either version, without inactive pages of files.
fn working_set(cgroup: &str) -> f64 {
    let (_, path) =
        cgroup.lines().find_map(|line| line.split_once(":memory:").or(line.split_once("0::"))).expect("its group");
    let folders = [format!("/sys/fs/cgroup/memory{path}"), format!("/sys/fs/cgroup{path}")];
    let folder = folders.iter().find(|it| Path::new(it).join("memory.stat").exists()).expect("the group's folder");
    let read = |file: &str| fs::read_to_string(Path::new(folder).join(file));
    let used = read("memory.usage_in_bytes").or_else(|_| read("memory.current")).expect("its memory");
    let stat = read("memory.stat").expect("its pages");
    let inactive = ["total_inactive_file ", "inactive_file "];
    let inactive =
        inactive.iter().find_map(|key| stat.lines().find_map(|line| line.strip_prefix(key))).expect("a line");
    let bytes = |text: &str| text.trim().parse::<f64>().expect("bytes");
    bytes(&used) - bytes(inactive)
}
