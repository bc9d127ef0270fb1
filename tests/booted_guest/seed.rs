//! What a platform tells its machines: a seed for cloud-init's `NoCloud`, over HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;

use crate::{machine::Identity, support::node::real_cluster::RealCluster};

/// Longer than a request ever takes to arrive.
const ARRIVES: Duration = Duration::from_secs(10);

/// Serves until the process ends. Its port is open to the cluster's network only, and to this machine.
pub(crate) struct Seed {
    base: String,
    files: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Seed {
    pub(crate) fn serve(cluster: &RealCluster) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let files: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        std::thread::spawn({
            let files = Arc::clone(&files);
            move || {
                for stream in listener.incoming().flatten() {
                    // A guest that is killed in the middle is none of the next one's business.
                    let _ = answer(&stream, &files.lock().expect("a lock"));
                }
            }
        });
        Self { base: format!("http://{}", cluster.address_for_pods(port)), files }
    }

    /// Says what a machine is told; gives the place where it asks.
    pub(crate) fn tell(&self, machine: Identity, user_data: &str) -> String {
        let place = format!("/{}/", machine.uuid);
        let meta_data = json!({ "instance-id": machine.uuid, "local-hostname": machine.name }).to_string();
        let mut files = self.files.lock().expect("a lock");
        for (name, text) in [("meta-data", meta_data.as_str()), ("user-data", user_data), ("vendor-data", "")] {
            files.insert(format!("{place}{name}"), text.to_owned());
        }
        format!("{}{place}", self.base)
    }
}

fn answer(stream: &TcpStream, files: &BTreeMap<String, String>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(ARRIVES))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match request.split(' ').nth(1).and_then(|path| files.get(path)) {
        Some(body) => ("200 OK", body.as_str()),
        None => ("404 Not Found", ""),
    };
    let length = body.len();
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}
