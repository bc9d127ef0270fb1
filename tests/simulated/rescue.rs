//! `rescue` on the simulated world: the process dies for good while a donor is out of service, and the store with it. The claim on the
//! node is enough to bring it back, as it was found.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kamino_wf::{
    cloud::{Limiter, Power},
    cluster::{Node, Rival},
    model::{Capture, Credential, NodeName, RunId},
    policy::{
        obligations::{CLAIM, Claim, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED},
        rescue::Owner,
    },
    sim::{Scene, Session, Shared, SimCloud, SimCluster, Stop},
    workflow::{
        Pace, Ports,
        rescue::{Ask, RescueError, Rescued, Way, carry_out, look},
    },
};

use crate::harness::{self, simulated};

fn scene() -> Scene {
    Scene { capture: Capture::Stop, ..Scene::nominal() }
}

/// Its node is to come back with a new credential.
fn renewed() -> Scene {
    Scene { credential: Credential::Rebootstrap, ..scene() }
}

/// A world, and a person with nothing but the binary.
struct Person {
    shared: Arc<Shared>,
    cloud: SimCloud,
    cluster: SimCluster,
    owner: Owner,
}

impl Person {
    fn before(shared: &Arc<Shared>) -> Self {
        let cloud = SimCloud::new(Arc::clone(shared), Arc::new(Limiter::default()));
        Self { shared: Arc::clone(shared), cloud, cluster: SimCluster::new(Arc::clone(shared)), owner: Owner::Unknown }
    }

    async fn look(&self, node: &NodeName, despite: Option<&str>, kamino: bool) -> Result<Way, RescueError> {
        let clock = self.shared.world().clock.clone();
        let ports = Ports { cloud: &self.cloud, cluster: &self.cluster, clock: &clock };
        let owner = |_: RunId| self.owner;
        look(ports, &Ask { node, owner: &owner, despite, kamino }).await
    }

    async fn rescue(&self, node: &NodeName, despite: Option<&str>, kamino: bool) -> Result<Rescued, RescueError> {
        let way = self.look(node, despite, kamino).await?;
        let clock = self.shared.world().clock.clone();
        let ports = Ports { cloud: &self.cloud, cluster: &self.cluster, clock: &clock };
        carry_out(ports, Pace::default(), &way, &|_| {}).await
    }

    fn node(&self, name: &NodeName) -> Node {
        let world = self.shared.world();
        let node = world.nodes.iter().find(|node| node.name == *name).expect("the node");
        world.shown(node)
    }

    /// The node with a claim, and the claim.
    fn claimed(&self) -> Option<(NodeName, Claim)> {
        let world = self.shared.world();
        world.nodes.iter().find_map(|node| Some((node.name.clone(), Claim::on(node).expect("readable")?)))
    }

    fn key_of(&self, name: &NodeName) -> String {
        let world = self.shared.world();
        let found = world.machines.iter().find(|(_, machine)| machine.node == *name);
        found.expect("the machine").0.clone()
    }

    fn power(&self, name: &NodeName) -> Power {
        let key = self.key_of(name);
        self.shared.world().machines[&key].power.clone()
    }

    /// In service, as it was found, and stays so.
    async fn assert_back(&self, name: &NodeName, before: &Node, what: &str) {
        for later in [Duration::ZERO, Duration::from_hours(1)] {
            tokio::time::sleep(later).await;
            // Time passes for the world when it is asked.
            self.look(name, None, false).await.expect("a look");
            let node = self.node(name);
            assert_eq!((self.power(name), node.ready), (Power::Running, true), "{what}, {later:?} later");
            assert!(node.taints.is_empty(), "{what}: {:?}", node.taints);
            assert_eq!((node.unschedulable, &node.annotations), (before.unschedulable, &before.annotations), "{what}");
            let world = self.shared.world();
            assert!(world.donor_pods.is_empty() && world.proofs.is_empty(), "{what}: a pod or a proof is left");
            assert!(world.anchors.is_empty(), "{what}: a token lives");
            assert!(world.harm.is_empty(), "{what}: {:?}", world.harm);
        }
    }
}

/// The nominal update until so many points were passed, and then nobody for good.
async fn interrupted(point: u64) -> Person {
    interrupted_in(scene(), point).await
}

async fn interrupted_in(scene: Scene, point: u64) -> Person {
    let session = Session::new(scene);
    session.run(Stop::AtPoint(point)).await.expect("the store never fails");
    Person::before(&session.shared)
}

/// The points of the nominal update from the write that takes the donor out of service to the one that gives it back, each with
/// its name.
fn points(scene: &Scene) -> Vec<(u64, String)> {
    let all = harness::points(scene);
    let writes = |place: &String| place == "change_node: in";
    let last = all.iter().rposition(writes).expect("it is given back");
    let all = (1_u64..).zip(all).take(last).skip_while(|(_, place)| place != "change_node: in");
    all.collect()
}

/// The first point at which the donor's machine is off, as a snapshot is of one that is.
fn off() -> u64 {
    let snapshot = points(&scene()).into_iter().find(|(_, place)| place == "begin_snapshot: before");
    snapshot.expect("a snapshot is taken").0
}

fn before() -> BTreeMap<NodeName, Node> {
    simulated(async || scene().world().nodes.into_iter().map(|node| (node.name.clone(), node)).collect())
}

#[test]
fn from_any_point_of_a_run_whose_store_is_gone_its_donor_comes_back_as_it_was_found() {
    comes_back_from_anywhere(&scene());
}

#[test]
fn from_any_point_it_comes_back_with_a_new_credential_and_its_token_is_dead() {
    comes_back_from_anywhere(&renewed());
}

fn comes_back_from_anywhere(scene: &Scene) {
    let (places, before) = (points(scene), before());
    let mut states: BTreeMap<String, u32> = BTreeMap::new();
    for (number, place) in &places {
        simulated(async || {
            let person = interrupted_in(scene.clone(), *number).await;
            let (name, claim) = person.claimed().expect("it is out of service");
            let what = format!("point {number} ({place})");
            *states.entry(format!("{:?}", person.power(&name))).or_default() += 1;
            let kept = person.rescue(&name, None, false).await.expect_err("the run may be alive");
            assert_eq!(kept.code(), Some("KW0608"), "{what}: {kept}");
            let rescued = person.rescue(&name, Some(&claim.run.short()), false).await;
            assert!(matches!(rescued, Ok(Rescued::Back)), "{what}: {rescued:?}");
            person.assert_back(&name, &before[&name], &what).await;
            let again = person.rescue(&name, None, false).await;
            assert!(matches!(again, Ok(Rescued::Nothing)), "{what}: {again:?}");
        });
    }
    println!("{states:?}");
    for power in ["Running", "Stopping", "Stopped", "Starting"] {
        assert!(states.get(power).is_some_and(|times| *times > 0), "no point with the machine {power}: {states:?}");
    }
}

#[test]
fn a_rescue_that_is_killed_is_asked_again_and_one_that_is_late_needs_no_name() {
    let (off, before) = (off(), before());
    // Long enough for every stage of it to be interrupted once.
    for seconds in (0..600).step_by(20) {
        simulated(async || {
            let person = interrupted(off).await;
            let (name, claim) = person.claimed().expect("a claim");
            let run = claim.run.short();
            let killed = person.rescue(&name, Some(&run), false);
            let _ = tokio::time::timeout(Duration::from_secs(seconds), killed).await;
            tokio::time::sleep(Duration::from_hours(1)).await;
            let rescued = person.rescue(&name, None, false).await;
            assert!(matches!(rescued, Ok(Rescued::Back | Rescued::Nothing)), "after {seconds} s: {rescued:?}");
            person.assert_back(&name, &before[&name], &format!("killed after {seconds} s")).await;
        });
    }
}

#[test]
fn what_would_be_done_is_said_and_nothing_is_done() {
    let off = off();
    simulated(async || {
        let mut person = interrupted(off).await;
        let (name, claim) = person.claimed().expect("a claim");
        let asked = person.shared.world().accepted.len();
        let way = person.look(&name, Some(&claim.run.short()), false).await.expect("a way");
        let words = way.words().join("\n");
        for said in [
            &format!("start instance {}", claim.instance.name()),
            "uncordon it",
            &format!("take off annotation {SCALE_DOWN_DISABLED}"),
            &format!("set annotation {DO_NOT_DISRUPT} to \"false\""),
            &format!("take off annotation {CLAIM}"),
        ] {
            assert!(words.contains(said), "no {said:?} in {words}");
        }
        assert_eq!(person.shared.world().accepted.len(), asked, "nothing was asked for");
        person.owner = Owner::Open;
        tokio::time::sleep(Duration::from_hours(9)).await;
        let kept = person.look(&name, None, false).await.expect_err("its run is open");
        assert!(kept.to_string().contains("kamino-wf cancel"), "{kept}");
        let nobody = NodeName::parse("nobody").expect("a name");
        let error = person.look(&nobody, None, false).await.expect_err("no such node");
        assert!(matches!(error, RescueError::NoSuchNode(_)), "{error}");
    });
}

#[test]
fn a_machine_that_was_made_anew_is_not_started() {
    let off = off();
    simulated(async || {
        let person = interrupted(off).await;
        let (name, claim) = person.claimed().expect("a claim");
        let key = person.key_of(&name);
        person.shared.world().instances.get_mut(&key).expect("the instance").vm_id = "another".into();
        let rescued = person.rescue(&name, Some(&claim.run.short()), false).await;
        assert!(matches!(rescued, Ok(Rescued::Lost)), "{rescued:?}");
        assert_eq!(person.shared.world().machines[&key].power, Power::Stopped);
        assert!(person.claimed().is_some(), "nobody says that it is in service");
    });
}

/// The states that the Python tool leaves when it is killed: each comes back when a person says that it is one.
#[test]
fn nodes_that_the_python_tool_left_come_back_on_request() {
    let rows = [
        ("held", false, true, false),
        ("cordoned", true, true, false),
        ("off", true, true, true),
        ("uncordoned while it is off", false, true, true),
    ];
    for (what, cordoned, held, off) in rows {
        simulated(async || {
            let shared = Shared::new(scene().world());
            let person = Person::before(&shared);
            let name = person.shared.world().nodes[1].name.clone();
            let before = person.node(&name);
            let key = person.key_of(&name);
            {
                let mut world = shared.world();
                let node = world.nodes.iter_mut().find(|node| node.name == name).expect("the node");
                node.unschedulable = cordoned;
                if held {
                    node.annotations.insert(SCALE_DOWN_DISABLED.into(), "true".into());
                }
                if off {
                    world.turn(&key, false);
                }
            }
            tokio::time::sleep(Duration::from_mins(30)).await;
            let error = person.rescue(&name, None, false).await.expect_err("nobody's signature");
            assert_eq!(error.code(), Some("KW0610"), "{what}: {error}");
            let rival = Rival {
                kind: "Job".into(),
                namespace: "default".into(),
                name: "kamino".into(),
                live: true,
                state: "running".into(),
            };
            shared.world().rivals.push(rival);
            let error = person.rescue(&name, None, true).await.expect_err("the tool is at it");
            assert_eq!(error.code(), Some("KW0503"), "{what}: {error}");
            shared.world().rivals.clear();
            let rescued = person.rescue(&name, None, true).await;
            assert!(matches!(rescued, Ok(Rescued::Back)), "{what}: {rescued:?}");
            shared.world().harm.clear();
            person.assert_back(&name, &before, what).await;
        });
    }
}

#[test]
fn a_cordon_without_the_tools_annotation_stays() {
    simulated(async || {
        let shared = Shared::new(scene().world());
        let person = Person::before(&shared);
        let name = person.shared.world().nodes[1].name.clone();
        let key = person.key_of(&name);
        {
            let mut world = shared.world();
            world.nodes.iter_mut().find(|node| node.name == name).expect("the node").unschedulable = true;
            world.turn(&key, false);
        }
        tokio::time::sleep(Duration::from_mins(30)).await;
        let rescued = person.rescue(&name, None, true).await;
        assert!(matches!(rescued, Ok(Rescued::Back)), "{rescued:?}");
        assert_eq!(shared.world().machines[&key].power, Power::Running);
        assert!(person.node(&name).unschedulable, "somebody else's");
    });
}
