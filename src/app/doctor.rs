//! What `doctor` looks at, in order, over the real adapters.

use std::sync::Arc;

use super::{Reach, cluster, groups, place, pool_spec, uses};
use crate::{
    clock::SystemClock,
    config::Config,
    doctor::{Check, Galleries, Report, Wanted, azure, kubernetes, pool, store},
    model::DonorChoice,
    permissions::Uses,
    workflow::Ports,
};

/// Looks at everything. What is wrong is in the report.
pub async fn doctor(config: &Config) -> Report {
    let mut checks = vec![settings(config)];
    checks.extend(store(place(config)).await);
    let own = config.place.namespace.as_deref();
    let (cluster, id) = match cluster(config).await {
        Ok(cluster) => {
            let uses = config.pools.iter().map(|pool| uses(config, pool)).fold(Uses::default(), Uses::and);
            let (seen, id) = kubernetes(&cluster, own, &config.clean_namespace, &config.lease, uses).await;
            checks.extend(seen);
            (Some(cluster), id)
        }
        Err(error) => {
            let remedy = "see kubernetes.kubeconfig and kubernetes.context; in a pod, automountServiceAccountToken";
            checks.push(Check::wrong("API server", format!("{error:#}"), remedy));
            (None, None)
        }
    };
    checks.push(image(config));
    let namespace = format!(
        "{}: whether it is there is not looked at, as no right to read namespaces is asked for",
        config.clean_namespace
    );
    checks.push(Check::skipped("cleaning namespace", namespace));
    let groups = groups(config, config.pools.iter());
    let mut galleries = Galleries::new();
    for pool in &config.pools {
        let definitions = galleries.entry(pool.gallery.clone()).or_default();
        definitions.extend(pool.gallery.definition(&pool.definition));
    }
    let cloud = match Reach::azure(config) {
        Ok(reach) => {
            let (seen, answers) = azure(&reach.cloud, &groups, &galleries).await;
            checks.extend(seen);
            Some(reach.cloud).filter(|_| answers)
        }
        Err(error) => {
            let remedy = "see the settings under azure; docs/configuration.md has all of them";
            checks.push(Check::wrong("Azure credential", format!("{error:#}"), remedy));
            None
        }
    };
    let (Some(cluster), Some(id), Some(cloud)) = (cluster, id, cloud) else {
        let skipped =
            |name: &str| Check::skipped(format!("pool {name}"), "needs both an API server and Azure that answer");
        checks.extend(config.pools.iter().map(|pool| skipped(&pool.name)));
        return Report { checks };
    };
    // A pool is looked at also where nobody has said yet what cleans its copies.
    let mut config = config.clone();
    config.clean_image.get_or_insert_default();
    let clock = Arc::new(SystemClock);
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: clock.as_ref() };
    for wanted in &config.pools {
        let name = wanted.name.clone();
        match pool_spec(&config, wanted, DonorChoice::Pool, wanted.adopt, id.clone()) {
            Ok(spec) => checks.extend(pool(ports, &Wanted { name, spec, scheduled: wanted.schedule.is_some() }).await),
            Err(error) => checks.push(Check::wrong(format!("pool {name}"), format!("{error:#}"), "see its settings")),
        }
    }
    Report { checks }
}

/// They have been read, or there would be no doctor.
fn settings(config: &Config) -> Check {
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    if names.is_empty() {
        let remedy = "name at least one under pools; docs/examples/config.yaml is a whole file";
        return Check::wrong("settings", "there is no pool in them", remedy);
    }
    Check::ok("settings", format!("pools: {}", names.join(", ")))
}

fn image(config: &Config) -> Check {
    match &config.clean_image {
        Some(image) => Check::ok("cleaning image", image.clone()),
        None => Check::wrong(
            "cleaning image",
            "cleaning.image is not set",
            "name the image that cleans copies: kamino-wf's own",
        ),
    }
}
