//! docs/install.md, as a new user follows it: every command of the page, as it stands there and in its order.
//!
//! Two things of a user's cluster are played by the test. There is no storage class, so it makes the claims' volumes. There is no
//! snapshot controller, so it makes a copy of the volume's folder of each `VolumeSnapshot`, and says that it can be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kamino_wf::{permissions::Installation, sim::arm::Machine};
use serde_json::{Value, json};

use crate::{
    guest::{Form, Lab},
    page::{Block, blocks},
    plant::plant,
    release::{Said, values, volume},
    support::{
        binary::PRODUCT,
        installed::until,
        node::{
            product::script,
            real_cluster::{RealCluster, shared},
        },
        world::{Cleaner, Plan, Site},
    },
};

/// Commands that can't run here: how they begin, and why.
const NOT_HERE: &[(&str, &str)] =
    &[("docker ", "there is no Docker and no registry: scripts/image builds the image by the same Dockerfile")];

/// What the real `az` takes, by the parameters of azure-cli 2.91.0.
const AZ: &[(&str, &[&str])] = &[
    ("identity create", &["--name", "--resource-group"]),
    ("identity show", &["--name", "--resource-group", "--query", "--output"]),
    ("role definition create", &["--role-definition"]),
    ("role assignment create", &["--assignee-object-id", "--assignee-principal-type", "--role", "--scope"]),
    (
        "identity federated-credential create",
        &["--name", "--identity-name", "--resource-group", "--issuer", "--subject", "--audiences"],
    ),
    ("vmss identity assign", &["--resource-group", "--name", "--identities"]),
];

const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
const IDENTITY: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/kamino-wf";

/// Somebody's shell, in the folder of the repository.
struct Shell {
    cluster: &'static RealCluster,
    folder: tempfile::TempDir,
}

impl Shell {
    fn new(cluster: &'static RealCluster) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for part in ["charts", "docs"] {
            symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join(part), at(part)).expect("a link");
        }
        fs::create_dir(at("bin")).expect("a folder");
        for (name, tool) in [("helm", "helm4"), ("helm3", "helm3")] {
            symlink(script("scripts/chart-tools").join(tool), at("bin").join(name)).expect("a link");
        }
        symlink(cluster.binary("kubectl"), at("bin/kubectl")).expect("a link");
        symlink(PRODUCT, at("bin/kubectl-kamino")).expect("a link");
        Self { cluster, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, command: &str) -> Said {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", command]).current_dir(self.folder.path()).env_clear();
        shell.env("HOME", self.folder.path()).env("KUBECONFIG", self.cluster.kubeconfig());
        Said::of(shell.env("PATH", format!("{}:/usr/bin:/bin", self.at("bin").display())))
    }
}

/// A user's cluster without kamino-wf, and what they have in their folder.
struct Newcomer {
    shell: Shell,
    site: Site,
    /// By claim.
    volumes: BTreeMap<String, PathBuf>,
}

impl Newcomer {
    async fn new(cluster: &'static RealCluster, plan: Plan) -> Self {
        cluster.import_product();
        let at = Installation {
            namespace: "kamino-wf".to_owned(),
            clean_namespace: "kamino-wf-clean".to_owned(),
            service_account: "kamino-wf".to_owned(),
        };
        let site = Site::charted(cluster, plan, at).await;
        let shell = Shell::new(cluster);
        fs::write(shell.at("client-secret"), "a secret").expect("a file");
        let node = json!({ "cloud": "AzurePublicCloud", "tenantId": "66666666-7777-8888-9999-000000000000",
            "aadClientId": CLIENT, "aadClientSecret": "a secret" });
        fs::write(shell.at("azure.json"), node.to_string()).expect("a file");
        cluster.kubectl(&["apply", "--filename", &snapshots_of(&shell)]);
        let mut it = Self { shell, site, volumes: BTreeMap::new() };
        it.make_volume("kamino-wf", None).await;
        it
    }

    /// A new disk for a claim, or one that is made of a snapshot.
    async fn make_volume(&mut self, claim: &str, snapshot: Option<&Path>) {
        let folder = self.shell.at(&format!("volume-of-{claim}"));
        match snapshot {
            Some(snapshot) => copy(snapshot, &folder),
            None => fs::create_dir(&folder).expect("a folder"),
        }
        volume(self.shell.cluster, "kamino-wf", claim, &folder).await;
        self.volumes.insert(claim.to_owned(), folder);
    }

    fn listed(&self, kind: &str) -> Vec<Value> {
        let listed = self.shell.cluster.kubectl(&["--namespace", "kamino-wf", "get", kind, "--output", "json"]);
        let mut listed: Value = serde_json::from_str(&listed).expect("JSON");
        serde_json::from_value(listed["items"].take()).expect("a list")
    }

    /// What a snapshot controller and Azure's disk driver would do by now.
    async fn settle(&mut self) {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        for snapshot in self.listed("volumesnapshots").iter().filter(|it| it["status"].is_null()) {
            let name = text(&snapshot["metadata"]["name"]);
            let source = text(&snapshot["spec"]["source"]["persistentVolumeClaimName"]);
            assert!(self.is_quiet(), "a snapshot is taken while nobody writes");
            copy(&self.volumes[&source], &self.shell.at(&name));
            let ready = json!({ "status": { "readyToUse": true } }).to_string();
            let patch =
                ["patch", "volumesnapshot", &name, "--subresource", "status", "--type", "merge", "--patch", &ready];
            self.shell.cluster.kubectl(&[&["--namespace", "kamino-wf"][..], &patch].concat());
        }
        for claim in self.listed("persistentvolumeclaims") {
            let name = text(&claim["metadata"]["name"]);
            if !self.volumes.contains_key(&name) {
                let snapshot = self.shell.at(&text(&claim["spec"]["dataSource"]["name"]));
                self.make_volume(&name, Some(&snapshot)).await;
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.listed("pods").iter().all(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] != "controller")
    }

    /// Somebody else in Azure each time: by the Secrets of the page, the node's file, and an identity of the machine.
    async fn be_everybody(&self, of_page: &Value) {
        let machine = Machine { system: false, assigned: vec![(CLIENT.to_owned(), IDENTITY.to_owned())] };
        let service = self.site.face.metadata(machine, Duration::from_hours(1)).await.expect("a metadata service");
        let port = service.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let service_for_pods = format!("http://{}", self.shell.cluster.address_for_pods(port));
        let nobody = json!({ "azure": { "clientId": "", "tenantId": "", "projectToken": false } });
        let mut managed = nobody.clone();
        merge(
            &mut managed,
            &json!({ "azure": { "credential": "managed-identity", "identity": IDENTITY },
                "config": { "azure": { "metadataService": service_for_pods } } }),
        );
        let file = |values: Value| {
            let mut all = nobody.clone();
            merge(&mut all, &json!({ "azure": { "credential": "azure-json", "acceptNodeSecret": true } }));
            merge(&mut all, &values);
            all
        };
        let all = [
            json!({ "azure": { "credential": "client-secret", "existingSecret": "azure", "projectToken": false } }),
            file(json!({ "azure": { "existingSecret": "azure-json" } })),
            file(json!({ "azure": { "azureJson": self.shell.at("azure.json") } })),
            managed,
        ];
        for besides in all {
            println!("as {}", besides["azure"]);
            self.write_values(&[of_page], &besides);
            let upgrade = "helm upgrade kamino-wf charts/kamino-wf --namespace kamino-wf --values values.yaml --wait";
            self.shell.run(upgrade).assert(0, &["STATUS: deployed"]);
            for helm in ["helm", "helm3"] {
                let tested = self.shell.run(&format!("{helm} test kamino-wf --namespace kamino-wf --logs"));
                tested.assert(0, &["Azure credential", "the authority gives a token"]);
            }
        }
        assert!(!service.requests().is_empty(), "the machine's identity was asked for");
    }

    /// The page's own values, with what is this user's filled in, and what is this cluster's besides.
    fn write_values(&self, of_page: &[&Value], besides: &Value) {
        self.site.configure(|_| {});
        let settings = fs::read_to_string(&self.site.config).expect("settings");
        let settings: Value = serde_json::from_str(&settings).expect("JSON");
        let authority = fs::read_to_string(self.site.folder.path().join("ca.pem")).expect("the face's authority");
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "azure-ca" },
            "data": { "ca.pem": authority } });
        let mut values = values(&self.site);
        values["extraObjects"] = json!([map]);
        values["persistence"]["volumeName"] = "kamino-wf".into();
        let mut all = json!({});
        for part in of_page {
            merge(&mut all, part);
        }
        merge(&mut all, &values);
        merge(&mut all, besides);
        for key in ["scaleSet", "gallery"] {
            assert!(all["config"]["pools"][0][key].is_string(), "the page says {key}");
            all["config"]["pools"][0][key] = settings["pools"][0][key].clone();
        }
        fs::write(self.shell.at("values.yaml"), all.to_string()).expect("a file of values");
    }
}

/// The later one's values win; lists are merged place by place, as a person does who reads "as above".
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            into.resize(into.len().max(from.len()), Value::Null);
            for (into, from) in into.iter_mut().zip(from) {
                merge(into, from);
            }
        }
        (into, from) => from.clone_into(into),
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "{} can be copied", from.display());
}

/// The kind of a snapshot, as far as the page uses it, so that a wrong field is refused.
fn snapshots_of(shell: &Shell) -> String {
    let text = json!({ "type": "string" });
    let of = |properties: Value| json!({ "type": "object", "properties": properties });
    let spec = of(json!({ "volumeSnapshotClassName": text,
        "source": of(json!({ "persistentVolumeClaimName": text, "volumeSnapshotContentName": text })) }));
    let schema = of(json!({ "spec": spec, "status": of(json!({ "readyToUse": { "type": "boolean" } })) }));
    let kind = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "volumesnapshots.snapshot.storage.k8s.io",
            "annotations": { "api-approved.kubernetes.io": "unapproved, for a test" } },
        "spec": { "group": "snapshot.storage.k8s.io", "scope": "Namespaced",
            "names": { "plural": "volumesnapshots", "singular": "volumesnapshot", "kind": "VolumeSnapshot" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": schema } }] } });
    let path = shell.at("snapshots.json");
    fs::write(&path, kind.to_string()).expect("a file");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_works() {
    let Some(cluster) = shared() else { return };
    let Some(lab) = Lab::new() else { return };
    let donor = lab.base(Form::Gpt, "donor.img");
    plant(&donor, "kubeadm");
    let plan = Plan { scale: 0.002, cleaner: Cleaner::Real(donor.image.clone()), ..Plan::default() };
    let mut newcomer = Newcomer::new(cluster, plan).await;
    let page = blocks();
    let yaml: Vec<Value> = page
        .iter()
        .filter(|block| block.language == "yaml" && block.section == "Install")
        .map(|block| serde_saphyr::from_str(&block.text).expect("YAML"))
        .collect();
    let [first, schedule] = &yaml[..] else { panic!("two sets of values, not {}", yaml.len()) };
    newcomer.write_values(&[first], &json!({}));

    let (mut ran, mut left_out) = (0, BTreeSet::new());
    let mut run = String::new();
    let commands = page.iter().filter(|block| block.language == "console").flat_map(Block::commands);
    for (section, command) in commands {
        if let Some((begin, _)) = NOT_HERE.iter().find(|(begin, _)| command.starts_with(begin)) {
            left_out.insert(*begin);
            continue;
        }
        match (section.as_str(), command.split(' ').next()) {
            ("Upgrade", Some("helm")) => newcomer.write_values(&[first, schedule], &json!({})),
            ("Backup and restore", Some("helm")) => {
                // Where the page says so, after the first look at the store.
                let claim = if command.contains("holdOnStart") { "" } else { "kamino-wf-restored" };
                newcomer.write_values(&[first], &json!({ "persistence": { "existingClaim": claim } }));
            }
            _ => {}
        }
        let filled = command
            .replace("client-secret=FILE", "client-secret=client-secret")
            .replace("azure.json=FILE", "azure.json=azure.json")
            .replace(" REVISION ", " 1 ")
            .replace(" RUN ", &format!(" {run} "));
        println!("$ {filled}");
        let said = newcomer.shell.run(&filled);
        said.assert(0, &[]);
        ran += 1;
        let words = filled.split(" kamino --namespace kamino-wf ").nth(1).unwrap_or_default();
        match words.split(' ').next().unwrap_or_default() {
            "start" => said.stdout.trim().clone_into(&mut run),
            "describe" => {
                said.assert(0, &["done: new nodes are made from the new image"]);
            }
            // Also of the store that was restored.
            "list" => {
                said.assert(0, &[&run]);
            }
            _ => {}
        }
        newcomer.settle().await;
        if section == "Upgrade" {
            newcomer.be_everybody(first).await;
        }
    }
    let expected: BTreeSet<&str> = NOT_HERE.iter().map(|(begin, _)| *begin).collect();
    assert_eq!(left_out, expected, "all that can't run here is on the page");
    assert!(ran >= 20, "{ran} commands");
    assert_eq!(newcomer.listed("persistentvolumeclaims").len(), 1, "the store is gone, the restored one stays");
    until("the pods to go", async || newcomer.is_quiet()).await;
    let export = fs::read_to_string(newcomer.shell.at("store.jsonl")).expect("the export");
    assert!(export.contains(&run), "{export}");
    newcomer.site.assert_donors_untouched().await;
}

/// `az` is played by a script that remembers what it was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_asks_of_azure_is_what_az_takes() {
    let Some(cluster) = shared() else { return };
    let shell = Shell::new(cluster);
    let az = format!(
        "#!/bin/sh\nprintf '%s\\037' \"$@\" >> az.log\necho >> az.log\n\
         case \"$*\" in *'--query principalId '*) echo 77777777-8888-9999-0000-111111111111;; *'--query id '*) echo {IDENTITY};; esac\n"
    );
    fs::write(shell.at("bin/az"), az).expect("a script");
    fs::set_permissions(shell.at("bin/az"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let page: Vec<String> =
        blocks().into_iter().filter(|block| block.language == "bash").map(|block| block.text).collect();
    shell.run(&page.concat().replace("POOL", "pool1")).assert(0, &[]);

    let log = fs::read_to_string(shell.at("az.log")).expect("az was asked");
    let (mut asked, mut defined, mut assigned) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for line in log.lines() {
        let words: Vec<&str> = line.split_terminator('\u{1f}').collect();
        let options = words.iter().position(|word| word.starts_with("--")).expect("an option");
        let command = words[..options].join(" ");
        let (_, takes) = AZ.iter().find(|(known, _)| *known == command).expect("a command of az");
        for pair in words[options..].chunks(2) {
            let [option, value] = pair else { panic!("{command}: {pair:?} has no value") };
            assert!(takes.contains(option), "{command} does not take {option}");
            assert!(!value.is_empty() && !value.starts_with("--"), "{command} {option}: {value:?}");
            match *option {
                "--role-definition" => {
                    let path = value.strip_prefix('@').expect("a file");
                    let text = fs::read_to_string(shell.at(path)).expect("the role");
                    let role: Value = serde_json::from_str(&text).expect("JSON");
                    for scope in role["AssignableScopes"].as_array().expect("scopes") {
                        let scope = scope.as_str().expect("a scope");
                        assert!(!scope.contains("SUBSCRIPTION") && !scope.contains("_GROUP"), "not filled in: {scope}");
                    }
                    defined.insert(role["Name"].as_str().expect("a name").to_owned());
                }
                "--role" => {
                    assigned.insert((*value).to_owned());
                }
                "--issuer" => assert_eq!(*value, "https://kubernetes.default.svc"),
                "--identities" => assert_eq!(*value, IDENTITY),
                _ => {}
            }
        }
        asked.insert(command);
    }
    assert_eq!(asked, AZ.iter().map(|(command, _)| (*command).to_owned()).collect::<BTreeSet<_>>());
    assert_eq!((defined.len(), &defined), (6, &assigned), "each role that is made is given");
}
