//! Draining a node of the simulated world: every kind of pod, every answer to an eviction, crashed at every point, whatever goes
//! wrong with each call, and by seed.

mod driver;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kamino_wf::{
    cluster::{Controller, PodLife},
    model::Class,
    policy::drain::{DrainPolicy, Force},
    sim::{Again, Fault, Tenant},
};

use crate::harness::simulated;
use driver::Kit;

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn force(kit: &Kit) -> Force {
    Force { by: "jane@example.com".into(), why: "the pool is for tests".into(), until: kit.now() + minutes(60) }
}

fn owner(kind: &str, name: &str) -> Controller {
    Controller { group: "apps".into(), kind: kind.into(), name: name.into() }
}

/// What runs on most nodes: what goes without a word, and what stays.
fn usual(kit: &Kit) {
    for number in 0..3 {
        kit.add(&format!("shop/web-{number}"), "web", |_| {});
    }
    kit.add("shop/db-0", "db", |tenant| {
        tenant.again = Again::SameName;
        tenant.pod.controller = Some(owner("StatefulSet", "db"));
    });
    kit.add("kube-system/log-1", "log", |tenant| tenant.pod.controller = Some(owner("DaemonSet", "log")));
    kit.shared.world().tenants.add_daemon_set("kube-system", "log");
    kit.add("kube-system/proxy-n", "proxy", |tenant| {
        tenant.pod.mirror = true;
        tenant.pod.controller = Some(Controller { group: String::new(), kind: "Node".into(), name: "n".into() });
    });
    kit.add("batch/done", "done", |tenant| {
        tenant.pod.life = PodLife::Finished;
        tenant.pod.controller = None;
        tenant.pod.empty_dir = true;
        tenant.again = Again::Never;
    });
}

#[test]
fn what_can_go_goes_and_what_would_be_back_stays() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
        let drained = driven.end.as_ref().expect("drained");
        let left: Vec<&str> = drained.left.iter().map(|left| left.pod.as_str()).collect();
        assert_eq!(left, ["kube-system/log-1", "kube-system/proxy-n"], "{driven:#?}");
        assert_eq!(kit.departed(), ["batch/done", "shop/db-0", "shop/web-0", "shop/web-1", "shop/web-2"]);
        let back = kit.shared.world().tenants.pod("shop/db-0").expect("it came back elsewhere under its name");
        assert_ne!(back.node.as_deref(), Some(kit.node.as_str()));
        kit.check(&driven);
        assert_eq!(driven.asked, 1, "five at a time: {driven:#?}");
    });
}

type Change = fn(&mut Tenant);

#[test]
fn what_needs_a_decision_is_named_and_nothing_is_evicted_before() {
    let table: &[(&str, Change, bool)] = &[
        ("no controller", |tenant| tenant.pod.controller = None, true),
        ("emptyDir", |tenant| tenant.pod.empty_dir = true, false),
        ("does not exist", |tenant| tenant.pod.controller = Some(owner("DaemonSet", "orphaned")), true),
        (
            "safe-to-evict=false",
            |tenant| {
                let name = "cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned();
                tenant.pod.annotations.insert(name, "false".into());
            },
            true,
        ),
        (
            "do-not-disrupt=true",
            |tenant| drop(tenant.pod.annotations.insert("karpenter.sh/do-not-disrupt".into(), "true".into())),
            true,
        ),
    ];
    for (words, change, forcible) in table {
        simulated(async || {
            let kit = Kit::new(0);
            usual(&kit);
            kit.add("shop/odd", "odd", change);
            let error = kit.drive(&kit.input(DrainPolicy::default())).await.end.expect_err(words);
            assert_eq!((error.code, error.class), ("KW0411", Class::Refused), "{error}");
            assert!(error.text.contains("shop/odd") && error.text.contains(words), "{error}");
            assert_eq!(kit.departed(), Vec::<String>::new(), "{words}: nothing goes before");

            let policy = if *forcible {
                DrainPolicy { force: Some(force(&kit)), ..DrainPolicy::default() }
            } else {
                DrainPolicy { delete_empty_dir: true, ..DrainPolicy::default() }
            };
            let driven = kit.drive(&kit.input(policy)).await;
            assert!(driven.end.is_ok(), "{words}: {driven:#?}");
            assert!(kit.departed().contains(&"shop/odd".to_owned()), "{words}");
            kit.check(&driven);
        });
    }
}

/// Two pods of one application on the node and one elsewhere; two have to be there at all times.
fn guarded(kit: &Kit, least: i32) {
    let now = kit.now();
    for number in 0..2 {
        kit.add(&format!("shop/db-{number}"), "db", |tenant| tenant.again = Again::SameName);
    }
    kit.add("shop/db-2", "db", |tenant| tenant.pod.node = Some("pool1-vmss000002".into()));
    kit.shared.world().tenants.add_budget("shop", "db", "db", least, now);
}

#[test]
fn a_budget_is_waited_for_and_never_broken() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        guarded(&kit, 2);
        let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
        assert!(driven.end.is_ok(), "{driven:#?}");
        assert!(kit.departed().contains(&"shop/db-0".to_owned()) && kit.departed().contains(&"shop/db-1".to_owned()));
        let seen = driven.looks.join("\n");
        assert!(seen.contains("budget shop/db has had no room since "), "{seen}");
        kit.check(&driven);
    });
}

#[test]
fn a_budget_that_never_has_room_ends_the_drain_in_time_and_in_few_records() {
    simulated(async || {
        let kit = Kit::new(0);
        guarded(&kit, 3);
        let policy = DrainPolicy { deadline_seconds: 3600, ..DrainPolicy::default() };
        let driven = kit.drive(&kit.input(policy)).await;
        let error = driven.end.as_ref().expect_err("no room");
        assert_eq!((error.code, error.class), ("KW0410", Class::Refused), "{error}");
        assert!(error.text.contains("not empty 60 min after its cordon"), "{error}");
        assert!(error.text.contains("shop/db-0 (budget shop/db has had no room since 20"), "{error}");
        assert!(driven.said.iter().all(|said| said.contains("is blocked by budget shop/db: ")), "{:?}", driven.said);
        assert_eq!(kit.departed(), Vec::<String>::new());
        // An hour: the server's word is asked for and recorded, and not all the time.
        assert!((40..=120).contains(&driven.asked), "{} requests", driven.asked);
        kit.check(&driven);
    });
}

#[test]
fn room_that_appears_is_used() {
    simulated(async || {
        let kit = Kit::new(0);
        guarded(&kit, 3);
        let (later, shared) = (kit.now() + minutes(7), kit.shared.clone());
        let driven = kit
            .drive_while(&kit.input(DrainPolicy::default()), move |now| {
                if now >= later {
                    shared.world().tenants.change_budget("shop/db", 1, now);
                }
            })
            .await;
        assert!(driven.end.is_ok(), "{driven:#?}");
        kit.check(&driven);
    });
}

#[test]
fn more_than_one_budget_is_refused_and_a_named_person_may_decide_otherwise() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        guarded(&kit, 1);
        let now = kit.now();
        kit.shared.world().tenants.add_budget("shop", "other", "db", 1, now);
        let error = kit.drive(&kit.input(DrainPolicy::default())).await.end.expect_err("two budgets");
        assert_eq!(error.code, "KW0411");
        assert!(error.text.contains("more than one budget (shop/db and shop/other)"), "{error}");
        assert_eq!(kit.departed(), Vec::<String>::new());
        let driven = kit.drive(&kit.input(DrainPolicy { force: Some(force(&kit)), ..DrainPolicy::default() })).await;
        assert!(driven.end.is_ok(), "{driven:#?}");
        let said = driven.said.join("\n");
        assert!(
            said.contains("deleted shop/db-0 past shop/db and shop/other: force by jane@example.com, the pool is for"),
            "{said}"
        );
        let world = kit.shared.world();
        let deleted: Vec<&str> = world
            .tenants
            .departures
            .iter()
            .filter(|departure| departure.deleted)
            .map(|departure| departure.pod.name.as_str())
            .collect();
        assert_eq!(deleted, ["db-0", "db-1"], "nothing else was deleted: evictions do for the rest");
    });
}

#[test]
fn a_namespace_that_is_being_deleted_takes_its_pods_along() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        let at = kit.now() + minutes(4);
        kit.shared.world().tenants.end_namespace("shop", at);
        let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
        assert!(driven.end.is_ok(), "{driven:#?}");
        assert!(driven.said.iter().any(|said| said.contains("goes with its namespace")), "{:?}", driven.said);
        assert_eq!(kit.departed(), ["batch/done"], "the namespace took the others");
        kit.check(&driven);
    });
}

#[test]
fn what_an_admission_rule_denies_is_asked_for_again() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        kit.add("shop/kafka-0", "kafka", |tenant| tenant.denials = 6);
        let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
        assert!(driven.end.is_ok(), "{driven:#?}");
        let held = "shop/kafka-0 is held by an admission rule: admission webhook";
        let times = driven.said.iter().filter(|said| said.contains(held)).count();
        assert_eq!((times, driven.asked), (6, 7), "{driven:#?}");
        assert!(driven.took >= minutes(3), "half a minute between: {:?}", driven.took);
        kit.check(&driven);
    });
}

#[test]
fn a_pod_takes_its_own_grace_and_a_finalizer_its_time() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        kit.add("shop/slow", "slow", |tenant| {
            (tenant.grace, tenant.takes) = (minutes(8), minutes(8));
        });
        let until = kit.now() + minutes(5);
        kit.add("shop/held", "held", |tenant| {
            tenant.pod.finalizers = vec!["example.com/backup".into()];
            tenant.held_until = Some(until);
        });
        let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
        assert!(driven.end.is_ok(), "{driven:#?}");
        assert!(driven.looks.iter().any(|text| text.contains("held by finalizer example.com/backup")), "{driven:#?}");
        assert!(driven.asked <= 4, "a pod that goes is not asked again: {driven:#?}");
        kit.check(&driven);
    });
}

#[test]
fn a_finalizer_that_sticks_ends_the_drain_or_is_left_behind_as_the_settings_say() {
    for skip in [None, Some(120)] {
        simulated(async || {
            let kit = Kit::new(0);
            let never = kit.now() + minutes(10_000);
            kit.add("shop/held", "held", |tenant| {
                tenant.pod.finalizers = vec!["example.com/backup".into()];
                tenant.held_until = Some(never);
            });
            let policy = DrainPolicy { skip_terminating_after_seconds: skip, ..DrainPolicy::default() };
            let driven = kit.drive(&kit.input(policy)).await;
            match (&driven.end, skip) {
                (Err(error), None) => {
                    assert_eq!(error.code, "KW0410");
                    assert!(error.text.contains("1 stuck: shop/held") && error.text.contains("finalizer"), "{error}");
                }
                (Ok(drained), Some(_)) => assert!(drained.left[0].why.contains("not waited for"), "{drained:?}"),
                (end, _) => unreachable!("{end:?} with {skip:?}"),
            }
            kit.check(&driven);
        });
    }
}

#[test]
fn what_ignores_the_cordon_does_not_keep_the_drain_going_for_ever() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        kit.add("shop/back", "back", |tenant| tenant.again = Again::Here);
        let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
        let drained = driven.end.as_ref().expect("drained");
        let stays = drained.left.iter().find(|left| left.pod.starts_with("shop/back")).expect("it stays");
        assert!(stays.why.contains("does not mind cordons"), "{stays:?}");
        kit.check(&driven);
    });
}

#[test]
fn another_runs_cleaner_is_waited_for() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        kit.add("kamino-wf-clean/kwf-pool2", "x", |tenant| {
            tenant.pod.controller = None;
            tenant.pod.labels.insert("kamino-wf.io/run".into(), "0123456789ab".into());
            tenant.again = Again::Never;
        });
        let (later, shared) = (kit.now() + minutes(3), kit.shared.clone());
        let driven = kit
            .drive_while(&kit.input(DrainPolicy::default()), move |now| {
                if now >= later
                    && let Some(cleaner) = shared.world().tenants.get_mut("kamino-wf-clean/kwf-pool2")
                {
                    cleaner.pod.life = PodLife::Finished;
                }
            })
            .await;
        assert!(driven.end.is_ok() && driven.took >= minutes(3), "{driven:#?}");
        kit.check(&driven);
    });
}

#[test]
fn a_node_that_dies_is_replaced_or_uncordoned_is_drained_no_further() {
    type Strike = fn(&Kit);
    let table: [(&str, &str, Strike); 4] = [
        ("KW0410", "is not Ready", |kit| kit.change_node(|node| node.ready = false)),
        ("KW0412", "another one by now", |kit| kit.change_node(|node| node.uid = "another".into())),
        ("KW0412", "does not exist any more", |kit| {
            let name = kit.node.clone();
            kit.shared.world().nodes.retain(|node| node.name != name);
        }),
        ("KW0413", "uncordoned by somebody", |kit| kit.change_node(|node| node.unschedulable = false)),
    ];
    for (code, words, strike) in table {
        simulated(async || {
            let kit = Kit::new(0);
            usual(&kit);
            kit.add("shop/slow", "slow", |tenant| (tenant.grace, tenant.takes) = (minutes(5), minutes(5)));
            let later = kit.now() + minutes(2);
            let (mut struck, inner) = (false, kit.clone());
            let driven = kit
                .drive_while(&kit.input(DrainPolicy { max_parallel: 1, ..DrainPolicy::default() }), move |now| {
                    if now >= later && !struck {
                        struck = true;
                        strike(&inner);
                    }
                })
                .await;
            let error = driven.end.as_ref().expect_err(words);
            assert_eq!(error.code, code, "{error}");
            let said = format!("{}\n{}", error.text, driven.looks.join("\n"));
            assert!(said.contains(words), "{said}");
            kit.check(&driven);
        });
    }
}

/// A day on which every pod that can be is there, and nothing needs a decision.
fn busy(kit: &Kit) {
    usual(kit);
    guarded(kit, 2);
    kit.add("shop/kafka-0", "kafka", |tenant| tenant.denials = 2);
    kit.add("shop/slow", "slow", |tenant| (tenant.grace, tenant.takes) = (minutes(2), minutes(2)));
    let at = kit.now() + minutes(1);
    kit.add("old/app", "app", |_| {});
    kit.shared.world().tenants.end_namespace("old", at);
}

#[test]
fn a_crash_at_any_point_changes_nothing() {
    let places = simulated(async || {
        let kit = Kit::new(0);
        busy(&kit);
        kit.shared.crash.trace();
        assert!(kit.drive(&kit.input(DrainPolicy::default())).await.end.is_ok());
        kit.shared.crash.traced()
    });
    println!("{} crash points in the drain", places.len());
    assert!(places.len() > 200, "only {} points", places.len());
    for (point, place) in (1_u64..).zip(&places) {
        simulated(async || {
            let kit = Kit::new(0);
            busy(&kit);
            kit.shared.crash.arm(point);
            let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
            let what = format!("crash at point {point} ({place})");
            assert_eq!(driven.crashes, 1, "{what}");
            assert!(driven.end.is_ok(), "{what}: {driven:#?}");
            kit.check(&driven);
        });
    }
}

#[test]
fn whatever_goes_wrong_with_one_call_the_node_is_drained() {
    let calls = simulated(async || {
        let kit = Kit::new(0);
        busy(&kit);
        assert!(kit.drive(&kit.input(DrainPolicy::default())).await.end.is_ok());
        kit.shared.world().calls
    });
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for call in 1..=calls {
        for fault in [Fault::Throttled, Fault::LostRequest, Fault::LostAnswer, Fault::Busy, Fault::Denied] {
            simulated(async || {
                let kit = Kit::new(0);
                busy(&kit);
                kit.shared.world().script.insert(call, fault);
                let driven = kit.drive(&kit.input(DrainPolicy::default())).await;
                let what = format!("call {call}, {fault:?}: {driven:#?}");
                match (&driven.end, fault) {
                    (Ok(_), Fault::Throttled | Fault::LostRequest | Fault::LostAnswer | Fault::Busy) => {
                        *ends.entry("drained").or_default() += 1;
                    }
                    // A right is missing: said at once, whatever else was asked for at the same time.
                    (Err(error), Fault::Denied) if error.class == Class::Denied => {
                        *ends.entry("denied").or_default() += 1;
                    }
                    _ => unreachable!("{what}"),
                }
                kit.check(&driven);
            });
        }
    }
    println!("{calls} calls: {ends:?}");
    assert_eq!(ends.len(), 2, "{ends:?}");
}

#[test]
fn by_seed_no_budget_is_broken_and_nothing_goes_that_should_stay() {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..300 {
        simulated(async || {
            let kit = Kit::new(seed);
            kit.by_chance();
            if seed % 3 == 1 {
                kit.shared.crash.arm_both(7 + seed % 60, 40 + seed % 97);
            }
            let forced = seed % 4 == 3;
            let policy = DrainPolicy {
                max_parallel: u32::try_from(1 + seed % 6).expect("small"),
                delete_empty_dir: seed % 2 == 0,
                force: forced.then(|| force(&kit)),
                ..DrainPolicy::default()
            };
            let driven = kit.drive(&kit.input(policy)).await;
            let end = match &driven.end {
                Ok(_) => "drained".to_owned(),
                Err(error) => error.code.to_owned(),
            };
            assert!(["drained", "KW0410", "KW0411"].contains(&end.as_str()), "seed {seed}: {driven:#?}");
            *ends.entry(end).or_default() += 1;
            kit.check(&driven);
        });
    }
    println!("300 seeds ended: {ends:?}");
    assert_eq!(ends.len(), 3, "each end must have been seen: {ends:?}");
}

/// What changes between the list and the request: another pod by the same name, one that has moved, one that was marked.
#[test]
fn a_pod_is_read_once_more_right_before_it_is_asked() {
    let table: [(&str, &str, Change, &str); 5] = [
        ("pod: before", "another", |tenant| tenant.pod.id.uid = "another".into(), "not to be asked any more"),
        ("pod: before", "moved", |tenant| tenant.pod.node = Some("elsewhere".into()), "not to be asked any more"),
        (
            "pod: before",
            "marked",
            |tenant| drop(tenant.pod.annotations.insert("karpenter.sh/do-not-disrupt".into(), "true".into())),
            "not to be asked any more",
        ),
        // Between that look and the request, the uid is what protects it.
        ("evict: before", "another", |tenant| tenant.pod.id.uid = "another".into(), "was gone already"),
        ("evict: before", "the same", |_| {}, "evicted shop/web-0"),
    ];
    for (place, what, change, said) in table {
        let point = simulated(async || {
            let kit = Kit::new(0);
            kit.add("shop/web-0", "web", |_| {});
            kit.shared.crash.trace();
            kit.act(&kit.input(DrainPolicy::default())).await.expect("an answer");
            let traced = kit.shared.crash.traced();
            traced.iter().position(|name| name == place).expect("the place") + 1
        });
        simulated(async || {
            let kit = Kit::new(0);
            kit.add("shop/web-0", "web", |_| {});
            let input = kit.input(DrainPolicy::default());
            let meanwhile = async {
                kit.shared.crash.reached(point as u64).await;
                change(kit.shared.world().tenants.get_mut("shop/web-0").expect("the pod"));
            };
            let (accepted, ()) = tokio::join!(kit.act(&input), meanwhile);
            let words = accepted.expect("an answer").said.expect("words");
            assert!(words.contains(said), "{place}, {what}: {words}");
            assert_eq!(kit.departed().len(), usize::from(said.starts_with("evicted")), "{place}, {what}");
        });
    }
}

#[test]
fn a_look_and_an_undo_change_nothing() {
    simulated(async || {
        let kit = Kit::new(0);
        busy(&kit);
        let input = kit.input(DrainPolicy::default());
        for _ in 0..2 {
            kit.look(&input).await.expect("a look");
            assert!(kit.undo(&input).await, "pods that went do not come back, and nothing else is this step's");
        }
        assert_eq!(kit.departed(), Vec::<String>::new());
        assert!(kit.drive(&input).await.end.is_ok());
        let before = kit.departed();
        assert!(kit.undo(&input).await);
        assert_eq!(kit.departed(), before);
    });
}

/// The world's own checks bite: what no drain may do is noticed.
#[test]
fn a_drain_that_would_do_harm_is_caught() {
    simulated(async || {
        let kit = Kit::new(0);
        usual(&kit);
        let now = kit.now();
        let id = kit.shared.world().tenants.pod("kube-system/log-1").expect("a pod").id;
        kit.shared.world().tenants.evict(&id, now);
        assert_eq!(kit.shared.world().tenants.wrongs.len(), 1);
        let kit = Kit::new(0);
        kit.add("shop/web-0", "web", |tenant| tenant.pod.node = Some("pool1-vmss000002".into()));
        let id = kit.shared.world().tenants.pod("shop/web-0").expect("a pod").id;
        kit.shared.world().tenants.evict(&id, now);
        kit.add("shop/web-1", "web", |_| {});
        let id = kit.shared.world().tenants.pod("shop/web-1").expect("a pod").id;
        kit.shared.world().tenants.delete(&id, now);
        let world = kit.shared.world();
        let violations = world.tenants.violations(&kit.node, false);
        assert!(violations[0].contains("not on pool1-vmss000000") && violations[1].contains("nobody has decided"));
        assert_eq!(world.tenants.violations(&kit.node, true).len(), 1, "{violations:#?}");
    });
}
