//! That the node is a real one, before anything is concluded from what runs on it.

use std::{path::Path, sync::OnceLock};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinSet};

use crate::support::{
    installed::{create, until},
    node::{
        image::Image,
        namespace::SERVICE_ADDRESS,
        real_cluster::{RealCluster, shared},
        servers::NODE,
    },
};

const SHELL: &str = "registry.example/shell:test";

/// A namespace with a pod in it that runs a shell script, and the pod's own account's token.
struct Shell {
    cluster: &'static RealCluster,
    namespace: &'static str,
    pods: Api<Pod>,
}

impl Shell {
    async fn start(namespace: &'static str, script: &str) -> Option<Self> {
        static IMPORTED: OnceLock<()> = OnceLock::new();
        let cluster = shared()?;
        IMPORTED.get_or_init(|| {
            let programs = [("/bin/sh", "/bin/bash"), ("/bin/sleep", "/bin/sleep"), ("/bin/cat", "/bin/cat")];
            let image = programs.iter().fold(Image::new(), |image, (to, from)| image.program(to, Path::new(from)));
            cluster.import_image(SHELL, &image);
        });
        let admin = cluster.admin().await;
        create::<Namespace>(&Api::all(admin.clone()), json!({ "metadata": { "name": namespace } })).await;
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(admin.clone(), namespace);
        until("the default service account", async || {
            accounts.get_opt("default").await.expect("the administrator may look").is_some()
        })
        .await;
        let pods: Api<Pod> = Api::namespaced(admin, namespace);
        let container = json!({ "name": "shell", "image": SHELL, "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", script] });
        let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [container] });
        create(&pods, json!({ "metadata": { "name": "shell" }, "spec": spec })).await;
        Some(Self { cluster, namespace, pods })
    }

    /// What `so` is waited for to say of the container's status.
    async fn until(&self, what: &str, so: impl Fn(&Value) -> bool) {
        until(what, async || {
            let pod = self.pods.get("shell").await.expect("the pod");
            let status = serde_json::to_value(pod.status.expect("a status")).expect("JSON");
            so(&status["containerStatuses"][0])
        })
        .await;
    }

    fn exec(&self, script: &str) -> String {
        self.cluster.kubectl(&["exec", "--namespace", self.namespace, "shell", "--", "/bin/sh", "-c", script])
    }

    fn logs(&self, previous: bool) -> String {
        let previous = format!("--previous={previous}");
        self.cluster.kubectl(&["logs", "--namespace", self.namespace, "shell", &previous])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_talks_and_comes_back_when_its_container_is_killed() {
    let script = "echo begun on $HOSTNAME; exec sleep 1000";
    let Some(shell) = Shell::start("lives", script).await else { return };
    shell.until("it to run", |it| it["state"]["running"].is_object()).await;
    let pod = shell.pods.get("shell").await.expect("the pod");
    assert_eq!(pod.spec.and_then(|spec| spec.node_name).as_deref(), Some(NODE), "the scheduler's choice");

    assert_eq!(shell.logs(false), "begun on shell\n");
    assert_eq!(shell.exec("echo $KUBERNETES_SERVICE_HOST"), format!("{SERVICE_ADDRESS}\n"));
    shell.cluster.kill_container(shell.namespace, "shell").await;
    shell.until("it to run again", |it| it["restartCount"] == 1 && it["state"]["running"].is_object()).await;
    assert_eq!(shell.logs(true), "begun on shell\n", "the log of the killed one");
    shell.until("how it ended", |it| it["lastState"]["terminated"]["exitCode"] == 137).await;
}

/// The API server by the address that a pod is told, and what a test serves on the machine's loopback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_reaches_the_api_server_and_what_the_test_serves_and_nothing_else() {
    let Some(shell) = Shell::start("reaches", "exec sleep 1000").await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"hello from outside\n").await.expect("the pod listens");
        }
    });
    let outside = shell.cluster.address_for_pods(port);
    shell.until("it to run", |it| it["state"]["running"].is_object()).await;
    let read = format!("exec 3<> /dev/tcp/{}/{} && cat <&3", outside.ip(), outside.port());
    assert_eq!(shell.exec(&read), "hello from outside\n");
    let api = "exec 3<> /dev/tcp/$KUBERNETES_SERVICE_HOST/$KUBERNETES_SERVICE_PORT && echo open";
    assert_eq!(shell.exec(api), "open\n");
    let elsewhere =
        "for at in 192.0.2.1 198.51.100.1; do (exec 3<> /dev/tcp/$at/443) 2> /dev/null && echo out; done; echo in";
    assert_eq!(shell.exec(elsewhere), "in\n");
    drop(serving);
}
