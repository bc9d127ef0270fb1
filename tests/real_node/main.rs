//! Pods on a real kubelet, containerd and runc: the product's image, its cleaning pods and whole updates.
//!
//! All tests share one cluster. Needs root, loop devices, Debian's containerd, runc and CNI plugins, and the binaries of
//! `scripts/cluster-binaries`; says `SKIPPED:` where they are missing, and fails there in CI.
#![cfg(feature = "sim")]

#[path = "../support/mod.rs"]
mod support;

mod pods;
