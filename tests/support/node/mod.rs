//! A cluster with one real node: the control plane, a scheduler, a kubelet with containerd and runc, and a stand-in for Azure's
//! disk driver. Pods run as users' do.
//!
//! ```ignore
//! let Some(cluster) = real_cluster::shared() else { return };
//! cluster.import_image("registry.example/kamino-wf:test", &Image::new().program("/kamino-wf", binary));
//! cluster.place_disk(disk_id, &image);            // what is in a disk that pods get by a volume of disk.csi.azure.com
//! let face = cluster.address_for_pods(face_port); // what listens on this machine's loopback, as pods reach it
//! cluster.kubectl(&["apply", "-f", file]);
//! cluster.kill_container(namespace, pod).await;
//! ```
//!
//! All servers are in network, mount and process namespaces of their own (`namespace.rs`), where the API server has port 443,
//! the services' first address is the node's, and the bridge of the pods is 10.88.0.0/24: no DNS and no proxy are needed, and
//! nothing reaches further. The tests stay outside. Their connections to the API server, and those of pods to what the tests
//! serve, are carried by this process (`gate.rs`): a socket can be made in one network and used in another, so the machine gets no
//! interface, no route and no address that could be somebody else's, and several clusters can run at once.
//!
//! Everything ends with the test process, however that ends: the first process of the namespaces gets SIGKILL with the thread that
//! keeps it, or sees the end of its input, and with it the kernel ends all others, containers too; mounts go with the namespace,
//! loop devices and control groups by the shell that removes the folder.
//!
//! A pod with a `hostPath` sees this machine's own files, whatever it is called: never clean those.

pub mod authority;
pub mod disks;
pub mod gate;
pub mod image;
pub mod namespace;
pub mod product;
pub mod real_cluster;
pub mod servers;
pub mod settings;
