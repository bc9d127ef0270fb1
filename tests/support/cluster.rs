//! A control plane of its own: etcd, kube-apiserver and kube-controller-manager, on loopback and in a temporary folder.
//!
//! No scheduler and no kubelet: nodes are objects that a test makes, and pods run where `kubelet.rs` runs them. Everything
//! ends with the test process, however that ends: each server gets SIGKILL when the thread that started it dies (so one thread
//! keeps them), and a shell that waits for the end of its standard input removes the folder.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kamino_wf::clock::{Clock, SystemClock};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::Deserialize;
use serde_json::json;

/// From the start of etcd. It takes four seconds on an idle machine with two cores.
const READY: Duration = Duration::from_secs(90);

/// Where the servers log, the certificates are, and what the tests add.
pub struct TestCluster {
    pub folder: PathBuf,
    /// As in `https://127.0.0.1:40123`.
    pub server: String,
    pub(super) counter: AtomicU32,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

/// One line of the API server's audit log: a request that was answered.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub user: String,
    pub verb: String,
    /// With its subresource, as in `pods/binding`; empty for a path that is no resource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u16,
    /// Of its path, the query included.
    pub uri: String,
    /// The address that it came from.
    pub from: String,
}

impl AuditEntry {
    /// Whether it changed something, or tried to.
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }
}

/// The cluster that the tests of this binary share. `None`, loudly, where it can't run; in CI that is a failure.
pub fn shared() -> Option<&'static TestCluster> {
    static SHARED: OnceLock<Option<TestCluster>> = OnceLock::new();
    SHARED.get_or_init(TestCluster::start).as_ref()
}

impl TestCluster {
    /// Starts one and waits until it serves. `None`, loudly, where the binaries are missing; in CI that is a failure.
    pub fn start() -> Option<Self> {
        match binaries(&["etcd", "kube-apiserver", "kube-controller-manager"]) {
            Ok(binaries) => Some(Self::start_with(&binaries)),
            Err(why) => {
                skipped(&why);
                None
            }
        }
    }

    fn start_with(binaries: &Path) -> Self {
        let binaries = binaries.to_owned();
        Self::keep("kamino-wf-cluster", move |folder| {
            let servers = launch(&binaries, folder)?;
            Ok((servers.address.clone(), servers))
        })
    }

    /// Makes a folder and a thread that keeps what `launch` starts in it: the API server's address and the servers. Both end
    /// with this value, or with the process.
    pub(super) fn keep<S>(
        name: &str,
        launch: impl FnOnce(&Path) -> Result<(String, S), String> + Send + 'static,
    ) -> Self {
        let folder = std::env::temp_dir().join(format!("{name}-{}", SystemClock.new_id().simple()));
        fs::create_dir(&folder).expect("a temporary folder");
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let keeper = std::thread::spawn({
            let folder = folder.clone();
            move || {
                let sweeper = sweeper(&folder);
                let servers = launch(&folder);
                let _ = ready.send(servers.as_ref().map(|(address, _)| address.clone()).map_err(Clone::clone));
                let _ = stopped.recv();
                drop(servers);
                drop(sweeper);
            }
        });
        let started = is_ready.recv().expect("the keeper says how it went");
        let server = started.unwrap_or_else(|why| panic!("the test cluster did not start: {why}"));
        Self { folder, server, counter: AtomicU32::new(0), stop: Some(stop), keeper: Some(keeper) }
    }

    /// A client of the test's own administrator. Not for the product.
    pub async fn admin(&self) -> Client {
        admin(&self.folder).await
    }

    /// All requests that were answered so far.
    pub async fn audit(&self) -> Vec<AuditEntry> {
        // The log is written after the answer: ask for something that cannot be, and wait until that is in it.
        let marker = format!("audit-{}", self.counter.fetch_add(1, Ordering::Relaxed));
        let namespaces: Api<Namespace> = Api::all(self.admin().await);
        namespaces.get_opt(&marker).await.expect("the administrator may ask");
        for _ in 0..200 {
            let text = fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
            let entries: Vec<AuditEntry> = text.lines().filter_map(parse_audit).collect();
            if entries.iter().any(|entry| entry.name == marker) {
                return entries;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the audit log does not reach the present");
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// The folder with the servers' binaries, built if need be; in it are `wanted`.
pub fn binaries(wanted: &[&str]) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster-binaries");
    let output = Command::new(script).stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let missing = wanted.iter().find(|name| !folder.join(name).exists());
    match (output.status.success(), missing) {
        (true, None) => Ok(folder),
        (true, Some(name)) => Err(format!("{} has no {name}", folder.display())),
        (false, _) => Err("scripts/cluster-binaries failed (it needs Go); see its words above".to_owned()),
    }
}

/// Says loudly that a cluster can't be had here; in CI that is a failure.
pub fn skipped(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "no test cluster: {why}");
    // Not `eprintln`: the test harness would keep that to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: tests against a real Kubernetes: {why}");
}

/// Removes the folder when this process is gone, and what a node left: loop devices that it noted, control groups of its name.
struct Sweeper(Child);

fn sweeper(folder: &Path) -> Sweeper {
    let script = r#"
        cat > /dev/null
        name=${1##*/}
        for note in "$1"/loops/loop*; do
            [ -f "$note" ] || continue
            loop=${note##*/} image=$(cat "$note")
            case $(cat "/sys/block/$loop/loop/backing_file") in
                "$image" | "$image (deleted)") ;;
                *) continue ;;
            esac
            # The kubelet put a loop device of its own on it, which the kernel does not detach by itself.
            losetup --associated "/dev/$loop" --output NAME --noheadings | xargs -r losetup --detach
            losetup --detach "/dev/$loop"
        done
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            find /sys/fs/cgroup -depth -type d \( -name "$name" -o -path "*/$name/*" \) -exec rmdir -- {} +
            rm -rf -- "$1" && [ -z "$(find /sys/fs/cgroup -type d -name "$name")" ] && exit
            sleep 1
        done"#;
    let child = Command::new("/bin/sh")
        .args(["-c", script, "sweeper"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not in the terminal's group: an interrupt must not end it first.
        .process_group(0)
        .spawn()
        .expect("a shell");
    Sweeper(child)
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

struct Servers {
    address: String,
    children: Vec<Child>,
}

impl Servers {
    fn ended(&mut self) -> Option<String> {
        let ended = self.children.iter_mut().find_map(|child| child.try_wait().ok().flatten());
        ended.map(|status| format!("a server ended with {status}"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that dies with the thread that starts it.
pub fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn spawn(program: &Path, folder: &Path, arguments: &[String]) -> Result<Child, String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let log = File::create(folder.join(format!("{name}.log"))).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    mortal(program)
        .args(arguments)
        .env_remove("KUBECONFIG")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{name}: {error}"))
}

fn launch(binaries: &Path, folder: &Path) -> Result<Servers, String> {
    let [client_port, peer_port, api_port] = free_ports();
    let address = format!("https://127.0.0.1:{api_port}");
    prepare(folder, &address);
    let file = |name: &str| folder.join(name).display().to_string();
    let mut servers = Servers { address, children: Vec::new() };

    let client_url = format!("http://127.0.0.1:{client_port}");
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    servers.children.push(spawn(
        &binaries.join("etcd"),
        folder,
        &[
            format!("--data-dir={}", file("etcd")),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ],
    )?);
    servers.children.push(spawn(
        &binaries.join("kube-apiserver"),
        folder,
        &[
            format!("--etcd-servers={client_url}"),
            format!("--cert-dir={}", file("certificates")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={api_port}"),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("service-account.pub")),
            format!("--service-account-signing-key-file={}", file("service-account.pem")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--audit-log-path={}", file("audit.log")),
            format!("--audit-policy-file={}", file("audit-policy.json")),
            "--profiling=false".to_owned(),
        ],
    )?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(until_ready(|| servers.ended(), folder))?;
    servers.children.push(spawn(
        &binaries.join("kube-controller-manager"),
        folder,
        &[
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--kubeconfig={}", file("admin.kubeconfig")),
            format!("--authentication-kubeconfig={}", file("admin.kubeconfig")),
            format!("--authorization-kubeconfig={}", file("admin.kubeconfig")),
            format!("--service-account-private-key-file={}", file("service-account.pem")),
            format!("--root-ca-file={}", file("certificates/apiserver.crt")),
            "--use-service-account-credentials".to_owned(),
            "--controllers=*,-node-ipam-controller,-cloud-node-lifecycle-controller,-service-lb-controller".to_owned(),
            // A claim that is seen before its volume is looked at again after this time, 15 s otherwise.
            "--pvclaimbinder-sync-period=1s".to_owned(),
            // Nobody sends heartbeats for the tests' nodes: they stay what the test says.
            "--node-monitor-grace-period=24h".to_owned(),
        ],
    )?);
    Ok(servers)
}

fn free_ports() -> [u16; 3] {
    let listeners: [TcpListener; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// Keys, the administrator's token, the audit policy, and a kubeconfig for the administrator.
pub(super) fn prepare(folder: &Path, address: &str) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("the folder can be written");
    let key = rcgen::KeyPair::generate().expect("a key");
    write("service-account.pem", key.serialize_pem());
    write("service-account.pub", key.public_key_pem());
    let token = SystemClock.new_id().simple().to_string();
    write("tokens.csv", format!("{token},admin,admin,\"system:masters\"\n"));
    write("admin.kubeconfig", kubeconfig(folder, address, &token));
    let policy = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"], "rules": [{ "level": "Metadata" }] });
    write("audit-policy.json", policy.to_string());
}

/// A kubeconfig with a token. JSON is YAML.
pub(super) fn kubeconfig(folder: &Path, address: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": address, "certificate-authority": folder.join("certificates/apiserver.crt") } }],
        "users": [{ "name": "test", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "current-context": "test",
    })
    .to_string()
}

pub(super) async fn admin(folder: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(folder.join("admin.kubeconfig")).expect("the administrator's kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

/// Serving, and its own namespaces made.
pub(super) async fn until_ready(mut ended: impl FnMut() -> Option<String>, folder: &Path) -> Result<(), String> {
    let waiting = async {
        loop {
            if let Some(ended) = ended() {
                return Err(format!("{ended}; its log: {}", newest_log_lines(folder)));
            }
            // The certificate may be made by the API server itself, and written before it listens.
            if folder.join("certificates/apiserver.crt").exists() {
                let client = admin(folder).await;
                let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
                let namespaces: Api<Namespace> = Api::all(client.clone());
                if client.request_text(request).await.is_ok_and(|text| text == "ok")
                    && namespaces.get("kube-node-lease").await.is_ok()
                {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let late = |_| Err(format!("not ready after {} s; {}", READY.as_secs(), newest_log_lines(folder)));
    tokio::time::timeout(READY, waiting).await.unwrap_or_else(late)
}

fn newest_log_lines(folder: &Path) -> String {
    let tail = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        format!("{name}: {}", lines.into_iter().rev().collect::<Vec<_>>().join(" / "))
    };
    format!("{}\n{}", tail("etcd.log"), tail("kube-apiserver.log"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditLine {
    verb: String,
    user: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    object_ref: BTreeMap<String, String>,
    #[serde(default)]
    response_status: serde_json::Value,
    #[serde(default, rename = "requestURI")]
    request_uri: String,
    #[serde(default, rename = "sourceIPs")]
    source_ips: Vec<String>,
}

fn parse_audit(line: &str) -> Option<AuditEntry> {
    let line: AuditLine = serde_json::from_str(line).ok()?;
    let of = |name: &str| line.object_ref.get(name).cloned().unwrap_or_default();
    let subresource = line.object_ref.get("subresource").map(|name| format!("/{name}")).unwrap_or_default();
    Some(AuditEntry {
        user: line.user.get("username")?.as_str()?.to_owned(),
        verb: line.verb,
        resource: of("resource") + &subresource,
        namespace: of("namespace"),
        name: of("name"),
        code: line.response_status["code"].as_u64().and_then(|code| code.try_into().ok()).unwrap_or_default(),
        uri: line.request_uri,
        from: line.source_ips.into_iter().next().unwrap_or_default(),
    })
}
