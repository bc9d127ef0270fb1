//! `credential: rebootstrap`: the kubelet's own credential goes from the donor's disk, and what it asks for a new one with comes.
//!
//! All that could keep the donor from coming back is tried before the first change: whether its kubelet would ask at all, whether
//! the API server gives a token that lives long enough, and whether with that token, from this machine and in the very words that
//! the kubelet will find, a certificate of a node may be asked for and is approved. Then in this order: what to ask with is on the
//! disk, and only then the old credential is put aside, each by one rename, and erased. So the power may go at any point: the
//! kubelet finds a credential that is whole, or none and what to ask for one with.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fsync, openat, renameat};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::services::{ANSWERS, property};
use super::{ApiServer, DonorRequest, ProofPlace};
use crate::clean::beneath::Beneath;
use crate::clean::error::CleanError;
use crate::clean::manifest::{ASIDE, BOOTSTRAP_CONFIG, KUBELET_CONFIG, KUBELET_KEYS};
use crate::clean::patience::Patience;
use crate::clean::tree;

/// A donor may be away for as long: its machine may not start for hours.
const LIVES_MIN: Duration = Duration::from_hours(24);
/// The API server may be restarting.
const TRIES: Duration = Duration::from_mins(1);
/// In the unit's folder: what will be the kubelet's, for a trial.
const DRAFT: &str = "bootstrap-kubelet.conf";

/// What a kubelet asks for a credential with, tried and ready to be put on the disk.
#[derive(Debug)]
pub(super) struct Renewal(Vec<u8>);

impl Renewal {
    /// None where the credential is kept. Nothing of the machine is changed.
    pub(super) fn prepare(
        folder: &Path,
        request: &DonorRequest,
        place: &ProofPlace,
        cluster: &dyn ApiServer,
    ) -> Result<Option<Self>, CleanError> {
        let Some(secret) = &request.rebootstrap else { return Ok(None) };
        let unfit = |what: String| CleanError::UnfitMachine { what };
        refuse_other_places(&command_line()?).map_err(unfit)?;
        let text =
            fs::read_to_string(KUBELET_CONFIG).map_err(CleanError::unprepared(format!("read {KUBELET_CONFIG}")))?;
        let reached = cluster_of(&text).map_err(|why| unfit(format!("{KUBELET_CONFIG} {why}")))?;
        let failed = |doing: &str, why: String| CleanError::unprepared(doing)(io::Error::other(why));
        let (token, lives) = patiently(|| cluster.bound_token(place, secret))
            .map_err(|why| failed("get a token for the node's next credential", why))?;
        if lives < LIVES_MIN {
            return Err(unfit(format!(
                "the API server gives a token for its next credential for {} s at most, and it may be away for {} s \
                 (--service-account-max-token-expiration)",
                lives.as_secs(),
                LIVES_MIN.as_secs()
            )));
        }
        let config = bootstrap_config(&reached, &token).to_string().into_bytes();
        let draft = folder.join(DRAFT);
        let tried = write_private(&draft, &config)
            .map_err(CleanError::unprepared(format!("write {}", draft.display())))
            .and_then(|()| {
                patiently(|| cluster.may_bootstrap(&draft))
                    .map_err(|why| failed("try the token for the node's next credential", why))
            });
        let _ = fs::remove_file(&draft);
        tried.map(|()| Some(Self(config)))
    }

    /// Puts it on the disk, and the old credential aside: the manifest erases it there.
    pub(super) fn put(&self, root: &Beneath) -> Result<(), CleanError> {
        let failed = |doing: &str| CleanError::part_way(doing.to_owned());
        put_aside(root, BOOTSTRAP_CONFIG).map_err(failed("put an old bootstrap-kubelet.conf aside"))?;
        self.write(root).map_err(failed("write bootstrap-kubelet.conf"))?;
        for path in [KUBELET_KEYS, KUBELET_CONFIG] {
            put_aside(root, path).map_err(CleanError::part_way(format!("put {path} aside")))?;
        }
        Ok(())
    }

    /// The whole file or none, on the disk when it returns.
    fn write(&self, root: &Beneath) -> io::Result<()> {
        let (dir, name) = place(root, BOOTSTRAP_CONFIG)?;
        let draft = format!("{name}.draft");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&dir, draft.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(&self.0)?;
        file.sync_all()?;
        renameat(&dir, draft.as_str(), &dir, name)?;
        Ok(fsync(&dir)?)
    }
}

/// The folder of a path, and its name in it.
fn place<'a>(root: &Beneath, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let opened = root.open(folder, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| error.source)?;
    opened.map(|dir| (dir, name)).ok_or_else(|| io::Error::other(format!("there is no {folder}")))
}

/// Under another name, where nobody looks for it. What an earlier cleaning has left there goes.
fn put_aside(root: &Beneath, path: &str) -> io::Result<()> {
    let (dir, name) = place(root, path)?;
    let aside = format!("{name}{ASIDE}");
    let there = root.expand(&format!("{path}{ASIDE}")).map_err(|error| error.source)?;
    for old in there {
        tree::overwrite(&old.dir, &old.name)?;
        fsync(&dir)?;
        tree::remove(&old.dir, &old.name)?;
    }
    match renameat(&dir, name, &dir, aside.as_str()) {
        Ok(()) => Ok(fsync(&dir)?),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

fn patiently<T>(ask: impl Fn() -> Result<T, String>) -> Result<T, String> {
    let patience = Patience::for_at_most(TRIES);
    loop {
        match ask() {
            Err(why) if !patience.wait_long() => return Err(why),
            Err(_) => {}
            done => return done,
        }
    }
}

/// Of the kubelet that runs: its unit's files say less.
fn command_line() -> Result<Vec<String>, CleanError> {
    let pid = property("kubelet.service", "MainPID", &Patience::for_at_most(ANSWERS))?;
    let read = fs::read(format!("/proc/{pid}/cmdline"));
    let line = read.map_err(CleanError::unprepared("read the command line of the kubelet, which has to run"))?;
    Ok(line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Why this kubelet would not find what is put there for it, or would go on with what is taken away.
fn refuse_other_places(line: &[String]) -> Result<(), String> {
    let said = |flag: &str| {
        let of = |(at, word): (usize, &String)| match word.strip_prefix(flag)? {
            "" => line.get(at + 1).map(String::as_str).map(str::to_owned),
            rest => rest.strip_prefix('=').map(str::to_owned),
        };
        // Of several the last counts.
        line.iter().enumerate().filter_map(of).next_back()
    };
    for (flag, expected) in [("--bootstrap-kubeconfig", BOOTSTRAP_CONFIG), ("--kubeconfig", KUBELET_CONFIG)] {
        match said(flag) {
            Some(found) if found == expected => {}
            found => {
                let found = found.map_or("without".to_owned(), |found| format!("with {found:?} for"));
                return Err(format!(
                    "its kubelet runs {found} {flag}: it would not ask for a new credential, which kubeadm has it do by \
                     {expected}"
                ));
            }
        }
    }
    match said("--cert-dir") {
        Some(found) if found != KUBELET_KEYS => {
            Err(format!("its kubelet has its keys at {found}, not at {KUBELET_KEYS}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// How the kubelet reaches its cluster: the `cluster` of the current context.
fn cluster_of(kubeconfig: &str) -> Result<Value, String> {
    let config: Value = serde_saphyr::from_str(kubeconfig).map_err(|error| format!("can't be read: {error}"))?;
    let named = |list: &str, name: &Value| {
        config[list].as_array().into_iter().flatten().find(|entry| entry["name"] == *name).cloned()
    };
    let context = named("contexts", &config["current-context"]).ok_or("names no current context")?;
    let cluster = named("clusters", &context["context"]["cluster"]).ok_or("has no cluster for its current context")?;
    let cluster = &cluster["cluster"];
    if cluster["server"].as_str().is_none_or(str::is_empty) {
        return Err("names no server".into());
    }
    match cluster["certificate-authority"].as_str() {
        Some(path) if !path.starts_with('/') => Err(format!("has its authority at {path}, which is no whole path")),
        Some(_) | None => Ok(cluster.clone()),
    }
}

/// As kubeadm would write it. JSON is YAML too.
fn bootstrap_config(cluster: &Value, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": cluster }],
        "users": [{ "name": "kamino-wf-bootstrap", "user": { "token": token } }],
        "contexts": [{ "name": "bootstrap", "context": { "cluster": "cluster", "user": "kamino-wf-bootstrap" } }],
        "current-context": "bootstrap",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
current-context: default-context
clusters:
- cluster: { server: 'https://elsewhere' }
  name: another
- cluster:
    certificate-authority-data: QUJD
    server: https://10.0.0.1:6443
    tls-server-name: api
  name: default-cluster
contexts:
- context: { cluster: default-cluster, user: default-auth }
  name: default-context
users:
- name: default-auth
  user: { client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem }
";

    #[test]
    fn the_cluster_is_reached_as_before_and_nothing_else_is_taken_over() {
        let cluster = cluster_of(CONFIG).expect("a cluster");
        assert_eq!(
            cluster,
            json!({ "certificate-authority-data": "QUJD", "server": "https://10.0.0.1:6443", "tls-server-name": "api" })
        );
        let text = bootstrap_config(&cluster, "secret").to_string();
        assert!(text.contains(r#""token":"secret""#) && !text.contains("client-certificate"), "{text}");
        let again = cluster_of(&text).expect("it reads as any other");
        assert_eq!(again, cluster);
    }

    #[test]
    fn a_config_that_does_not_say_how_to_reach_the_cluster_is_refused() {
        for (found, replaced, why) in [
            ("current-context: default-context", "", "names no current context"),
            ("- context: { cluster: default-cluster,", "- context: { cluster: gone,", "has no cluster for"),
            ("    server: https://10.0.0.1:6443\n", "", "names no server"),
            ("certificate-authority-data: QUJD", "certificate-authority: ca.crt", "no whole path"),
            ("clusters:", "clusters: [", "can't be read"),
        ] {
            let text = CONFIG.replace(found, replaced);
            assert_ne!(text, CONFIG, "{found}");
            let refused = cluster_of(&text).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn a_kubelet_that_would_not_ask_is_refused() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let kubeadm = "/usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
                       --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml";
        assert_eq!(refuse_other_places(&line(kubeadm)), Ok(()));
        assert_eq!(refuse_other_places(&line(&kubeadm.replace("config=/etc", "config /etc"))), Ok(()));
        let at_home = format!("{kubeadm} --cert-dir=/var/lib/kubelet/pki");
        assert_eq!(refuse_other_places(&line(&at_home)), Ok(()));
        for (text, why) in [
            (kubeadm.replace("--bootstrap-kubeconfig", "--boot"), "without --bootstrap-kubeconfig"),
            (kubeadm.replace("bootstrap-kubelet.conf", "boot.conf"), "with \"/etc/kubernetes/boot.conf\" for"),
            (kubeadm.replace(" --kubeconfig=/etc", " --kubeconfig=/opt"), "for --kubeconfig"),
            (format!("{kubeadm} --kubeconfig /opt/kubelet.conf"), "for --kubeconfig"),
            (format!("{kubeadm} --cert-dir /opt/pki"), "its keys at /opt/pki"),
        ] {
            let refused = refuse_other_places(&line(&text)).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    fn a_node() -> (tempfile::TempDir, Beneath) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("etc/kubernetes/kubelet.conf", "old config"),
            ("etc/kubernetes/bootstrap-kubelet.conf", "stale"),
            ("var/lib/kubelet/pki/kubelet-client-current.pem", "old key"),
            ("var/lib/kubelet/pki.kamino-wf/half", "of an earlier cleaning"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let beneath = Beneath::new(root.path()).expect("opened");
        (root, beneath)
    }

    #[test]
    fn the_old_credential_is_put_aside_when_the_new_ones_way_is_there() {
        let (root, beneath) = a_node();
        Renewal(b"new".to_vec()).put(&beneath).expect("put");
        let read = |path: &str| fs::read_to_string(root.path().join(path)).ok();
        assert_eq!(read("etc/kubernetes/bootstrap-kubelet.conf").as_deref(), Some("new"));
        assert_eq!(read("etc/kubernetes/bootstrap-kubelet.conf.kamino-wf").as_deref(), Some("stale"));
        assert_eq!(read("etc/kubernetes/kubelet.conf.kamino-wf").as_deref(), Some("old config"));
        assert_eq!(read("var/lib/kubelet/pki.kamino-wf/kubelet-client-current.pem").as_deref(), Some("old key"));
        for gone in ["etc/kubernetes/kubelet.conf", "var/lib/kubelet/pki", "var/lib/kubelet/pki.kamino-wf/half"] {
            assert!(!root.path().join(gone).exists(), "{gone}");
        }
        // Run again, nothing of what the kubelet needs goes.
        Renewal(b"newer".to_vec()).put(&beneath).expect("put");
        assert_eq!(read("etc/kubernetes/bootstrap-kubelet.conf").as_deref(), Some("newer"));
        assert_eq!(read("etc/kubernetes/bootstrap-kubelet.conf.kamino-wf").as_deref(), Some("new"));
    }
}
