//! Tokens of whoever is logged in to the Azure CLI: for a person's laptop, never for a pod.
//!
//! `azure_identity` says which command and reads what it prints; it runs it anew for every request and leaves it running when
//! nobody waits any more. So the process is ours to start and to end, and its token is kept for a while.

use std::{
    ffi::OsStr,
    fmt, io,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use azure_core_v1::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_identity::{AzureCliCredential, AzureCliCredentialOptions, Executor};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Command, sync::Mutex, time::Instant};

/// `az` gives out tokens that are good for five minutes at least (MSAL renews them before): so long a kept one is good, and a
/// logout or another account is noticed.
const KEPT: Duration = Duration::from_mins(4);

/// The credential.
pub(super) struct CliToken {
    az: Arc<AzureCliCredential>,
    kept: Mutex<Option<(Instant, AccessToken)>>,
}

impl fmt::Debug for CliToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CliToken").finish_non_exhaustive()
    }
}

impl CliToken {
    pub(super) fn new(tenant: Option<String>, subscription: Option<String>) -> azure_core_v1::Result<Arc<Self>> {
        let options = AzureCliCredentialOptions { tenant_id: tenant, subscription, executor: Some(Arc::new(Shell)) };
        Ok(Arc::new(Self { az: AzureCliCredential::new(Some(options))?, kept: Mutex::default() }))
    }
}

#[async_trait]
impl TokenCredential for CliToken {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core_v1::Result<AccessToken> {
        // Held while `az` runs: one process at a time, and the others take its token.
        let mut kept = self.kept.lock().await;
        if let Some((since, token)) = kept.as_ref()
            && since.elapsed() < KEPT
        {
            return Ok(token.clone());
        }
        let token = self.az.get_token(scopes, options).await?;
        *kept = Some((Instant::now(), token.clone()));
        Ok(token)
    }
}

/// Starts `az` in a process group of its own, so that all of it ends when nobody waits any more.
#[derive(Debug)]
struct Shell;

#[async_trait]
impl Executor for Shell {
    async fn run(&self, program: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let output = child.wait_with_output().await?;
        group.0 = None;
        Ok(output)
    }
}

/// Ends a process group when dropped, unless it was waited for.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_is_ended_with_its_children() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("pid");
        let script = format!("cd /bin && sleep 60 & echo $! > {}; wait", file.display());
        let args = [OsStr::new("-c"), OsStr::new(&script)];
        let running = Shell.run(OsStr::new("/bin/sh"), &args);
        tokio::time::timeout(Duration::from_millis(500), running).await.expect_err("it sleeps");
        let pid = std::fs::read_to_string(&file).expect("a pid");
        let gone = async {
            loop {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
                if stat.is_empty() || stat.contains(") Z ") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the child is gone");
    }

    #[tokio::test]
    async fn output_and_exit_code_are_the_commands() {
        let args = [OsStr::new("-c"), OsStr::new("echo out; echo err >&2; exit 3")];
        let output = Shell.run(OsStr::new("/bin/sh"), &args).await.expect("a shell");
        assert_eq!(
            (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
    }
}
