//! What was asked for is done to its end, whether or not whoever asked still listens. A handler is dropped with its connection; a
//! change that is dropped while it becomes durable would be in the store and not in memory, where the next one is built on.

use std::pin::Pin;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

/// Changes that wait to be taken up: they are taken up at once, as long as the server is polled.
const WAITING_MAX: usize = 16;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The way in.
#[derive(Debug, Clone)]
pub(super) struct ToTheEnd(mpsc::Sender<Work>);

impl ToTheEnd {
    /// A way in, and what does the work while it is polled. That ends when every way in is gone and all is done.
    pub(super) fn new() -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut waiting) = mpsc::channel::<Work>(WAITING_MAX);
        let working = async move {
            let mut under_way = FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    Some(()) = under_way.next() => {}
                    work = waiting.recv() => match work {
                        Some(work) => under_way.push(work),
                        None => break,
                    },
                }
            }
            while under_way.next().await.is_some() {}
        };
        (Self(sender), working)
    }

    /// Has it done, and returns what came of it.
    pub(super) async fn done<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (say, said) = oneshot::channel();
        let work = Box::pin(async move {
            // Nobody may be there to hear it.
            let _ = say.send(work.await);
        });
        if self.0.send(work).await.is_ok()
            && let Ok(came) = said.await
        {
            return came;
        }
        // This process is leaving, and the connection goes with it: whoever asked asks the next one, by the same key.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_done_although_its_connection_is_gone() {
        let (way_in, working) = ToTheEnd::new();
        let (begun, go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Mutex::new(false)));
        let work = {
            let (begun, go_on, done) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&done));
            async move {
                begun.notify_one();
                go_on.notified().await;
                *done.lock().expect("a lock") = true;
            }
        };
        let client = async {
            let handler = way_in.done(work);
            tokio::select! {
                biased;
                () = begun.notified() => {}
                () = handler => panic!("it was not let go on yet"),
            }
            // The handler is gone by now, as the connection is.
            assert_eq!(way_in.done(async { 7 }).await, 7, "others are served meanwhile");
            go_on.notify_one();
            drop(way_in);
        };
        let ended = timeout(std::time::Duration::from_secs(1), async { tokio::join!(client, working) }).await;
        assert!(ended.is_ok(), "it ends when all is done");
        assert!(*done.lock().expect("a lock"));
    }
}
