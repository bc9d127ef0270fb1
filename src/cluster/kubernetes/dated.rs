//! A list together with the server's own time: what is young or old is measured by one clock, and that is not ours.

use http::Request as HttpRequest;
use http_body_util::{BodyExt as _, Limited};
use jiff::{Timestamp, fmt::rfc2822};
use k8s_openapi::ClusterResourceScope;
use kube::{
    Resource,
    api::ListParams,
    client::Body,
    core::{ObjectList, Request, Status},
};
use serde::de::DeserializeOwned;

use super::{KubernetesCluster, error::from_status};
use crate::cluster::ClusterError;

/// Five thousand nodes, the most that Kubernetes is built for, are 50 MB.
const LIST_BYTES_MAX: usize = 256 << 20;

/// What an answer's `Date` says, to a second. Something on the way may have taken it away.
pub(super) fn date(headers: &http::HeaderMap) -> Option<Timestamp> {
    let text = headers.get("date")?.to_str().ok()?;
    rfc2822::parse(text).ok().map(|date| date.timestamp())
}

impl KubernetesCluster {
    /// All objects of a kind that belongs to no namespace, and the time at which the server answered.
    pub(super) async fn dated_list<K>(&self, what: &str) -> Result<(Vec<K>, Option<Timestamp>), ClusterError>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
    {
        let uncertain = |detail: String| ClusterError::Uncertain { what: what.to_owned(), detail };
        let request = Request::new(K::url_path(&(), None)).list(&ListParams::default());
        let (head, bytes) = request.map_err(|error| uncertain(error.to_string()))?.into_parts();
        let request = HttpRequest::from_parts(head, Body::from(bytes));
        let answer = async {
            let (head, body) = self.client.send(request).await?.into_parts();
            Ok((head, Limited::new(body, LIST_BYTES_MAX).collect().await))
        };
        let (head, body) = self.call(what, answer).await?;
        let body = body.map_err(|error| uncertain(error.to_string()))?.to_bytes();
        if !head.status.is_success() {
            let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
            status.code = head.status.as_u16();
            return Err(from_status(what.to_owned(), &status));
        }
        let list: ObjectList<K> = serde_json::from_slice(&body).map_err(|error| uncertain(error.to_string()))?;
        Ok((list.items, date(&head.headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_and_what_is_none_is_not() {
        let of = |text: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("date", http::HeaderValue::from_static(text));
            date(&headers)
        };
        assert_eq!(of("Tue, 24 Nov 2026 12:00:00 GMT"), "2026-11-24T12:00:00Z".parse().ok());
        assert_eq!(of("noon"), None);
        assert_eq!(date(&http::HeaderMap::new()), None);
    }
}
