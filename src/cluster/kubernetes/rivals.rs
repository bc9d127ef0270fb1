//! The Python tool's `CronJobs` and Jobs. Its chart makes Jobs; `CronJobs` of it are the chart's or its users' own.

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::PodSpec,
};
use kube::{Api, api::ListParams};

use super::KubernetesCluster;
use crate::cluster::{ClusterError, Rival};

/// The value of label `app` on all that its chart makes.
const APP: &str = "kamino-vmss-prototype";
/// The program, and the last part of its image's name.
const PROGRAM: &str = "vmss-prototype";
/// `CronJobs` in one answer, and answers at most: ten thousand of them. Clusters have hundreds.
const PAGE: u32 = 500;
const PAGES_MAX: usize = 20;
/// Jobs with its label: those of a year of days.
const JOBS_MAX: u32 = 500;

impl KubernetesCluster {
    /// All `CronJobs` are looked through, since people write their own; of Jobs, of which a cluster may have thousands, those
    /// with the chart's label. A Job that a `CronJob` has made is found by that.
    pub(super) async fn list_rivals(&self) -> Result<Vec<Rival>, ClusterError> {
        let mut rivals = Vec::new();
        let cron_jobs: Api<CronJob> = Api::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        for _ in 0..PAGES_MAX {
            let page = self.call("list cronjobs", cron_jobs.list(&params)).await?;
            rivals.extend(page.items.iter().filter_map(cron_job));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
                None => break,
            }
        }
        let jobs: Api<Job> = Api::all(self.client.clone());
        let labelled = ListParams::default().labels(&format!("app={APP}")).limit(JOBS_MAX);
        rivals.extend(self.call("list jobs", jobs.list(&labelled)).await?.items.iter().map(job));
        Ok(rivals)
    }
}

fn cron_job(found: &CronJob) -> Option<Rival> {
    let spec = found.spec.as_ref()?;
    let labels = found.metadata.labels.as_ref();
    let labelled = labels.and_then(|labels| labels.get("app")).is_some_and(|app| app == APP);
    let pod = spec.job_template.spec.as_ref().and_then(|job| job.template.spec.as_ref());
    if !labelled && !pod.is_some_and(runs_it) {
        return None;
    }
    let suspended = spec.suspend.unwrap_or_default();
    let active = found.status.as_ref().and_then(|status| status.active.as_ref()).is_some_and(|jobs| !jobs.is_empty());
    let state = match (active, suspended) {
        (true, _) => "runs now".to_owned(),
        (false, true) => "suspended".to_owned(),
        (false, false) => format!("schedule {}", spec.schedule),
    };
    let metadata = &found.metadata;
    Some(Rival {
        kind: "CronJob".into(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        live: active || !suspended,
        state,
    })
}

fn job(found: &Job) -> Rival {
    let status = found.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let is = |kind: &str| conditions.clone().any(|condition| condition.type_ == kind && condition.status == "True");
    let (state, live) = if is("Complete") {
        ("complete", false)
    } else if is("Failed") {
        ("failed", false)
    } else if found.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default() {
        ("suspended", false)
    } else {
        ("runs now", true)
    };
    Rival {
        kind: "Job".into(),
        namespace: found.metadata.namespace.clone().unwrap_or_default(),
        name: found.metadata.name.clone().unwrap_or_default(),
        live,
        state: state.into(),
    }
}

/// Its program, or its image by any registry, tag and digest.
fn runs_it(pod: &PodSpec) -> bool {
    pod.containers.iter().any(|container| {
        let words = container.command.iter().chain(container.args.iter()).flatten();
        let program = words.map(|word| word.rsplit('/').next().unwrap_or_default()).any(|word| word == PROGRAM);
        let image = container.image.as_deref().unwrap_or_default();
        let image = image.rsplit('/').next().unwrap_or_default();
        program || image.split([':', '@']).next() == Some(PROGRAM)
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;

    use super::*;

    #[test]
    fn it_is_known_by_its_program_and_by_its_image() {
        let pod = |image: &str, command: &[&str]| PodSpec {
            containers: vec![Container {
                image: Some(image.into()),
                command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
                ..Container::default()
            }],
            ..PodSpec::default()
        };
        for (image, command) in [
            ("ghcr.io/jackfrancis/kamino/vmss-prototype:v0.0.8", &[][..]),
            ("registry.example:5000/mirror/vmss-prototype@sha256:26be", &[]),
            ("vmss-prototype", &[]),
            ("tools:1", &["vmss-prototype", "status"]),
            ("tools:1", &["/usr/bin/vmss-prototype"]),
        ] {
            assert!(runs_it(&pod(image, command)), "{image} {command:?}");
        }
        for (image, command) in
            [("tools:1", &["sh", "-c", "true"][..]), ("x/not-vmss-prototype:1", &[]), ("vmss-prototype/other:1", &[])]
        {
            assert!(!runs_it(&pod(image, command)), "{image} {command:?}");
        }
    }
}
