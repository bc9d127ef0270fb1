//! Machines of a subscription by the image that each was made from, and whether a machine runs.

use serde_json::Value;

use super::{
    client::{AzureCloud, Call},
    project::{Unreadable, exact, needed},
    requests::SCALE_SETS_API,
};
use crate::{
    cloud::{Bucket, CallKind, CloudError, Machine, MachinePower, Power, Powered},
    model::ResourceId,
};

impl AzureCloud {
    /// Machines outside of Uniform scale sets, whose instances are in no such list.
    pub(super) async fn list_machines(&self, subscription: &str) -> Result<Vec<Machine>, CloudError> {
        let what = format!("GET virtual machines of subscription {subscription}");
        let call = Call::anywhere(what, Bucket::new(subscription, CallKind::InstanceRead));
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachines?api-version={SCALE_SETS_API}"
        );
        self.list(call, &path, machine).await
    }
}

fn machine(json: &Value) -> Result<Machine, Unreadable> {
    let id: ResourceId = ResourceId::parse(needed(json, "/id")?)?;
    Ok(Machine { id, image: exact(&json["properties"]["storageProfile"]["imageReference"]) })
}

/// An instance, as a list with `$expand=instanceView` has it.
pub(super) fn powered(json: &Value) -> Result<Powered, Unreadable> {
    Ok(Powered { id: needed(json, "/id")?.parse()?, power: power(json) })
}

/// With `$expand=instanceView`. The codes are as in `PowerState/running`; others stand beside them.
fn power(json: &Value) -> Power {
    let statuses = json["properties"]["instanceView"]["statuses"].as_array().into_iter().flatten();
    let code = statuses.filter_map(|status| status["code"].as_str()).find_map(|code| {
        let (family, word) = code.split_once('/')?;
        family.eq_ignore_ascii_case("PowerState").then(|| word.to_ascii_lowercase())
    });
    match code.as_deref() {
        Some("running") => Power::Running,
        Some("starting") => Power::Starting,
        Some("stopping") => Power::Stopping,
        Some("stopped") => Power::Stopped,
        Some("deallocating") => Power::Deallocating,
        Some("deallocated") => Power::Deallocated,
        other => Power::Other(other.unwrap_or_default().to_owned()),
    }
}

/// One instance, and which machine by its number it is.
pub(super) fn machine_power(json: &Value) -> Result<MachinePower, Unreadable> {
    Ok(MachinePower { vm_id: needed(json, "/properties/vmId")?.to_owned(), state: power(json) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cloud::ImageRef;

    const GROUP: &str =
        "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute";

    #[test]
    fn a_machine_is_off_only_when_azure_says_so() {
        let with = |statuses: Value| {
            let id = format!("{GROUP}/virtualMachineScaleSets/p/virtualMachines/3");
            powered(&json!({ "id": id, "properties": { "instanceView": { "statuses": statuses } } }))
                .expect("an instance")
                .power
        };
        let power = |code: &str| with(json!([{ "code": "ProvisioningState/succeeded" }, { "code": code }]));
        assert_eq!(power("PowerState/running"), Power::Running);
        assert!(power("PowerState/Stopped").is_off() && power("PowerState/deallocated").is_off());
        for code in ["PowerState/starting", "PowerState/stopping", "PowerState/deallocating", "PowerState/", "x"] {
            assert!(!power(code).is_off(), "{code}");
        }
        assert_eq!(with(Value::Null), Power::Other(String::new()));
    }

    #[test]
    fn a_machines_image_is_the_exact_version_where_azure_says() {
        let definition = format!("{GROUP}/galleries/g/images/d");
        let image = |reference: Value| {
            let json = json!({ "id": format!("{GROUP}/virtualMachines/v"),
                "properties": { "storageProfile": { "imageReference": reference } } });
            machine(&json).expect("a machine").image
        };
        let exact = image(json!({ "id": definition, "exactVersion": "1.2.3" }));
        assert!(matches!(exact, ImageRef::Version(id) if id.name() == "1.2.3"));
        assert!(matches!(image(json!({ "id": definition })), ImageRef::Definition(_)));
        assert!(matches!(image(Value::Null), ImageRef::Other(_)));
    }
}
