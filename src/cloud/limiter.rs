//! What is known of throttling: no request to a bucket before its time, over restarts too; and slower while a ration runs low.
//!
//! Each early request re-arms Azure's limit, and the buckets are shared with everybody who uses the subscription, the
//! cluster's autoscaler among them [Microsoft's "Troubleshoot throttling errors"].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ration::{Left, Rations};

/// The kinds of call that Azure rations apart from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum CallKind {
    ScaleSetRead,
    ScaleSetList,
    ScaleSetWrite,
    InstanceRead,
    InstanceWrite,
    DiskRead,
    DiskWrite,
    SnapshotRead,
    SnapshotWrite,
    GalleryRead,
    GalleryWrite,
    VersionRead,
    VersionWrite,
    OperationRead,
}

impl CallKind {
    /// Every kind: what closes when the subscription as a whole is throttled.
    pub const ALL: [Self; 14] = [
        Self::ScaleSetRead,
        Self::ScaleSetList,
        Self::ScaleSetWrite,
        Self::InstanceRead,
        Self::InstanceWrite,
        Self::DiskRead,
        Self::DiskWrite,
        Self::SnapshotRead,
        Self::SnapshotWrite,
        Self::GalleryRead,
        Self::GalleryWrite,
        Self::VersionRead,
        Self::VersionWrite,
        Self::OperationRead,
    ];

    /// Whether calls of this kind change something.
    #[must_use]
    pub fn is_write(self) -> bool {
        match self {
            Self::ScaleSetWrite
            | Self::InstanceWrite
            | Self::DiskWrite
            | Self::SnapshotWrite
            | Self::GalleryWrite
            | Self::VersionWrite => true,
            Self::ScaleSetRead
            | Self::ScaleSetList
            | Self::InstanceRead
            | Self::DiskRead
            | Self::SnapshotRead
            | Self::GalleryRead
            | Self::VersionRead
            | Self::OperationRead => false,
        }
    }

    /// The name in records, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScaleSetRead => "scale-set-read",
            Self::ScaleSetList => "scale-set-list",
            Self::ScaleSetWrite => "scale-set-write",
            Self::InstanceRead => "instance-read",
            Self::InstanceWrite => "instance-write",
            Self::DiskRead => "disk-read",
            Self::DiskWrite => "disk-write",
            Self::SnapshotRead => "snapshot-read",
            Self::SnapshotWrite => "snapshot-write",
            Self::GalleryRead => "gallery-read",
            Self::GalleryWrite => "gallery-write",
            Self::VersionRead => "version-read",
            Self::VersionWrite => "version-write",
            Self::OperationRead => "operation-read",
        }
    }
}

/// One ration: a kind of call in a region of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bucket {
    /// The subscription's id.
    pub subscription: String,
    /// The kind of call.
    pub kind: CallKind,
    /// As in `westeurope`. Not every call is known to be about one, and then it may be any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl Bucket {
    /// Of a call that may be about any region.
    #[must_use]
    pub fn new(subscription: impl Into<String>, kind: CallKind) -> Self {
        Self { subscription: subscription.into(), kind, region: None }
    }

    /// In this region, if one is known.
    #[must_use]
    pub fn at(self, region: Option<String>) -> Self {
        Self { region, ..self }
    }

    /// Whether the two may be one and the same to Azure.
    fn may_be(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.subscription == other.subscription
            && (self.region.is_none() || other.region.is_none() || self.region == other.region)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of subscription {}", self.kind.as_str(), self.subscription)?;
        self.region.as_ref().map_or(Ok(()), |region| write!(f, " in {region}"))
    }
}

/// The buckets that are closed, and until when. Filled from the store at start, read before every request.
#[derive(Debug, Default)]
pub struct Limiter {
    closed: Mutex<BTreeMap<Bucket, Timestamp>>,
    rations: Mutex<Rations>,
}

impl Limiter {
    /// A limiter that remembers `closed`.
    #[must_use]
    pub fn new(closed: impl IntoIterator<Item = (Bucket, Timestamp)>) -> Self {
        Self { closed: Mutex::new(closed.into_iter().collect()), rations: Mutex::default() }
    }

    /// How long a request to `bucket` has to wait; `None` when it may go out.
    #[must_use]
    pub fn wait(&self, bucket: &Bucket, now: Timestamp) -> Option<Duration> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let until = closed.iter().filter(|(known, _)| known.may_be(bucket)).map(|(_, until)| until).max()?;
        Duration::try_from(until.duration_since(now)).ok().filter(|wait| !wait.is_zero())
    }

    /// Notes that Azure closed `bucket`. Never opens one earlier than was known.
    pub fn close(&self, bucket: &Bucket, until: Timestamp) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = closed.entry(bucket.clone()).or_insert(until);
        *known = (*known).max(until);
    }

    /// Notes what a reply to a request of `bucket` says of what is left.
    pub fn learn(&self, bucket: &Bucket, left: &[Left], now: Timestamp) {
        self.rations.lock().unwrap_or_else(PoisonError::into_inner).learn(bucket, left, now);
    }

    /// How long a request to an open `bucket` waits for its place in the queue, which is then taken: nothing while there is
    /// plenty left.
    ///
    /// # Errors
    /// The wait, when the queue is too long to stand in.
    pub fn pace(&self, bucket: &Bucket, now: Timestamp) -> Result<Duration, Duration> {
        self.rations.lock().unwrap_or_else(PoisonError::into_inner).reserve(bucket, now)
    }

    /// The buckets that are closed at `now`, and until when; forgets the others.
    pub fn closed(&self, now: Timestamp) -> Vec<(Bucket, Timestamp)> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.retain(|_, until| *until > now);
        closed.iter().map(|(bucket, until)| (bucket.clone(), *until)).collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    #[test]
    fn a_closed_bucket_opens_at_its_time_and_never_earlier() {
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().expect("a time");
        let bucket = Bucket::new("s", CallKind::VersionRead);
        let limiter = Limiter::default();
        limiter.close(&bucket, start + 1200.seconds());
        limiter.close(&bucket, start + 10.seconds());
        assert_eq!(limiter.wait(&bucket, start), Some(Duration::from_mins(20)));
        let again = Limiter::new(limiter.closed(start + 600.seconds()));
        assert_eq!(again.wait(&bucket, start + 1199.seconds()), Some(Duration::from_secs(1)));
        assert_eq!(again.wait(&bucket, start + 1200.seconds()), None);
        assert!(again.closed(start + 1200.seconds()).is_empty());
    }

    #[test]
    fn other_buckets_stay_open() {
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().expect("a time");
        let bucket = |kind| Bucket::new("s", kind);
        let limiter = Limiter::default();
        limiter.close(&bucket(CallKind::VersionRead), start + 1200.seconds());
        assert_eq!(limiter.wait(&bucket(CallKind::VersionWrite), start), None);
    }

    #[test]
    fn other_regions_stay_open_and_whoever_may_be_in_any_waits() {
        let start: Timestamp = "2026-11-24T10:00:00Z".parse().expect("a time");
        let bucket = |region: Option<&str>| Bucket::new("s", CallKind::DiskRead).at(region.map(str::to_owned));
        let (west, north, any) = (bucket(Some("westeurope")), bucket(Some("northeurope")), bucket(None));
        let limiter = Limiter::default();
        limiter.close(&west, start + 60.seconds());
        assert_eq!(limiter.wait(&west, start), Some(Duration::from_mins(1)));
        assert_eq!(limiter.wait(&north, start), None);
        assert_eq!(limiter.wait(&any, start), Some(Duration::from_mins(1)), "it may be in that one");
        limiter.close(&any, start + 30.seconds());
        assert_eq!(limiter.wait(&north, start), Some(Duration::from_secs(30)), "it may have been that one");
        assert_eq!(limiter.wait(&west, start), Some(Duration::from_mins(1)));
        // What a release without regions has stored is known of all of them.
        let stored = serde_json::json!({ "subscription": "s", "kind": "disk-read" });
        assert_eq!(serde_json::from_value::<Bucket>(stored.clone()).expect("it reads"), any);
        assert_eq!(serde_json::to_value(&any).expect("it writes"), stored);
    }
}
