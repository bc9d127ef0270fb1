//! What `credential: rebootstrap` needs besides `capture: stop`: an empty Secret, to whose life the token for a donor's new
//! credential is bound. The token itself is asked for by the cleaner on the donor, and neither the controller nor anything that it
//! writes ever holds it.

use super::{ClusterRight, ClusterScope, Part};

/// The `ServiceAccount` of the cleaning namespace for which tokens are asked: it may ask for the client certificate of a node, as
/// any new node may, and nothing else. No pod runs as it.
pub const BOOTSTRAP: &str = "kamino-wf-bootstrap";

const fn secrets(verb: &'static str, steps: &'static [&'static str], why: &'static str) -> ClusterRight {
    let scope = ClusterScope::Cleaning;
    ClusterRight { group: "", resource: "secrets", names: &[], verb, scope, part: Part::Rebootstrap, steps, why }
}

/// The rights in the cluster. Not to read a Secret: whether one is there is seen by a dry run of making it.
pub const REBOOTSTRAP: &[ClusterRight] = &[
    secrets(
        "create",
        &["CleanDisk", "ReleaseNode", "rescue"],
        "make the empty Secret that the token for the donor's new credential is bound to; and see whether it is there, by a dry run",
    ),
    secrets(
        "delete",
        &["ReleaseNode", "rescue"],
        "delete it when the donor is back: from then on the token is worth nothing",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_read() {
        let verbs: Vec<_> = REBOOTSTRAP.iter().map(|right| (right.resource, right.verb, right.scope)).collect();
        let expected = ["create", "delete"].map(|verb| ("secrets", verb, ClusterScope::Cleaning));
        assert_eq!(verbs, expected);
    }
}
