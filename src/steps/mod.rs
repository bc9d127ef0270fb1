//! The steps, one file each. A step looks, asks once, and says how to take it back; waiting, retrying, undoing and
//! journaling are the engine's. The order is in `workflow/plan.rs`.

mod attach_copy;
mod await_node;
mod canary_node;
mod choose_helper;
mod choose_names;
mod clean_copy;
mod clean_disk;
mod copy_disk;
mod create_version;
mod delete_temporaries;
mod detach_copy;
mod drain_node;
mod ensure_definition;
mod ensure_gallery;
mod free_copy;
mod hold_node;
pub(crate) mod image_use;
mod patch_model;
pub(crate) mod plan_prune;
mod plan_scale_out;
pub(crate) mod preflight;
mod prune_versions;
mod publish_version;
pub(crate) mod rank_nodes;
mod read_model;
mod read_node;
pub(crate) mod release_node;
mod scale_out;
mod snapshot_disk;
pub(crate) mod start_vm;
mod stop_vm;
pub(crate) mod take_away;
mod verify_version;
mod withdraw_version;

#[cfg(feature = "sim")]
#[cfg(test)]
mod laws;
#[cfg(feature = "sim")]
#[cfg(test)]
mod starts;
#[cfg(feature = "sim")]
#[cfg(test)]
mod zones;

pub use attach_copy::AttachCopy;
pub use await_node::{AwaitNode, Born};
pub use canary_node::{CanaryNode, Verdict};
pub use choose_helper::{ChooseHelper, Helper};
pub use choose_names::{ChooseNames, Names};
pub use clean_copy::{CleanCopy, Cleaned};
pub use clean_disk::{CleanDisk, Proved};
pub use copy_disk::{Copied, CopyDisk};
pub use create_version::CreateVersion;
pub use delete_temporaries::DeleteTemporaries;
pub use detach_copy::DetachCopy;
pub use drain_node::{DrainNode, Drained, Input as DrainInput, Left as DrainLeft};
pub use ensure_definition::EnsureDefinition;
pub use ensure_gallery::EnsureGallery;
pub use free_copy::FreeCopy;
pub use hold_node::HoldNode;
pub use patch_model::PatchModel;
pub use plan_prune::{PlanPrune, PrunePlan};
pub use plan_scale_out::{PlanScaleOut, ScaleOutPlan};
pub use preflight::{Preflight, Preflighted};
pub use prune_versions::PruneVersions;
pub use publish_version::PublishVersion;
pub(crate) use rank_nodes::servers_time;
pub use rank_nodes::{Donor, RankNodes, Ranked};
pub use read_model::{ModelBefore, ReadModel};
pub use read_node::{NodeBefore, ReadNode};
pub use release_node::{ReleaseNode, Released};
pub use scale_out::ScaleOut;
pub use snapshot_disk::{SnapshotDisk, Snapshotted};
pub use start_vm::{StartVm, Started};
pub use stop_vm::StopVm;
pub use verify_version::{Verified, VerifyVersion};
pub use withdraw_version::{WithdrawVersion, Withdrawn};
