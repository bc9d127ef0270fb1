//! What several test binaries share: a real control plane, an installation of the product in it, and a stand-in for the kubelet.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses its own part; a helper that cannot go on ends the test"
)]

pub mod cluster;
pub mod installed;
pub mod kubelet;
pub mod placement;
pub mod sandbox;
