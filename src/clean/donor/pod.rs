//! The pod's part: to see that this is the machine that is meant, and to start the rest beside systemd.
//!
//! Everything happens as the host sees it: this thread steps into the mount namespace of process 1, with the open files of what it
//! has to bring along.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde_json::json;

use super::proof::ProofPlace;
use super::services::{ANSWERS, property};
use super::{DonorRequest, machine};
use crate::clean::error::CleanError;
use crate::clean::mounts::unshare;
use crate::clean::patience::Patience;
use crate::clean::programs::{FOLDER, bounded, complaint, plain};
use crate::clean::report::Report;

/// What the kubelet puts into every pod with a token.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The file in the unit's folder that says what is asked of it.
pub(super) const ORDER: &str = "order.json";
/// The file in the unit's folder that says how it ended.
pub(super) const REPORT: &str = "report.json";
/// The file in the unit's folder that holds the pod's token.
const KUBECONFIG: &str = "kubeconfig";
/// For the unit, in all. The pod's own deadline is what ends a pod that waits longer.
const ENDS: Duration = Duration::from_mins(20);

/// What the unit is told.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Order {
    pub(super) request: DonorRequest,
    pub(super) place: ProofPlace,
}

/// Opened in the container, for the host.
struct Luggage {
    program: File,
    kubeconfig: Vec<u8>,
}

pub(super) fn run(host_root: &Path, request: &DonorRequest) -> Result<Report, CleanError> {
    refuse_own_root(host_root)?;
    let folder = Path::new(FOLDER).join(format!("donor-{}", request.short_run()));
    let luggage = Luggage::pack(&server()?).map_err(CleanError::unprepared("read what the pod was given"))?;
    let place = ProofPlace::of(request, folder.join(KUBECONFIG)).ok_or_else(|| {
        let source = io::Error::other("expected NAMESPACE/NAME of a ConfigMap");
        CleanError::unprepared(format!("use --proof {:?}", request.proof))(source)
    })?;
    let order = Order { request: request.clone(), place };
    enter_host().map_err(CleanError::unprepared("step into the mounts of the host"))?;
    machine::refuse_another(request)?;
    let unit = format!("kamino-wf-clean-{}.service", request.short_run());
    // A pod that is run once more in the same boot finds the unit of the first, or what it left.
    let patience = Patience::for_at_most(ANSWERS);
    fs::create_dir_all(FOLDER).map_err(CleanError::unprepared(format!("make {FOLDER}")))?;
    if property(&unit, "LoadState", &patience)? != "loaded" && !folder.join(REPORT).exists() {
        luggage.unpack(&folder, &order).map_err(CleanError::unprepared(format!("write to {}", folder.display())))?;
        start(&unit, &folder)?;
    }
    wait(&unit, &folder)
}

/// `--host-root` has to be what process 1 has as its root, and not what this process has.
fn refuse_own_root(path: &Path) -> Result<(), CleanError> {
    let refused = |found: String| CleanError::NotAHost { path: path.to_path_buf(), found };
    let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino()));
    let given = identity(path).map_err(|error| refused(error.to_string()))?;
    if identity(Path::new("/")).is_ok_and(|own| own == given) {
        return Err(refused("it is the root of this process itself".to_owned()));
    }
    match identity(Path::new("/proc/1/root")) {
        Ok(host) if host == given => Ok(()),
        Ok(_) => Err(refused("it is not the root of process 1".to_owned())),
        Err(error) => Err(refused(format!("the root of process 1 can't be seen: {error}"))),
    }
}

/// Where the API server is for pods: the kubelet tells every container.
fn server() -> Result<String, CleanError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) {
        (Some(host), Some(port)) if host.contains(':') => Ok(format!("https://[{host}]:{port}")),
        (Some(host), Some(port)) => Ok(format!("https://{host}:{port}")),
        _ => {
            let source = io::Error::other("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set");
            Err(CleanError::unprepared("find the API server")(source))
        }
    }
}

impl Luggage {
    fn pack(server: &str) -> io::Result<Self> {
        let read = |name: &str| {
            let path = Path::new(ACCOUNT).join(name);
            fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let (token, authority) = (String::from_utf8_lossy(&read("token")?).into_owned(), read("ca.crt")?);
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "cluster", "cluster": {
                "server": server, "certificate-authority-data": STANDARD.encode(authority) } }],
            "users": [{ "name": "pod", "user": { "token": token } }],
            "contexts": [{ "name": "pod", "context": { "cluster": "cluster", "user": "pod" } }],
            "current-context": "pod",
        });
        Ok(Self { program: File::open("/proc/self/exe")?, kubeconfig: serde_json::to_vec(&kubeconfig)? })
    }

    /// Into memory of the host's: gone at the next boot. The order is last: without it the unit does nothing.
    fn unpack(mut self, folder: &Path, order: &Order) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let create = |name: &str, mode: u32| {
            let path = folder.join(name);
            // The program of an attempt before may be running: a file that runs can't be written.
            let _ = fs::remove_file(&path);
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
        };
        io::copy(&mut self.program, &mut create("kamino-wf", 0o700)?)?;
        create(KUBECONFIG, 0o600)?.write_all(&self.kubeconfig)?;
        create(ORDER, 0o600)?.write_all(&serde_json::to_vec(order)?)
    }
}

/// This thread sees the host's files from here on.
fn enter_host() -> io::Result<()> {
    let mounts = File::open("/proc/1/ns/mnt")?;
    unshare(UnshareFlags::FS)?;
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
    Ok(())
}

fn start(unit: &str, folder: &Path) -> Result<(), CleanError> {
    let asked = || format!("start {unit} by systemd-run");
    let mut command = plain("systemd-run");
    command.args(["--quiet", "--collect", "--unit", unit, "--description", "kamino-wf cleans this node's disk"]);
    command.arg(folder.join("kamino-wf")).args(["clean", "--as-unit"]).arg(folder);
    // Without an answer it may have been started: that is no refusal.
    let output = bounded(&mut command, &Patience::for_at_most(ANSWERS)).map_err(CleanError::part_way(asked()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = complaint(&String::from_utf8_lossy(&output.stderr));
    Err(CleanError::unprepared(asked())(io::Error::other(format!("it ended with {}: {text}", output.status))))
}

/// For the report; the unit kills this process on its way unless it refuses.
fn wait(unit: &str, folder: &Path) -> Result<Report, CleanError> {
    let patience = Patience::for_at_most(ENDS);
    loop {
        // No answer says nothing of the unit: it is looked at again.
        let state = property(unit, "ActiveState", &Patience::for_at_most(ANSWERS)).ok();
        // Looked for after the state: a unit that ended has left it before.
        if let Ok(text) = fs::read(folder.join(REPORT)) {
            return serde_json::from_slice(&text).map_err(|error| {
                CleanError::part_way(format!("read {}", folder.join(REPORT).display()))(error.into())
            });
        }
        if matches!(state.as_deref(), Some("inactive" | "failed")) {
            return Err(CleanError::Machine { what: format!("{unit} ended and left no report") });
        }
        if !patience.wait_long() {
            return Err(CleanError::Machine { what: format!("{unit} has not ended after {} s", ENDS.as_secs()) });
        }
    }
}
