//! Tokens: where they come from, where they go, and where they must not be seen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kamino_wf::{
    cloud::{Cloud as _, CloudError, Operation, OperationState, azure::Credential},
    model::Class,
    sim::arm::{Fault, Injection},
};
use serde_json::json;

use super::stage::Stage;

/// A host that must never hear from us.
pub(crate) async fn stranger() -> (String, Arc<AtomicUsize>, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, calls, task)
}

#[tokio::test]
async fn no_token_goes_to_a_host_that_a_reply_names() {
    let stage = Stage::new().await;
    let (address, calls, _task) = stranger().await;
    let foreign = |method, part: &str| Injection {
        method,
        path_part: part.into(),
        times: 1,
        fault: Fault::ForeignHost(address.clone()),
    };
    stage.face.plant(foreign("GET", "/versions"));
    let error = stage.azure.versions(&stage.definition()).await.expect_err("not followed");
    assert!(matches!(&error, CloudError::Refused { code, .. } if code == "ForeignHost"), "{error}");
    assert!(error.to_string().contains(&address), "says which host: {error}");

    stage.face.plant(foreign("PUT", "/snapshots/"));
    let accepted = stage.azure.begin_snapshot(&stage.snapshot()).await.expect("accepted all the same");
    assert_eq!(accepted.operation, None, "the resource decides");
    let stored = Operation(format!("https://{address}/subscriptions/s/operations/1?s=sig"));
    assert_eq!(stage.azure.operation(&stored).await.expect("an answer"), OperationState::Unknown);
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nobody called");
}

#[tokio::test]
async fn the_token_file_is_read_again_for_every_token() {
    // Tokens of a minute: azure_identity fetches a new one in the last five, that is, for each call.
    let stage = Stage::with(|options| options.token_lifetime = Duration::from_mins(1), |_| {}).await;
    stage.azure.disk(&stage.donor_disk()).await.expect("a look");
    std::fs::write(&stage.token_file, "second-federated-token").expect("a token file");
    stage.azure.disk(&stage.donor_disk()).await.expect("a look");
    assert_eq!(stage.face.assertions(), ["first-federated-token", "second-federated-token"]);

    std::fs::remove_file(&stage.token_file).expect("a token file");
    let error = stage.azure.disk(&stage.donor_disk()).await.expect_err("no token file");
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("token file"), "{error}");
}

#[tokio::test]
async fn a_token_is_kept_until_it_is_refused_and_then_fetched_once() {
    let stage = Stage::new().await;
    for _ in 0..3 {
        stage.azure.disk(&stage.donor_disk()).await.expect("a look");
    }
    assert_eq!(stage.face.assertions().len(), 1, "cached");
    stage.face.revoke_tokens();
    stage.azure.disk(&stage.donor_disk()).await.expect("a look with a new token");
    assert_eq!(stage.face.assertions().len(), 2);
    let statuses: Vec<Option<u16>> = stage.face.requests().iter().rev().take(2).map(|it| it.status).collect();
    assert_eq!(statuses, [Some(200), Some(401)]);
}

#[tokio::test]
async fn a_client_secret_works_too() {
    let credential = Credential::ClientSecret {
        tenant: "tenant.example".into(),
        client: "client".into(),
        secret: "hush-hush".to_owned().into(),
    };
    let stage = Stage::with(|_| {}, |settings| settings.credential = credential).await;
    stage.azure.disk(&stage.donor_disk()).await.expect("a look").expect("a disk");
    assert!(stage.face.assertions().is_empty());
    assert!(!format!("{:?}", stage.azure).contains("hush"));
}

/// Everything that anybody logs, at the finest level.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_error_and_no_log_line_holds_what_gives_access() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // For all tests of this file: one that is set for a thread only misses what other threads have met before it.
    tracing::subscriber::set_global_default(subscriber).expect("the only one");

    let stage = Stage::new().await;
    let operation = stage.azure.begin_snapshot(&stage.snapshot()).await.expect("accepted").operation.expect("a URL");
    stage.azure.operation(&operation).await.expect("a look");
    stage.azure.versions(&stage.definition()).await.expect("a look");
    let token = stage.face.tokens().pop().expect("a token");
    let signature = operation.0.split("&s=").nth(1).and_then(|rest| rest.split('&').next()).expect("a signature");

    // A proxy that echoes all it was sent, on every path there is.
    let echo = format!("Authorization: Bearer {token} for {} was refused", operation.0);
    for body in [json!({ "error": { "code": "AuthorizationFailed", "message": echo } }), json!(echo)] {
        let fault = Fault::Answer { status: 403, headers: vec![], body };
        stage.face.plant(Injection { method: "GET", path_part: "/".into(), times: 2, fault });
        let errors = [
            stage.azure.disk(&stage.donor_disk()).await.expect_err("refused"),
            stage.azure.operation(&operation).await.expect_err("refused"),
        ];
        for error in errors {
            assert_eq!(error.class(), Class::Denied);
            let texts = format!("{error} {error:?}");
            assert!(!texts.contains(&token) && !texts.contains(signature), "{texts}");
            assert!(!texts.contains("&s=") && !texts.contains("&c="), "{texts}");
        }
    }

    let log = String::from_utf8_lossy(&log.0.lock().expect("a lock")).into_owned();
    assert!(log.contains("answered"), "something was logged: {log}");
    assert!(log.contains("the following request will be passed to the transport"), "the SDK's own lines too");
    for secret in [token.as_str(), signature, "first-federated-token"] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

/// A host of Azure's own on plain http, on another port, behind a name and a password, or one that only looks like it.
#[tokio::test]
async fn nothing_but_the_resource_managers_own_https_is_asked() {
    let stage = Stage::new().await;
    let (address, calls, _task) = stranger().await;
    let own = stage.face.url();
    let host = own.trim_start_matches("https://").to_owned();
    let foreign = [
        format!("http://{host}"),
        format!("https://{address}"),
        format!("https://{host}@{address}"),
        format!("https://user:word@{host}"),
        format!("https://{}:1", stage.face.address().ip()),
        format!("{own}.evil.example"),
        format!("//{address}"),
        "ftp://127.0.0.1".into(),
        String::new(),
    ];
    let plant = |method, part: &str, headers, body| {
        let fault = Fault::Answer { status: if method == "GET" { 200 } else { 202 }, headers, body };
        stage.face.plant(Injection { method, path_part: part.into(), times: 1, fault });
    };
    for base in &foreign {
        let url = format!("{base}/subscriptions/s/x?api-version=1&s=planted-canary");
        let before = stage.face.requests().len();
        plant("GET", "/versions", vec![], json!({ "value": [], "nextLink": url }));
        let error = stage.azure.versions(&stage.definition()).await.expect_err(base);
        assert!(matches!(&error, CloudError::Refused { code, .. } if code == "ForeignHost"), "{base}: {error}");
        assert!(!error.to_string().contains("canary") && !error.to_string().contains("word"), "{error}");
        for header in ["azure-asyncoperation", "location"] {
            plant("PUT", "/snapshots/", vec![(header, url.clone())], json!({}));
            let accepted = stage.azure.begin_snapshot(&stage.snapshot()).await.expect("accepted all the same");
            assert_eq!(accepted.operation, None, "{header}: {url}");
        }
        // As a store of another cloud, or one that somebody wrote to, would have it.
        let told = stage.azure.operation(&Operation(url)).await.expect("an answer");
        assert_eq!(told, OperationState::Unknown, "{base}");
        assert_eq!(stage.face.requests().len() - before, 3, "{base}: one list, two PUTs, and nothing else");
    }
    // Nor is a redirect followed.
    let elsewhere = vec![("location", format!("https://{address}/"))];
    let fault = Fault::Answer { status: 307, headers: elsewhere, body: json!({}) };
    stage.face.plant(Injection { method: "GET", path_part: "/disks/".into(), times: 1, fault });
    let error = stage.azure.disk(&stage.donor_disk()).await.expect_err("no answer of ARM's");
    assert_eq!(error.class(), Class::Uncertain, "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nobody called");
}
