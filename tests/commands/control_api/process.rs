//! A process that holds the store, as a thread with paused time of its own; and a client that can say anything.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use kamino_wf::{
    clock::Clock as _,
    cloud::Limiter,
    http,
    policy::gates::Gate,
    sim::{Scene, Shared, SimCloud, SimCluster, SimDisk, spec},
    store::{Fence, Journal, NewRecord, Revision},
    workflow::{Authority, Driver, Engine, Event, Pace, Parts, Run, Summary},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

/// Nothing here takes longer than some seconds on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The world and the disk, which outlive processes.
pub(crate) struct Desk {
    pub(crate) folder: TempDir,
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Arc<SimDisk>,
    /// How old the world is: a runtime with paused time begins at the real one, which is long past for the world.
    age: Arc<Mutex<Duration>>,
}

/// How a process ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Orderly,
    Killed,
}

/// Whoever holds the store.
pub(crate) struct Process {
    end: Option<oneshot::Sender<End>>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        // The world's clock counts from here.
        let shared = aside(async || Shared::new(Scene::nominal().world()));
        Self { folder: tempfile::tempdir().expect("a folder"), shared, disk: Arc::default(), age: Arc::default() }
    }

    pub(crate) fn store(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        http::socket_path(self.store())
    }

    /// The body of a start.
    pub(crate) fn start_body() -> Value {
        json!({ "by": "tester", "spec": spec(&Scene::nominal()) })
    }

    /// Starts a process, which drives runs or not, and returns once it answers.
    pub(crate) fn process(&self, drives: bool) -> Process {
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (shared, disk, socket) = (Arc::clone(&self.shared), Arc::clone(&self.disk), self.socket());
        let age = Arc::clone(&self.age);
        let thread = std::thread::spawn(move || {
            let runtime = paused();
            let end = runtime.block_on(async {
                let clock = shared.world().clock.clone();
                let behind = age.lock().expect("a lock").saturating_sub(clock.elapsed());
                tokio::time::advance(behind).await;
                let end = live(shared, Arc::clone(&disk), socket, drives, ready, ended).await;
                *age.lock().expect("a lock") = clock.elapsed();
                end
            });
            // Connections and all.
            drop(runtime);
            if end == End::Killed {
                disk.power_cut();
            }
        });
        is_ready.recv_timeout(PATIENCE).expect("it listens");
        Process { end: Some(end), thread: Some(thread) }
    }

    /// A request with these headers and this body; the answer's status, headers in lower case, and body.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Said {
        self.try_ask(method, path, headers, body).expect("an answer")
    }

    /// `None` where the connection broke before an answer came.
    pub(crate) fn try_ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Said> {
        let mut stream = self.asked(method, path, headers, body)?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let at = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(answer[..at].to_vec()).expect("a plain head");
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Some(Said { status, headers: headers.collect(), body: answer[at + 4..].to_vec() })
    }

    /// A request that is on its way. Whoever drops this hears no answer.
    pub(crate) fn asked(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut lines = vec![format!("{method} {path} HTTP/1.1"), "host: x".into(), "connection: close".into()];
        if !body.is_empty() {
            lines.push(format!("content-length: {}", body.len()));
        }
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let head = lines.join("\r\n") + "\r\n\r\n";
        // It may answer before it has read all of a body that is too large.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        Some(stream)
    }

    /// A change, in JSON.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Said {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.ask("POST", path, &headers, body.to_string().as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Said {
        self.ask("GET", path, &[], b"")
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        self.get("/v1/audit").json(200)["entries"].as_array().expect("a list").clone()
    }

    /// A run that was started, and then parked, by nobody who would go on with it.
    pub(crate) fn parked(&self) -> String {
        self.standing(|at| Event::Parked { at, why: "not allowed: a right is missing".into() })
    }

    /// A run that was started, and asks a person.
    pub(crate) fn asking(&self) -> String {
        let ask = |at: jiff::Timestamp| Event::ApprovalAsked {
            at,
            gate: Gate::Switch,
            why: "new nodes start from version 2026.11.24000".into(),
            until: at + Duration::from_hours(7 * 24),
        };
        self.standing(ask)
    }

    fn standing(&self, event: impl FnOnce(jiff::Timestamp) -> Event + Send) -> String {
        let process = self.process(false);
        let run = self.post("/v1/runs", &[], &Self::start_body()).json(201)["run"].as_str().expect("an id").to_owned();
        process.stop();
        aside(async || self.append(event).await);
        run
    }

    async fn append(&self, event: impl FnOnce(jiff::Timestamp) -> Event) {
        let clock = self.shared.world().clock.clone();
        let tree = self.disk.tree(Arc::clone(&self.shared.crash));
        let (journal, committer) = Journal::open(tree, clock.new_id()).expect("a sound store");
        let append = async move {
            let head = journal.heads().await.expect("it reads").pop().expect("a run");
            let id = kamino_wf::model::RunId(head.run);
            let (mut run, _): (Run, _) =
                kamino_wf::workflow::load(&journal, id).await.expect("it reads").expect("it is there");
            let event = event(run.moved);
            run.apply(event.clone()).expect("it may follow");
            let record = NewRecord { kind: event.kind(), payload: json!(event) };
            let summary = json!(Summary::of(&run));
            let Revision(revision) = head.revision;
            journal
                .commit(head.run, Revision(revision), Fence(0), vec![record], summary)
                .await
                .expect("it is recorded");
        };
        let ((), ended) = tokio::join!(append, committer.run());
        ended.expect("nothing fails");
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// With this status, and in the version that programs may rely on.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(value["apiVersion"], "kamino-wf/v1", "{value}");
        value
    }

    /// A refusal of this kind whose words hold all of these.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str, words: &[&str]) -> Value {
        let value = self.json(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(value["kind"], kind, "{value}");
        let message = value["message"].as_str().expect("words");
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message:?}");
        }
        value
    }
}

impl Process {
    /// As after SIGTERM; panics if it does not end.
    pub(crate) fn stop(mut self) {
        self.finish(End::Orderly);
    }

    /// As after SIGKILL and a power cut: what was not synced is lost.
    pub(crate) fn kill(mut self) {
        self.finish(End::Killed);
    }

    fn finish(&mut self, end: End) {
        if let Some(sender) = self.end.take() {
            let _ = sender.send(end);
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the process failed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.finish(End::Killed);
    }
}

/// In paused time, and not in the runtime that the test may be in.
fn aside<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| paused().block_on(work())).join()).expect("it ends well")
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

async fn live(
    shared: Arc<Shared>,
    disk: Arc<SimDisk>,
    socket: PathBuf,
    drives: bool,
    ready: std::sync::mpsc::Sender<()>,
    ended: oneshot::Receiver<End>,
) -> End {
    let clock = shared.world().clock.clone();
    shared.crash.restart();
    let (journal, committer) =
        Journal::open(disk.tree(Arc::clone(&shared.crash)), clock.new_id()).expect("a sound store");
    let life = async {
        let limiter = Arc::new(Limiter::default());
        let engine = Engine::open(Parts {
            cloud: Arc::new(SimCloud::new(Arc::clone(&shared), Arc::clone(&limiter))),
            cluster: Arc::new(SimCluster::new(Arc::clone(&shared))),
            clock: Arc::new(clock.clone()),
            journal,
            limiter,
            authority: Arc::new(Authority::unlimited(Fence(0))),
            pace: Pace::default(),
            runs_at_once: 2,
            release: "9.9.9".into(),
            observer: Box::new(|_, _| {}),
        });
        let engine = Arc::new(engine.await.expect("it reads"));
        let _ = std::fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let (stop, stopping) = watch::channel(false);
        let mut serving = Box::pin(http::serve(listener, Arc::clone(&engine), stopping));
        let driving = async {
            if drives {
                Driver::new(engine).run_until(std::future::pending()).await
            } else {
                std::future::pending().await
            }
        };
        ready.send(()).expect("the test waits");
        let end = tokio::select! {
            biased;
            () = shared.crash.died() => End::Killed,
            end = ended => end.unwrap_or(End::Killed),
            // The store's end is the process' end: the crash itself, here.
            _ = driving => End::Killed,
            _ = &mut serving => panic!("it stopped serving"),
        };
        if end == End::Orderly {
            stop.send_replace(true);
            // In real time: the test's client is on another clock.
            serving.await.expect("it serves to the end");
        }
        end
    };
    let mut life = Box::pin(life);
    let mut committing = Box::pin(committer.run());
    tokio::select! {
        biased;
        end = &mut life => end,
        // It fails when the simulated process dies in a write.
        _ = &mut committing => End::Killed,
    }
}
