//! A cleaning's objects as they are, in our words.

use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{error::cut, objects::RUN_LABEL};
use crate::cluster::{CleaningPod, Leftover, Owned, PodPhase};

/// Whose an object is. A label that no run of ours would write counts as none: the object is foreign either way.
pub(super) fn owned(meta: &ObjectMeta) -> Owned {
    let run = meta.labels.as_ref().and_then(|labels| labels.get(RUN_LABEL));
    Owned {
        uid: meta.uid.clone().unwrap_or_default(),
        run: run.filter(|run| is_short_run(run)).cloned(),
        deleting: meta.deletion_timestamp.is_some(),
    }
}

/// What a list says of an object that carries a run's label; `None` for a label that is no run's.
pub(super) fn leftover(meta: &ObjectMeta, running: bool) -> Option<Leftover> {
    let owned = owned(meta);
    owned.run.is_some().then(|| Leftover {
        name: meta.name.clone().unwrap_or_default(),
        owned,
        created: meta.creation_timestamp.as_ref().map(|time| time.0),
        running,
    })
}

fn is_short_run(text: &str) -> bool {
    text.len() == 12 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// A pod, as far as a cleaning needs it.
pub(super) fn pod(pod: Pod) -> CleaningPod {
    let status = pod.status.unwrap_or_default();
    let container = status.container_statuses.as_deref().and_then(<[ContainerStatus]>::first);
    let ended = container.and_then(|container| container.state.as_ref()).and_then(|state| state.terminated.as_ref());
    CleaningPod {
        owned: owned(&pod.metadata),
        phase: phase(&status, container, ended),
        report: ended.and_then(|ended| ended.message.clone()),
        exit_code: ended.map(|ended| ended.exit_code),
        node: pod.spec.and_then(|spec| spec.node_name),
    }
}

fn phase(
    status: &PodStatus,
    container: Option<&ContainerStatus>,
    ended: Option<&ContainerStateTerminated>,
) -> PodPhase {
    match status.phase.as_deref() {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed(why_failed(status, ended)),
        // `Unknown` is no longer set by any server that we know; like a phase that is still to be invented it is no end.
        Some(_) | None => PodPhase::Pending(why_pending(status, container)),
    }
}

/// The scheduler's words while there is no node, the kubelet's afterwards.
fn why_pending(status: &PodStatus, container: Option<&ContainerStatus>) -> String {
    let unscheduled = status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled" && it.status == "False");
    if let Some(condition) = unscheduled {
        return words(condition.reason.as_deref(), condition.message.as_deref());
    }
    let waiting = container.and_then(|container| container.state.as_ref()).and_then(|state| state.waiting.as_ref());
    match waiting {
        Some(waiting) => words(waiting.reason.as_deref(), waiting.message.as_deref()),
        None => words(status.reason.as_deref(), status.message.as_deref()),
    }
}

/// The pod's own reason (`DeadlineExceeded`, `Evicted`) says more than the container's that it brought down.
fn why_failed(status: &PodStatus, ended: Option<&ContainerStateTerminated>) -> String {
    if status.reason.is_some() || status.message.is_some() {
        return words(status.reason.as_deref(), status.message.as_deref());
    }
    match ended {
        Some(ended) => words(ended.reason.as_deref(), Some(&format!("exit code {}", ended.exit_code))),
        None => String::new(),
    }
}

/// What the newest of these events says.
pub(super) fn newest(events: &[Event]) -> Option<String> {
    let time = |event: &Event| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
        let single = event.event_time.as_ref().map(|time| time.0);
        let counted = event.last_timestamp.as_ref().map(|time| time.0);
        series.or(counted).or(single).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
    };
    let event = events.iter().max_by_key(|event| time(event))?;
    Some(cut(words(event.reason.as_deref(), event.message.as_deref())))
}

fn words(reason: Option<&str>, message: Option<&str>) -> String {
    let parts = [reason, message].into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(status: &Value) -> CleaningPod {
        pod(serde_json::from_value(json!({ "metadata": {}, "status": status })).expect("a pod"))
    }

    #[test]
    fn a_pending_pod_says_what_it_waits_for() {
        let unscheduled = seen(&json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" } ] }));
        assert_eq!(unscheduled.phase, PodPhase::Pending("Unschedulable: 0/3 nodes are available".into()));
        let pulling =
            seen(&json!({ "phase": "Pending", "containerStatuses": [ { "name": "c", "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } } ] }));
        assert_eq!(pulling.phase, PodPhase::Pending("ImagePullBackOff: no such image".into()));
        assert_eq!(seen(&json!({})).phase, PodPhase::Pending(String::new()));
    }

    #[test]
    fn a_failed_pod_says_why_and_keeps_its_report() {
        let container = json!([ { "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 3, "reason": "Error", "message": "a report" } } } ]);
        let failed = seen(&json!({ "phase": "Failed", "containerStatuses": container }));
        assert_eq!(failed.phase, PodPhase::Failed("Error: exit code 3".into()));
        assert_eq!((failed.report.as_deref(), failed.exit_code), (Some("a report"), Some(3)));
        let late = seen(&json!({ "phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": container }));
        assert_eq!(late.phase, PodPhase::Failed("DeadlineExceeded".into()));
    }

    #[test]
    fn the_newest_event_counts_by_when_it_was_last_seen() {
        let event = |reason: &str, times: &Value| -> Event {
            let mut event = json!({ "metadata": {}, "involvedObject": {}, "reason": reason, "message": "m" });
            for (name, value) in times.as_object().expect("times") {
                event[name] = value.clone();
            }
            serde_json::from_value(event).expect("an event")
        };
        let counted = event("Counted", &json!({ "lastTimestamp": "2026-11-24T10:00:03Z" }));
        let single = event("Single", &json!({ "eventTime": "2026-11-24T10:00:02.000000Z" }));
        let series = event(
            "Series",
            &json!({ "eventTime": "2026-11-24T10:00:00.000000Z",
            "series": { "count": 9, "lastObservedTime": "2026-11-24T10:00:04.000000Z" } }),
        );
        assert_eq!(newest(&[counted.clone(), single.clone()]).as_deref(), Some("Counted: m"));
        assert_eq!(newest(&[series, counted, single]).as_deref(), Some("Series: m"));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn a_label_that_is_no_run_of_ours_is_none() {
        let of = |label: &str| {
            let meta =
                ObjectMeta { labels: Some([(RUN_LABEL.to_owned(), label.to_owned())].into()), ..Default::default() };
            owned(&meta).run
        };
        assert_eq!(of("0123456789ab").as_deref(), Some("0123456789ab"));
        for foreign in ["", "0123456789AB", "0123456789abc", "mine"] {
            assert_eq!(of(foreign), None, "{foreign:?}");
        }
    }
}
