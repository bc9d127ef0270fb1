//! Names and ids, parsed once at the edge and trusted from there on. No I/O.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not what it should be: which kind of thing, what was given, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {kind}: {expected}")]
pub struct BadName {
    /// The kind of thing that was to be named.
    pub kind: &'static str,
    /// What was given, cut to 200 characters.
    pub given: String,
    /// What a good one looks like.
    pub expected: &'static str,
}

impl BadName {
    fn new(kind: &'static str, given: &str, expected: &'static str) -> Self {
        Self { kind, given: given.chars().take(200).collect(), expected }
    }
}

/// One update of one scale set's image. A uuid v7, so that ids sort by the time at which the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// The last twelve hex digits: what people see and what goes into names. It is the id's random tail.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 12..].to_owned()
    }
}

impl RunId {
    /// When the run began, to a millisecond: its id says so.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A resource of Azure by its full id, kept as it was written.
///
/// Azure and Kubernetes write the same id in differing case (kubernetes/kubernetes#71994), so equality, order and hash go
/// by the lower-case form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceId {
    text: String,
}

const RESOURCE_ID: &str =
    "expected /subscriptions/<uuid>/resourceGroups/<group>/providers/<provider>/<type>/<name>[/<type>/<name>]";

impl ResourceId {
    /// Parses an id, segment by segment.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::new("Azure resource id", text, RESOURCE_ID);
        let parts: Vec<&str> = text.strip_prefix('/').ok_or_else(bad)?.split('/').collect();
        let well_formed = parts.len() >= 8
            && parts.len().is_multiple_of(2)
            && parts[0].eq_ignore_ascii_case("subscriptions")
            && Uuid::try_parse(parts[1]).is_ok()
            && parts[2].eq_ignore_ascii_case("resourceGroups")
            && parts[4].eq_ignore_ascii_case("providers")
            && text.len() <= 1024
            && parts.iter().all(|part| is_segment(part));
        if well_formed { Ok(Self { text: text.to_owned() }) } else { Err(bad()) }
    }

    fn part(&self, index: usize) -> &str {
        self.text.split('/').nth(index + 1).unwrap_or_default()
    }

    /// The subscription's id.
    #[must_use]
    pub fn subscription(&self) -> &str {
        self.part(1)
    }

    /// The resource group's name.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        self.part(3)
    }

    /// The types from provider to leaf, as in `Microsoft.Compute/galleries/images`.
    #[must_use]
    pub fn kind(&self) -> String {
        let mut kind = self.part(5).to_owned();
        for part in self.text.split('/').skip(7).step_by(2) {
            kind.push('/');
            kind.push_str(part);
        }
        kind
    }

    /// The names from the outermost to the leaf, as in `["prototypes", "pool1", "2026.11.24000"]`.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.text.split('/').skip(8).step_by(2).collect()
    }

    /// The leaf's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }

    /// The id as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id in lower case: a key for maps and records.
    #[must_use]
    pub fn key(&self) -> String {
        self.text.to_ascii_lowercase()
    }

    /// The resource group that holds the resource.
    #[must_use]
    pub fn group(&self) -> GroupId {
        GroupId { subscription: self.subscription().to_owned(), name: self.resource_group().to_owned() }
    }
}

/// A resource group, as it was written; the same group in any case.
#[derive(Debug, Clone)]
pub struct GroupId {
    subscription: String,
    name: String,
}

impl GroupId {
    /// Its subscription's id.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In lower case: the beginning of the [`ResourceId::key`] of all that is in it.
    #[must_use]
    pub fn key(&self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}
impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/subscriptions/{}/resourceGroups/{}", self.subscription, self.name)
    }
}
impl PartialEq for GroupId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for GroupId {}
impl PartialOrd for GroupId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for GroupId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// No empty, relative or encoded segment: ids go into URLs.
fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '(' | ')'))
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
    }
}
impl Eq for ResourceId {}
impl PartialOrd for ResourceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ResourceId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
impl Hash for ResourceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
impl TryFrom<String> for ResourceId {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}
impl FromStr for ResourceId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::parse(text)
    }
}
impl From<ResourceId> for String {
    fn from(id: ResourceId) -> Self {
        id.text
    }
}
impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A [`ResourceId`] of one kind.
macro_rules! resource_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(ResourceId);

        impl $name {
            /// The types from provider to leaf.
            pub const KIND: &'static str = $kind;

            /// Parses an id and checks its kind.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let id = ResourceId::parse(text)?;
                if id.kind().eq_ignore_ascii_case(Self::KIND) {
                    Ok(Self(id))
                } else {
                    Err(BadName::new(stringify!($name), text, $expected))
                }
            }

            /// Builds an id from its subscription, resource group and the names along its kind.
            pub fn new(subscription: &str, resource_group: &str, names: &[&str]) -> Result<Self, BadName> {
                let mut kinds = Self::KIND.split('/');
                let provider = kinds.next().unwrap_or_default();
                let mut text = format!("/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/{provider}");
                for (kind, name) in kinds.zip(names) {
                    text.push_str(&format!("/{kind}/{name}"));
                }
                Self::parse(&text)
            }

            /// The untyped id.
            #[must_use]
            pub fn id(&self) -> &ResourceId {
                &self.0
            }
        }

        impl std::ops::Deref for $name {
            type Target = ResourceId;
            fn deref(&self) -> &ResourceId {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.text
            }
        }
        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::parse(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

mod instance;
mod profile;

pub use instance::{InstanceId, MachineId, Members, UniformId};
pub use profile::{Bootstrap, Containerd, CustomProfile, Line, Profile};

resource_id!(
    /// A VM scale set: the pool whose image is kept fresh.
    ScaleSetId,
    "Microsoft.Compute/virtualMachineScaleSets",
    "expected the id of a VM scale set, .../Microsoft.Compute/virtualMachineScaleSets/<name>"
);
resource_id!(
    /// A managed disk.
    DiskId,
    "Microsoft.Compute/disks",
    "expected the id of a managed disk, .../Microsoft.Compute/disks/<name>"
);
resource_id!(
    /// A snapshot of a managed disk.
    SnapshotId,
    "Microsoft.Compute/snapshots",
    "expected the id of a snapshot, .../Microsoft.Compute/snapshots/<name>"
);
resource_id!(
    /// A compute gallery.
    GalleryId,
    "Microsoft.Compute/galleries",
    "expected the id of a compute gallery, .../Microsoft.Compute/galleries/<name>"
);
resource_id!(
    /// An image definition in a gallery. A scale set that refers to one takes its newest published version.
    DefinitionId,
    "Microsoft.Compute/galleries/images",
    "expected the id of an image definition, .../galleries/<gallery>/images/<name>"
);
resource_id!(
    /// A version of an image definition.
    VersionId,
    "Microsoft.Compute/galleries/images/versions",
    "expected the id of an image version, .../galleries/<gallery>/images/<name>/versions/<version>"
);

impl DefinitionId {
    /// The gallery that holds the definition.
    #[must_use]
    pub fn gallery(&self) -> GalleryId {
        GalleryId(ResourceId { text: parent(self.as_str()) })
    }

    /// A version of this definition.
    #[must_use]
    pub fn version(&self, name: &VersionName) -> VersionId {
        VersionId(ResourceId { text: format!("{self}/versions/{name}") })
    }
}
impl GalleryId {
    /// A definition in this gallery.
    pub fn definition(&self, name: &str) -> Result<DefinitionId, BadName> {
        DefinitionId::parse(&format!("{self}/images/{name}"))
    }
}
impl VersionId {
    /// The definition that the version belongs to.
    #[must_use]
    pub fn definition(&self) -> DefinitionId {
        DefinitionId(ResourceId { text: parent(self.as_str()) })
    }

    /// The version's name as an ordered triple.
    pub fn version(&self) -> Result<VersionName, BadName> {
        VersionName::parse(self.name())
    }
}

/// The id without its last type and name.
fn parent(text: &str) -> String {
    text.rsplitn(3, '/').last().unwrap_or_default().to_owned()
}

/// A gallery version: three 32-bit integers, compared as numbers, kept as written.
///
/// Ours are `YYYY.MM.DDNNN`. They sort after the Python tool's `YYYY.MM.DD` of the same day, as integers and as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionName {
    text: String,
    numbers: [u32; 3],
}

impl VersionName {
    /// Parses `1.2.3`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::new("image version", text, "expected three numbers below 2^32, as in 2026.11.24000");
        let mut numbers = [0; 3];
        let mut parts = text.split('.');
        for number in &mut numbers {
            let part = parts.next().ok_or_else(bad)?;
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            *number = part.parse().map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self { text: text.to_owned(), numbers }) }
    }

    /// The name for a new version: the larger of today's first and the highest ever used plus one, so that no clock
    /// can break the order (I12).
    #[must_use]
    pub fn next(today: jiff::civil::Date, highest: Option<&Self>) -> Self {
        let year = u32::from(today.year().unsigned_abs());
        let month = u32::from(today.month().unsigned_abs());
        let serial = u32::from(today.day().unsigned_abs()) * 1000;
        let mut numbers = [year, month, serial];
        if let Some(highest) = highest
            && highest.numbers >= numbers
        {
            numbers = highest.numbers;
            numbers[2] += 1;
        }
        Self { text: format!("{:04}.{:02}.{:05}", numbers[0], numbers[1], numbers[2]), numbers }
    }
}
impl PartialEq for VersionName {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}
impl Eq for VersionName {}
impl PartialOrd for VersionName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for VersionName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}
impl TryFrom<String> for VersionName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}
impl From<VersionName> for String {
    fn from(name: VersionName) -> Self {
        name.text
    }
}
impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A Kubernetes node by name: a DNS subdomain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Parses a node's name.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = (1..=253).contains(&text.len())
            && text.chars().all(|c| edge(c) || c == '-' || c == '.')
            && text.starts_with(edge)
            && text.ends_with(edge);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName::new("node name", text, "expected lower-case letters, digits, '-' and '.', at most 253"))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl TryFrom<String> for NodeName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::parse(&text)
    }
}
impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}
impl FromStr for NodeName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::parse(text)
    }
}
impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An Azure region. Azure answers `West US` where it was asked for `westus`: compared without spaces and case.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Region(pub String);

impl Region {
    /// The form without spaces and in lower case, as in `westus`.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase()
    }
}
impl PartialEq for Region {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Region {}
impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the copy comes to the pod that cleans it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// By the disk driver of the cluster, to whatever node the scheduler likes.
    #[default]
    Csi,
    /// By a call to an instance of the pool that is not the donor's: for clusters without that driver.
    Instance {
        /// Where a node shows the disk behind a logical unit number, which stands for `{lun}`.
        path: String,
    },
}

impl Attach {
    /// The disk driver does it.
    #[must_use]
    pub fn is_csi(&self) -> bool {
        *self == Self::Csi
    }
}

/// How the donor's disk is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capture {
    /// A snapshot of the running donor's disk; a copy of it is cleaned. The donor is only read.
    Live,
    /// The donor is drained, cleaned, and off while its disk is snapshotted; then it is given back.
    Stop,
}

/// What becomes of the kubelet's own credential on a donor that is cleaned in place (`capture: stop`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// It stays on the disk, and so in the image, until a copy boots and its guard takes it away.
    #[default]
    Keep,
    /// It goes; the donor asks for a new one at its next boot, with a token that is dead before the image is published.
    Rebootstrap,
}

impl Credential {
    /// It stays.
    #[must_use]
    pub fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// Which node to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DonorChoice {
    /// The best of the pool.
    Pool,
    /// This one, or none.
    Node(NodeName),
}

/// Who can do something about a failed call, and hence what the engine does next. Each port's error has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wait as told, durably. Not an attempt.
    Throttled {
        /// No request to the same bucket before this has passed.
        retry_after: Duration,
    },
    /// Nobody knows whether it happened: look.
    Uncertain,
    /// Another operation holds the thing: wait and look.
    Busy,
    /// Somebody else changed the thing: read it again and build the request anew.
    Preempted,
    /// A right, a lock or a policy forbids it: ask a person.
    Denied,
    /// The thing that the run is about has vanished: undo.
    Gone,
    /// The request can never succeed as it is: undo.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUB: &str = "00000000-1111-2222-3333-444444444444";

    #[test]
    fn ids_are_equal_in_any_case_and_keep_their_own() {
        let written = format!(
            "/subscriptions/{SUB}/resourceGroups/K8S/providers/Microsoft.Compute/virtualMachineScaleSets/pool1"
        );
        let id = ScaleSetId::parse(&written).expect("a good id");
        assert_eq!(id, ScaleSetId::parse(&written.to_lowercase()).expect("the same id"));
        assert_eq!(id.as_str(), written);
        assert_eq!((id.resource_group(), id.name()), ("K8S", "pool1"));
    }

    #[test]
    fn an_id_of_another_kind_is_refused_by_name() {
        let disk = format!("/subscriptions/{SUB}/resourceGroups/g/providers/Microsoft.Compute/disks/d");
        let error = ScaleSetId::parse(&disk).expect_err("a disk is no scale set");
        assert!(error.to_string().contains("ScaleSetId"), "{error}");
    }

    #[test]
    fn ids_that_would_escape_a_path_are_refused() {
        for name in ["..", ".", "", "a/b", "a?b", "a#b", "a%2fb", "a b"] {
            let text = format!("/subscriptions/{SUB}/resourceGroups/g/providers/Microsoft.Compute/disks/{name}");
            assert!(DiskId::parse(&text).is_err(), "{name:?} must not pass");
        }
    }

    #[test]
    fn children_know_their_parents() {
        let gallery = GalleryId::new(SUB, "g", &["protos"]).expect("a gallery");
        let version = gallery
            .definition("pool1")
            .expect("a definition")
            .version(&VersionName::parse("1.2.3").expect("a version"));
        assert_eq!(version.definition().gallery(), gallery);
        assert_eq!(version.names(), ["protos", "pool1", "1.2.3"]);
    }

    #[test]
    fn a_new_version_is_above_all_that_were_ever_used() {
        let today = jiff::civil::date(2026, 1, 5);
        let parse = |text| VersionName::parse(text).expect("a version");
        assert_eq!(VersionName::next(today, None).to_string(), "2026.01.05000");
        assert_eq!(VersionName::next(today, Some(&parse("2026.01.05"))).to_string(), "2026.01.05000");
        assert_eq!(VersionName::next(today, Some(&parse("2026.01.05000"))).to_string(), "2026.01.05001");
        // The clock went back a year: the order holds all the same.
        assert_eq!(VersionName::next(today, Some(&parse("2027.03.09004"))).to_string(), "2027.03.09005");
    }

    #[test]
    fn versions_compare_as_numbers() {
        let parse = |text| VersionName::parse(text).expect("a version");
        assert!(parse("2026.2.1") < parse("2026.10.1"));
        assert_eq!(parse("2026.02.1"), parse("2026.2.01"));
        for bad in ["1.2", "1.2.3.4", "1.2.x", "1..3", "1.2.4294967296", "+1.2.3"] {
            assert!(VersionName::parse(bad).is_err(), "{bad} must not pass");
        }
    }

    #[test]
    fn regions_compare_without_spaces_and_case() {
        assert_eq!(Region("West US".into()), Region("westus".into()));
    }
}
