//! A whole update whose cleaning pod a real kubelet runs, from the product's image.

use kamino_wf::sim::arm::Effect;

use crate::{
    guest::{Disk, Form, Lab},
    plant::plant,
    support::{
        node::servers::NODE,
        world::{Cleaner, Plan, Site},
    },
    with_product,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_update_with_the_cleaner_in_a_real_pod() {
    let Some(lab) = Lab::new() else { return };
    let Some(cluster) = with_product() else { return };
    let base = lab.base(Form::Gpt, "donor.img");
    let words = plant(&base, "kubeadm");
    let before = base.planted();
    assert!(words.iter().all(|word| before.contains_key(word)), "control: the donor's disk holds them all: {before:?}");
    let plan = Plan { cleaner: Cleaner::Real(base.image.clone()), ..Plan::default() };
    let site = Site::on(cluster, plan).await;

    let ended = site.binary.run(&["start", "--pool", "pool1", "--adopt", "--wait"]).await;
    ended.assert(0, &["done: new nodes are made from the new image"]);
    let writes = site.writes();
    assert!(writes.iter().all(|it| it.effect == Effect::Accepted), "{writes:#?}");
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;

    // Where it was cleaned, and that it was.
    let run = ended.stdout.lines().next().expect("the run's id").to_owned();
    let described = site.binary.run(&["describe", &run, "-o", "json"]).await.json();
    let events = described["events"].as_array().expect("events");
    let cleaned = events.iter().map(|it| &it["output"]).find(|it| it["report"].is_object()).expect("a cleaning");
    assert_eq!((&cleaned["report"]["verdict"], &cleaned["node"]), (&"clean".into(), &NODE.into()), "{cleaned}");
    assert_eq!(site.cleaning.begun(), 1, "one cleaning");
    let [image] = site.disks_seen().try_into().expect("one disk");
    let source = Disk { image, form: Form::Gpt };
    assert_eq!(source.loops(), "", "detached");
    assert!(source.planted().is_empty(), "readable in the raw source of the version: {:?}", source.planted());
}
