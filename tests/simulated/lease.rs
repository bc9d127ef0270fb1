//! The Lease, in the simulated world: one process at a time may change anything, whatever happens to the others.

use std::{sync::Arc, time::Duration};

use kamino_wf::{
    cluster::{Cluster, LeaseClaim},
    policy::lease::Candidate,
    sim::{Fault, Scene, Shared, SimCluster},
    store::Fence,
    workflow::{Authority, Leadership, LostLease},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const NAMESPACE: &str = "kamino-wf";
const NAME: &str = "kamino-wf";
/// How long the Lease lasts, and the time in which a standby finds out.
const TAKEN_OVER: Duration = Duration::from_secs(30 + 3);

fn world() -> Arc<Shared> {
    Shared::new(Scene::nominal().world())
}

/// A process that wants the Lease.
struct Process {
    authority: Arc<Authority>,
    leadership: Arc<Leadership>,
    life: JoinSet<LostLease>,
}

impl Process {
    fn start(world: &Arc<Shared>, pod: &str, process: &str, seen: u64) -> Self {
        let authority = Arc::new(Authority::standby(Fence(seen)));
        let leadership = Arc::new(Leadership {
            cluster: Arc::new(SimCluster::new(Arc::clone(world))),
            authority: Arc::clone(&authority),
            namespace: NAMESPACE.into(),
            name: NAME.into(),
            me: Candidate { pod: pod.into(), process: process.into() },
            seen: Fence(seen),
        });
        let holding = Arc::clone(&leadership);
        let mut life = JoinSet::new();
        life.spawn(async move { holding.hold().await });
        Self { authority, leadership, life }
    }

    /// Gone, as after SIGKILL: nothing is given back.
    fn kill(self) {
        drop(self.life);
    }

    async fn leads_within(&self, time: Duration) -> bool {
        timeout(time, self.authority.held()).await.is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_process_stands_by_until_the_first_is_gone() {
    let world = world();
    let first = Process::start(&world, "pod-a", "1", 0);
    assert!(first.leads_within(Duration::from_secs(1)).await);
    let second = Process::start(&world, "pod-b", "2", 0);
    assert!(!second.leads_within(Duration::from_hours(1)).await, "the first renews it");
    assert!(first.authority.may_change() && !second.authority.may_change());
    let epoch = first.authority.epoch();
    first.kill();
    assert!(!second.leads_within(Duration::from_secs(20)).await, "it may be alive yet");
    assert!(second.leads_within(TAKEN_OVER).await);
    assert!(second.authority.epoch() > epoch, "a new holder is a new epoch");
}

#[tokio::test(start_paused = true)]
async fn never_two_at_a_time_while_both_come_and_go_and_answers_get_lost() {
    let mut held = 0_u32;
    for seed in 0..50_u64 {
        let world = world();
        // Of all calls, every seventh or so goes wrong, each in another way.
        let faults = [Fault::LostAnswer, Fault::LostRequest, Fault::Busy, Fault::Denied, Fault::Throttled];
        for call in (1..400_u64).filter(|call| (call * 31 + seed * 17) % 7 == 0) {
            let fault = faults[usize::try_from((call + seed) % 5).expect("a small number")];
            world.world().script.insert(call, fault);
        }
        let mut newest = Fence(0);
        let mut processes: Vec<Process> = Vec::new();
        for moment in 0..400_u64 {
            let [pod, number] = [(moment + seed) % 3, moment];
            if moment % 23 == seed % 23 && processes.len() < 3 {
                processes.push(Process::start(&world, &format!("pod-{pod}-{number}"), &number.to_string(), newest.0));
            }
            if moment % 61 == seed % 61 && !processes.is_empty() {
                processes.remove(0).kill();
            }
            sleep(Duration::from_millis(900)).await;
            let leaders: Vec<Fence> =
                processes.iter().filter(|it| it.authority.may_change()).map(|it| it.authority.epoch()).collect();
            assert!(leaders.len() <= 1, "seed {seed}, moment {moment}: {leaders:?}");
            if let [epoch] = leaders[..] {
                assert!(epoch >= newest, "seed {seed}, moment {moment}: {epoch} after {newest}");
                newest = epoch;
                held += 1;
            }
        }
        for process in processes {
            process.kill();
        }
    }
    assert!(held > 5_000, "somebody leads most of the time: {held} of 20000 moments");
}

#[tokio::test(start_paused = true)]
async fn the_next_container_of_the_same_pod_does_not_wait() {
    let world = world();
    let killed = Process::start(&world, "pod-a", "1", 0);
    assert!(killed.leads_within(Duration::from_secs(1)).await);
    let epoch = killed.authority.epoch();
    killed.kill();
    let next = Process::start(&world, "pod-a", "2", epoch.0);
    assert!(next.leads_within(Duration::from_secs(1)).await);
    assert!(next.authority.epoch() > epoch);
}

#[tokio::test(start_paused = true)]
async fn who_gives_it_back_is_not_waited_for() {
    let world = world();
    let mut first = Process::start(&world, "pod-a", "1", 0);
    assert!(first.leads_within(Duration::from_secs(1)).await);
    first.life.abort_all();
    first.leadership.release().await;
    assert!(!first.authority.may_change());
    let second = Process::start(&world, "pod-b", "2", 0);
    assert!(second.leads_within(Duration::from_secs(1)).await);
    assert!(second.authority.epoch() > first.authority.epoch());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_does_not_take_the_store_back_in_time() {
    let world = world();
    let first = Process::start(&world, "pod-a", "1", 41);
    assert!(first.leads_within(Duration::from_secs(1)).await);
    assert_eq!(first.authority.epoch(), Fence(42), "newer than what the store has seen");
    world.world().leases.clear();
    sleep(Duration::from_secs(10)).await;
    assert!(first.authority.may_change());
    assert_eq!(first.authority.epoch(), Fence(43));
}

#[tokio::test(start_paused = true)]
async fn who_loses_it_says_to_whom_and_ends() {
    let world = world();
    let mut process = Process::start(&world, "pod-a", "1", 0);
    assert!(process.leads_within(Duration::from_secs(1)).await);
    let other = SimCluster::new(Arc::clone(&world));
    let lease = other.lease(NAMESPACE, NAME).await.expect("an answer").expect("a Lease");
    let want = LeaseClaim { holder: "somebody_else".into(), duration: Duration::from_secs(30), epoch: 9, taken: true };
    other.write_lease(NAMESPACE, NAME, &want, Some(&lease.version)).await.expect("written");
    let lost = timeout(Duration::from_secs(15), process.life.join_next()).await.expect("it ends");
    let lost = lost.expect("a process").expect("in order");
    assert!(lost.to_string().starts_with("lost the Lease kamino-wf/kamino-wf to somebody_else"), "{lost}");
    assert!(!process.authority.may_change());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_stops_changes_and_nothing_else() {
    let world = world();
    let mut process = Process::start(&world, "pod-a", "1", 0);
    assert!(process.leads_within(Duration::from_secs(1)).await);
    let calls = world.world().calls;
    for call in calls + 1..calls + 40 {
        world.world().script.insert(call, Fault::LostRequest);
    }
    let gone = Instant::now();
    while process.authority.may_change() {
        sleep(Duration::from_secs(1)).await;
    }
    assert!((15..=25).contains(&gone.elapsed().as_secs()), "{:?}", gone.elapsed());
    assert!(process.life.try_join_next().is_none(), "nobody else has it");
    sleep(Duration::from_mins(2)).await;
    assert!(process.authority.may_change(), "it is back");
    assert_eq!(process.authority.epoch(), Fence(1), "nobody else had it");
}
