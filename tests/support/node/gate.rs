//! Connections between the machine's loopback and the namespace's network, carried by this process.
//!
//! A socket belongs to the network of the thread that makes it. So there are two runtimes, one whose threads have entered the
//! namespace; no interface, route or address of the machine is touched, and any number of clusters run side by side.

use std::{
    fs::File,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, mpsc},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

/// Between two attempts to take a connection when the machine is out of something.
const PAUSE: Duration = Duration::from_millis(50);

/// One side of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Machine,
    Namespace,
}

/// Carries until it is dropped.
pub struct Gate {
    machine: Option<Runtime>,
    namespace: Option<Runtime>,
}

impl Gate {
    pub fn new(network: File) -> Result<Self, String> {
        let network = Arc::new(network);
        let runtime = |side: Side| {
            let network = Arc::clone(&network);
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().on_thread_start(move || {
                if side == Side::Namespace {
                    let network = Some(LinkNameSpaceType::Network).zip(Some(network.as_fd()));
                    let (kind, network) = network.expect("both are there");
                    move_into_link_name_space(network, Some(kind)).expect("the namespace can be entered");
                }
            });
            builder.build().map(Some).map_err(|error| error.to_string())
        };
        Ok(Self { machine: runtime(Side::Machine)?, namespace: runtime(Side::Namespace)? })
    }

    /// Listens on `side` at `listen`, and carries each connection to `to` on the other side. Gives the port, when `listen` left
    /// it open.
    pub fn open(&self, side: Side, listen: SocketAddr, to: SocketAddr) -> Result<u16, String> {
        let (here, there) = match side {
            Side::Machine => (&self.machine, &self.namespace),
            Side::Namespace => (&self.namespace, &self.machine),
        };
        let (Some(here), Some(there)) = (here, there) else { return Err("the gate is closed".to_owned()) };
        let there = there.handle().clone();
        let (bound, is_bound) = mpsc::channel();
        here.spawn(async move {
            let listener = match TcpListener::bind(listen).await {
                Ok(listener) => listener,
                Err(error) => return drop(bound.send(Err(format!("{listen}: {error}")))),
            };
            let _ = bound.send(listener.local_addr().map(|it| it.port()).map_err(|error| error.to_string()));
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(there.spawn(carry(stream, to))),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        is_bound.recv().map_err(|error| error.to_string())?
    }
}

/// A side that goes away takes the other with it.
async fn carry(mut from: TcpStream, to: SocketAddr) {
    if let Ok(mut to) = TcpStream::connect(to).await {
        let _ = from.set_nodelay(true);
        let _ = to.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // A test may be in a runtime of its own, where nothing may wait for another to end.
        for runtime in [self.machine.take(), self.namespace.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}
