//! What a cleaning says about itself: versioned JSON that fits a pod's termination message.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::cleaning::Errand;
use super::error::CleanError;
use super::manifest::Manifest;

/// The kubelet cuts a termination message at 4096 bytes: a longer report would arrive as broken JSON.
pub const REPORT_SIZE_MAX: usize = 4096;

/// Where the kubelet looks for a container's last words.
pub const DEFAULT_REPORT: &str = "/dev/termination-log";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All lines of the manifest were applied and looked at again.
    Clean,
    /// Nothing was cleaned; the reason says why.
    Refused,
    /// Begun and not finished; to be run again.
    Failed,
}

impl Verdict {
    /// What the command ends with.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Refused => 3,
            Self::Failed => 8,
        }
    }
}

/// How the freed blocks were made unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discard {
    /// The disk took the discard of every free block.
    Honoured,
    /// The disk takes no discard, or only coarse ones: free space was filled with zeros. The copy has grown by that much.
    ZeroFilled,
}

/// How many files one line of the manifest took.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ItemCount {
    /// The line's pattern.
    pub path: String,
    /// Files removed or emptied by it.
    pub files: u64,
}

/// The report of one cleaning. Field names and `version` are format: the controller reads them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// As given on the command line.
    pub run: String,
    /// As given on the command line: tells this report from one of an earlier attempt.
    pub nonce: String,
    /// As given on the command line.
    pub profile: String,
    /// Which list was applied.
    pub manifest: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it did not end clean.
    pub reason: Option<String>,
    /// Where the root file system was found.
    pub root: String,
    /// Kernels in the copy's `/boot`, newest name last, at most five.
    pub kernels: Vec<String>,
    /// Containers removed.
    pub containers: u64,
    /// Images that stay cached.
    pub images: u64,
    /// Pages of containerd's databases that were zeroed.
    pub pages_zeroed: u64,
    /// Files removed or emptied by the manifest.
    pub files: u64,
    /// Bytes overwritten before their files were removed.
    pub erased_bytes: u64,
    /// How freed blocks were made unreadable.
    pub discard: Option<Discard>,
    /// Bytes that the file system discarded.
    pub trimmed_bytes: u64,
    /// Size of the root file system.
    pub size_bytes: u64,
    /// Free in it, afterwards.
    pub free_bytes: u64,
    /// From start to end.
    pub took_ms: u64,
    /// Lines that took something, in the order of the manifest; those that take least are left out when it gets too long.
    pub items: Vec<ItemCount>,
    /// Lines left out of `items`.
    pub items_left_out: u64,
}

impl Report {
    pub(super) fn begin(errand: &Errand, manifest: &Manifest) -> Self {
        Self {
            version: 1,
            run: errand.run.clone(),
            nonce: errand.nonce.clone(),
            profile: errand.profile.name().to_owned(),
            manifest: manifest.hash(),
            verdict: Verdict::Failed,
            reason: None,
            root: String::new(),
            kernels: Vec::new(),
            containers: 0,
            images: 0,
            pages_zeroed: 0,
            files: 0,
            erased_bytes: 0,
            discard: None,
            trimmed_bytes: 0,
            size_bytes: 0,
            free_bytes: 0,
            took_ms: 0,
            items: Vec::new(),
            items_left_out: 0,
        }
    }

    /// The report of a cleaning that did not end clean, so that the controller learns why.
    #[must_use]
    pub fn of_failure(errand: &Errand, manifest: &Manifest, error: &CleanError) -> Self {
        let mut report = Self::begin(errand, manifest);
        report.verdict = error.verdict();
        report.reason = Some(error.reason());
        report
    }

    /// The report as one line of JSON, at most [`REPORT_SIZE_MAX`] bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut report = self.clone();
        loop {
            let text = serde_json::to_string(&report).unwrap_or_default();
            if text.len() <= REPORT_SIZE_MAX {
                return text;
            }
            if let Some(least) = (0..report.items.len()).min_by_key(|&at| report.items[at].files) {
                report.items.remove(least);
                report.items_left_out += 1;
            } else if let Some(reason) = report.reason.take_if(|reason| reason.len() > 1) {
                let half: String = reason.chars().take(reason.chars().count() / 2).collect();
                report.reason = Some(half);
            } else {
                return text;
            }
        }
    }
}

/// Leaves the report where the kubelet picks it up.
///
/// The termination log is a file bound into the container, so it cannot be replaced by a rename: it is one write of at most
/// 4 KiB instead, and the nonce in it tells a torn or old one from this one.
///
/// # Errors
/// When the file cannot be written: say so on stderr, the exit code still tells how the cleaning ended.
pub fn write_report(path: &Path, report: &Report) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(report.to_json().as_bytes())?;
    // Not every file that a runtime binds there can be synced; the write itself has succeeded.
    let _ = file.sync_data();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Profile;

    fn errand() -> Errand {
        Errand { profile: Profile::Kubeadm, run: "0123456789ab".into(), nonce: "n".into() }
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let mut report = Report::begin(&errand(), &Manifest::for_copy(&Profile::Kubeadm));
        report.items = (0..200).map(|n| ItemCount { path: format!("/var/lib/some/long/path/{n}"), files: n }).collect();
        let text = report.to_json();
        assert!(text.len() <= REPORT_SIZE_MAX);
        let back: Report = serde_json::from_str(&text).expect("JSON of our own");
        assert_eq!(back.items.len() as u64 + back.items_left_out, 200);
        assert!(back.items.iter().any(|item| item.files == 199), "the largest stay");
    }

    #[test]
    fn a_long_reason_is_cut_on_a_character() {
        let error = CleanError::Unfit { what: "ä\"".repeat(4000) };
        let text = Report::of_failure(&errand(), &Manifest::for_copy(&Profile::Kubeadm), &error).to_json();
        assert!(text.len() <= REPORT_SIZE_MAX);
        let back: Report = serde_json::from_str(&text).expect("JSON of our own");
        assert_eq!(back.verdict, Verdict::Refused);
    }
}
