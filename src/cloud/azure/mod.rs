//! The Azure adapter: the only place that names an Azure crate (docs/adr/0004-azure-crates.md).
//!
//! ```text
//! requests, instances ──> client ──> arm ──> transport ──> Azure
//!     │                      │        └────> credential ──> transport ──> Entra
//!     │                      │                    ├────────> metadata ──> the machine's metadata service
//!     │                      │                    └────────> cli_token ──> `az`
//!     │                      ├──> classify    every answer that is no success, as a CloudError; feeds the limiter
//!     │                      └──> places      in which region a call is rationed
//!     └──> bodies, project                    what is sent and what is read, as pure functions over raw JSON
//! ```
//!
//! Absent on purpose: retries (the engine has them), `.await` on a generated request builder (its pollers send the PUT
//! again and call `Updating` done), a bearer token in anything that the SDK could log.

/// `client.method(args)` of the generated client, sent once. The only form in which its builders are used.
macro_rules! sent {
    (|$client:ident| $builder:expr) => {
        &|$client: Client| $builder.send().map_ok(drop).boxed()
    };
}

mod arm;
mod bodies;
mod classify;
mod cli_token;
mod client;
mod clouds;
mod credential;
mod instances;
mod machines;
mod metadata;
mod operation;
mod places;
mod project;
mod redact;
mod requests;
mod rights;
mod settings;
mod tags;
mod transport;
mod trial;

pub use client::{AzureCloud, Heard};
pub use clouds::{Endpoints, KnownCloud};
pub(crate) use project::scale_set as scale_set_from_json;
pub use settings::{AzureSettings, AzureSetupError, Credential, MachineIdentity, Timeouts};

#[cfg(test)]
mod tests {
    /// A builder that is awaited sends its PUT again and again; one that goes through `sent!` is sent once.
    #[test]
    fn generated_builders_are_only_ever_sent() {
        for source in [include_str!("requests.rs"), include_str!("instances.rs")] {
            for (at, _) in source.match_indices("_client()") {
                let before = &source[..at];
                assert!(before.rfind("sent!(") > before.rfind(".await"), "outside sent!: {}", &source[at - 60..at]);
            }
        }
        for other in [
            include_str!("client.rs"),
            include_str!("arm.rs"),
            include_str!("operation.rs"),
            include_str!("credential.rs"),
            include_str!("machines.rs"),
            include_str!("tags.rs"),
            include_str!("trial.rs"),
        ] {
            assert!(!other.contains("_client()"), "generated builders are for requests.rs and instances.rs");
        }
    }
}
