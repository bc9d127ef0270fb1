//! Who may connect to probes and metrics is whoever reaches the port. Nobody of them keeps the kubelet from being answered: a connection
//! on which nothing is asked is closed, and there are not more of them than this process has files to spare.

use std::{convert::Infallible, time::Duration};

use axum::Router;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::warn;

/// A kubelet and a few Prometheus have one each. Far below the 1024 files that a process may have open where nobody said otherwise.
const CONNECTIONS_MAX: usize = 128;
/// For the head of a request, from the end of the one before it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Then its last answer is sent: one that does not read can't stay for ever.
const CONNECTION_LASTS: Duration = Duration::from_mins(5);
/// Before the next try, when a connection can't be taken.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers for as long as it is polled.
pub async fn listen(listener: TcpListener, probes: Router) -> Infallible {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = open.next() => {}
            taken = listener.accept(), if open.len() < CONNECTIONS_MAX => match taken {
                Ok((stream, _)) => open.push(served(stream, probes.clone())),
                Err(error) => {
                    warn!(%error, "a connection for probes and metrics can't be taken");
                    sleep(AGAIN).await;
                }
            },
        }
    }
}

async fn served(stream: TcpStream, probes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(probes));
    tokio::pin!(connection);
    // What goes wrong on it is the other side's matter.
    if timeout(CONNECTION_LASTS, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEAD_WITHIN, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    async fn asked(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_nothing_do_not_keep_a_probe_from_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let probes = Router::new().route("/livez", get(async || "alive"));
        let client = async {
            assert!(asked(address).await.ends_with("alive"));
            let began = Instant::now();
            let mut silent = Vec::new();
            for number in 0..2 * CONNECTIONS_MAX {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                if number % 2 == 0 {
                    stream.write_all(b"GET /livez HT").await.expect("it reads");
                }
                silent.push(stream);
            }
            assert!(asked(address).await.ends_with("alive"));
            assert!(began.elapsed() < 3 * HEAD_WITHIN, "{:?}", began.elapsed());
        };
        tokio::select! {
            biased;
            () = client => {}
            never = listen(listener, probes) => match never {},
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_asks_again_and_again_is_let_go_after_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let probes = Router::new().route("/livez", get(async || "alive"));
        let client = async {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let began = Instant::now();
            let mut answers = 0;
            loop {
                let mut answer = vec![0; 4096];
                if stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.is_err() {
                    break;
                }
                // Closed, or reset since we asked when it was closed already.
                let read = stream.read(&mut answer).await.unwrap_or(0);
                if read == 0 {
                    break;
                }
                assert!(answer[..read].ends_with(b"alive"), "a whole answer");
                answers += 1;
                sleep(HEAD_WITHIN / 2).await;
            }
            assert!(began.elapsed() <= CONNECTION_LASTS + HEAD_WITHIN, "{:?}", began.elapsed());
            assert!(answers > 10, "{answers}");
        };
        tokio::select! {
            biased;
            () = client => {}
            never = listen(listener, probes) => match never {},
        }
    }
}
