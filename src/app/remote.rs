//! `kubectl kamino`: the same command in the controller's pod, with the rights of whoever asks.

use std::{
    io::{stderr, stdout},
    path::PathBuf,
};

use anyhow::Result;
use tracing::debug;

use super::{Signals, UnusableAccess};
use crate::cluster::kubernetes::{Controller, Remote, RemoteError};

/// Where the controller is, as far as it was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--namespace`.
    pub namespace: Option<String>,
}

/// How a command in the pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// With this code.
    Ended(i32),
    /// It was left alone at a signal.
    Signal(i32),
}

/// Runs a command in the controller's pod. `asker` is who asks, if the API server can't say.
///
/// # Errors
/// A kubeconfig that can't be used, no controller or several, or a right that is missing, by its name.
pub async fn in_the_pod(at: Whereabouts, arguments: Vec<String>, asker: &str) -> Result<Ran> {
    let mut signals = Signals::listen()?;
    let Whereabouts { kubeconfig, context, namespace } = at;
    let remote = Remote::connect(kubeconfig, context, namespace).await.map_err(UnusableAccess)?;
    let running = async {
        let Controller { pod, ready } = remote.controller().await?;
        if !ready {
            eprintln!("pod {pod} is not ready; asking it all the same");
        }
        let by = remote.user().await?.unwrap_or_else(|| asker.to_owned());
        debug!(pod, by, "running a command");
        // First: behind a `--` it would be no flag.
        let arguments = [vec!["--by".into(), by], arguments].concat();
        let code = remote.run(&pod, &arguments, &mut stdout(), &mut stderr()).await?;
        Ok::<_, RemoteError>(Ran::Ended(code))
    };
    tokio::select! {
        biased;
        signal = signals.next() => Ok(Ran::Signal(signal)),
        ran = running => Ok(ran?),
    }
}
