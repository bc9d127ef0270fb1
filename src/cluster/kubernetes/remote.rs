//! Commands in the controller's pod, with a person's own rights: find the pod, run the command, bring back what it says.

use std::{fmt::Display, io::Write, path::PathBuf};

use k8s_openapi::{
    api::{authentication::v1::SelfSubjectReview, authorization::v1::ResourceAttributes, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Status,
};
use kube::{
    Api,
    api::{AttachParams, ListParams, PostParams},
    client::UpgradeConnectionError,
    config::Kubeconfig,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    KubernetesCluster,
    connect::{Access, ConnectError},
    error::{chain, cut},
};
use crate::cluster::ClusterError;

/// As the chart labels the controller, and nothing else.
const SELECTOR: &str = "app.kubernetes.io/name=kamino-wf,app.kubernetes.io/component=controller";
/// As the chart names its container.
const CONTAINER: &str = "kamino-wf";
/// Where the binary is in the image.
const BINARY: &str = "/kamino-wf";
/// Where neither a flag nor the kubeconfig's context says: as the documents install it.
const NAMESPACE: &str = "kamino-wf";
/// At a time, of what the command says.
const PIECE_BYTES: usize = 16 << 10;
/// A user's name in the record.
const USER_CHARS_MAX: usize = 200;

/// Why a command could not be run in the pod, or is not known to have ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum RemoteError {
    #[error(
        "found no controller of kamino-wf in namespace {namespace} (pods labelled {SELECTOR}): say where it is with \
         -n NAMESPACE; `kubectl get pods -A -l app.kubernetes.io/name=kamino-wf` finds it"
    )]
    NoPod { namespace: String },
    #[error("the controller in namespace {namespace} does not run: {pods}")]
    NotRunning { namespace: String, pods: String },
    #[error(
        "more than one controller runs in namespace {namespace} ({pods}): two installations, or one that is just being \
         replaced; try again, or use `kubectl exec` with the one that is meant"
    )]
    Several { namespace: String, pods: String },
    #[error(
        "you may not {right} in namespace {namespace}. The commands need the rights to list pods there, and to get and \
         create pods/exec ({detail})"
    )]
    Forbidden { right: String, namespace: String, detail: String },
    #[error("run a command in pod {pod}: {detail}")]
    Refused { pod: String, detail: String },
    #[error("the connection to pod {pod} ended before the command did, which may have done its work: {detail}")]
    Lost { pod: String, detail: String },
    #[error("print what the command says: {0}")]
    Print(#[source] std::io::Error),
    #[error(transparent)]
    Call(#[from] ClusterError),
}

/// The controller's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// The pod's name.
    pub pod: String,
    /// Whether its probes say that it is ready. Commands work also where it is not.
    pub ready: bool,
}

/// A cluster with a controller in it, seen from outside.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a client has none")]
pub struct Remote {
    cluster: KubernetesCluster,
    namespace: String,
}

impl Remote {
    /// As `kubectl` would: the kubeconfig, its context, and that one's namespace, each unless it is given. Sends nothing.
    pub async fn connect(
        path: Option<PathBuf>,
        context: Option<String>,
        namespace: Option<String>,
    ) -> Result<Self, ConnectError> {
        let access = Access::Kubeconfig { path: path.clone(), context: context.clone() };
        let cluster = KubernetesCluster::connect_for_streams(&access).await?;
        let namespace = namespace.or_else(|| namespace_of(path, context)).unwrap_or_else(|| NAMESPACE.to_owned());
        Ok(Self { cluster, namespace })
    }

    /// Where it looks.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Who the API server takes us for. `None` before Kubernetes 1.28, which can't say.
    pub async fn user(&self) -> Result<Option<String>, ClusterError> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.cluster.client.clone());
        let question = SelfSubjectReview::default();
        match self.cluster.call("ask who we are", reviews.create(&PostParams::default(), &question)).await {
            Ok(answer) => {
                let name = answer.status.and_then(|status| status.user_info).and_then(|user| user.username);
                let plain = |name: String| name.chars().filter(|it| !it.is_control()).take(USER_CHARS_MAX).collect();
                Ok(name.map(plain).filter(|name: &String| !name.is_empty()))
            }
            Err(ClusterError::Gone { .. } | ClusterError::Denied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The one pod to run commands in.
    pub async fn controller(&self) -> Result<Controller, RemoteError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let those = ListParams::default().labels(SELECTOR);
        match self.cluster.call(format!("list pods {}", self.namespace), pods.list(&those)).await {
            Ok(found) => choose(&self.namespace, &found.items.iter().map(seen).collect::<Vec<_>>()),
            Err(ClusterError::Denied { message, .. }) => Err(self.forbidden("list pods", message)),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the binary in a pod with these arguments, hands on what it says, and returns the code that it ends with.
    ///
    /// Dropping the future closes the connection. The command is not told; it ends when it next says something.
    pub async fn run(
        &self,
        pod: &str,
        arguments: &[String],
        out: &mut (dyn Write + Send),
        err: &mut (dyn Write + Send),
    ) -> Result<i32, RemoteError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let command = [&[BINARY.to_owned()], arguments].concat();
        let streams = AttachParams::default().container(CONTAINER).stdin(false).stdout(true).stderr(true);
        let mut process = match pods.exec(pod, command, &streams).await {
            Ok(process) => process,
            Err(kube::Error::Api(status)) => return Err(self.not_run(pod, status.code, status.message).await),
            // A proxy in between may answer without a Status.
            Err(kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status))) => {
                return Err(self.not_run(pod, status.as_u16(), status.to_string()).await);
            }
            Err(error) => {
                let detail = cut(format!("{}: {}", self.cluster.server(), chain(&error)));
                return Err(RemoteError::Refused { pod: pod.to_owned(), detail });
            }
        };
        let lost = |detail: String| RemoteError::Lost { pod: pod.to_owned(), detail };
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let (said, complained) = tokio::join!(hand_on(stdout, out), hand_on(stderr, err));
        said.and(complained)?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        match status {
            Some(status) => exit_code(&status).ok_or_else(|| RemoteError::Refused {
                pod: pod.to_owned(),
                detail: status.message.unwrap_or_else(|| "no reason was given".into()),
            }),
            None => Err(lost(process.join().await.err().map_or_else(|| "closed".into(), |error| chain(&error)))),
        }
    }

    /// What the API server's no means. Which rights are missing is asked for: it names only the first.
    async fn not_run(&self, pod: &str, code: u16, message: String) -> RemoteError {
        if code != 403 {
            let detail = match code {
                404 => format!("the pod is gone meanwhile, or has no container {CONTAINER}; try again ({message})"),
                500.. => format!("does the API server reach that node's kubelet? ({code} {message})"),
                _ => message,
            };
            return RemoteError::Refused { pod: pod.to_owned(), detail: cut(detail) };
        }
        let mut missing = Vec::new();
        for verb in ["get", "create"] {
            let right = ResourceAttributes {
                resource: Some("pods".into()),
                subresource: Some("exec".into()),
                verb: Some(verb.into()),
                namespace: Some(self.namespace.clone()),
                ..ResourceAttributes::default()
            };
            let asked = self.cluster.allowed(right, format!("ask whether we may {verb} pods/exec")).await;
            if !asked.unwrap_or(true) {
                missing.push(verb);
            }
        }
        let right = if missing.is_empty() {
            "run commands in pods".to_owned()
        } else {
            format!("{} pods/exec", missing.join(" and "))
        };
        self.forbidden(right, message)
    }

    fn forbidden(&self, right: impl Into<String>, detail: impl Display) -> RemoteError {
        RemoteError::Forbidden {
            right: right.into(),
            namespace: self.namespace.clone(),
            detail: cut(detail.to_string()),
        }
    }
}

/// The namespace of a kubeconfig's context, if it says one.
fn namespace_of(path: Option<PathBuf>, context: Option<String>) -> Option<String> {
    let kubeconfig = match path {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    }
    .ok()?;
    let name = context.or(kubeconfig.current_context)?;
    let context = kubeconfig.contexts.into_iter().find(|context| context.name == name)?.context?;
    context.namespace.filter(|namespace| !namespace.is_empty())
}

/// What matters of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    running: bool,
    ready: bool,
    /// Why it does not run.
    why: String,
}

fn seen(pod: &Pod) -> Seen {
    let name = pod.metadata.name.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return Seen { name, running: false, ready: false, why: "being deleted".into() };
    }
    let status = pod.status.clone().unwrap_or_default();
    let ours = status.container_statuses.into_iter().flatten().find(|container| container.name == CONTAINER);
    let state = ours.as_ref().and_then(|container| container.state.clone()).unwrap_or_default();
    let waiting = state.waiting.map(|waiting| (waiting.reason, waiting.message));
    let ended = state.terminated.map(|ended| (ended.reason, ended.message));
    let unmet = status.conditions.into_iter().flatten().find(|condition| condition.status == "False");
    let unmet = unmet.map(|condition| (condition.reason, condition.message));
    let why = waiting.or(ended).or(unmet).unwrap_or_default();
    let words: Vec<String> = [status.phase, why.0, why.1].into_iter().flatten().collect();
    Seen {
        name,
        running: state.running.is_some(),
        ready: ours.is_some_and(|container| container.ready),
        why: if words.is_empty() { "no status yet".into() } else { words.join(", ") },
    }
}

fn choose(namespace: &str, pods: &[Seen]) -> Result<Controller, RemoteError> {
    let namespace = namespace.to_owned();
    let running: Vec<&Seen> = pods.iter().filter(|pod| pod.running).collect();
    let ready: Vec<&Seen> = running.iter().copied().filter(|pod| pod.ready).collect();
    let chosen = |pod: &Seen| Controller { pod: pod.name.clone(), ready: pod.ready };
    match (&ready[..], &running[..], pods) {
        // One that is not ready stands by, or is in trouble, which is when its words are wanted.
        ([one], ..) | ([], [one], _) => Ok(chosen(one)),
        (_, _, []) => Err(RemoteError::NoPod { namespace }),
        ([], [], some) => {
            let pods = some.iter().map(|pod| format!("{} ({})", pod.name, pod.why)).collect::<Vec<_>>().join("; ");
            Err(RemoteError::NotRunning { namespace, pods: cut(pods) })
        }
        (_, several, _) => {
            let pods = several.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(RemoteError::Several { namespace, pods: cut(pods) })
        }
    }
}

async fn hand_on(from: Option<impl AsyncRead + Unpin>, to: &mut (dyn Write + Send)) -> Result<(), RemoteError> {
    let Some(mut from) = from else { return Ok(()) };
    let mut piece = vec![0; PIECE_BYTES];
    // A read that fails is the connection's end; its status says which.
    while let Ok(length) = from.read(&mut piece).await
        && length > 0
    {
        to.write_all(&piece[..length]).and_then(|()| to.flush()).map_err(RemoteError::Print)?;
    }
    Ok(())
}

/// As the kubelet says it: success, or a failure with the command's code among its causes.
fn exit_code(status: &Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.iter().flatten();
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    codes.next()?.message.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, state: &serde_json::Value, ready: bool) -> Pod {
        let container = json!({ "name": "kamino-wf", "image": "i", "imageID": "i", "restartCount": 0, "ready": ready,
            "state": state });
        let pod =
            json!({ "metadata": { "name": name }, "status": { "phase": "Running", "containerStatuses": [container] } });
        serde_json::from_value(pod).expect("a pod")
    }

    fn chosen(pods: &[Pod]) -> Result<Controller, String> {
        choose("ns", &pods.iter().map(seen).collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    #[test]
    fn exactly_one_controller_is_chosen() {
        let running = json!({ "running": {} });
        let crashing = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } });
        let (a, b) = (pod("a", &running, true), pod("b", &running, false));
        let down = pod("c", &crashing, false);
        let mut going = pod("d", &running, true);
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-24T00:00:00Z")).expect("a time");
        let ok = |pod: &str, ready| Ok(Controller { pod: pod.into(), ready });
        assert_eq!(chosen(&[down.clone(), b.clone(), a.clone(), going.clone()]), ok("a", true));
        assert_eq!(chosen(&[down.clone(), b.clone()]), ok("b", false));
        let words = |pods: &[Pod]| chosen(pods).expect_err("none or several");
        assert!(words(&[]).contains("-n NAMESPACE"));
        let not_running = words(&[down, going]);
        let expected = "namespace ns does not run: c (Running, CrashLoopBackOff, back-off 5m0s); d (being deleted)";
        assert!(not_running.contains(expected), "{not_running}");
        let several = words(&[a, pod("e", &running, true)]);
        assert!(several.contains("more than one controller runs in namespace ns (a, e)"), "{several}");
    }

    #[test]
    fn a_command_ends_with_its_own_code() {
        let code = |status| exit_code(&serde_json::from_value(status).expect("a status"));
        assert_eq!(code(json!({ "status": "Success" })), Some(0));
        let failed = json!({ "status": "Failure", "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": "5" }] } });
        assert_eq!(code(failed), Some(5));
        assert_eq!(
            code(json!({ "status": "Failure", "reason": "InternalError", "message": "no such container" })),
            None
        );
    }
}
