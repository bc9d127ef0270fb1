//! The store as lines of text, to whoever asks for a copy of it: a run at a time, at the pace at which it is read.

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tracing::warn;

use crate::store::{Export, StoreError};

/// Sends an export. One that fails in the middle ends without its last line, and the connection with an error.
pub(super) fn sent(export: Export) -> Response {
    let lines = stream::try_unfold(export, async |mut export| match export.next().await {
        Ok(text) => Ok(text.map(|text| (Bytes::from(text), export))),
        Err(error) => {
            warn!(%error, "an export ended early");
            Err::<_, StoreError>(error)
        }
    });
    let kind = HeaderValue::from_static("application/jsonl");
    ([(CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response()
}
