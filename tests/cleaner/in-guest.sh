# Run by the tests inside the guest's root: file systems of its own, and its containerd.
mount -t proc proc /proc
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t tmpfs dev /dev
mknod /dev/null c 1 3
mknod /dev/urandom c 1 9
cat > /run/config.toml << 'TOML'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
TOML
containerd --config /run/config.toml --log-level error &
daemon=$!
turns=0
until [ -S /run/containerd/containerd.sock ] && ctr version > /dev/null 2>&1; do
    turns=$((turns + 1))
    [ "$turns" -lt 300 ] || { echo "containerd did not start" >&2; exit 1; }
    sleep 0.1
done
ctr() { command ctr --namespace k8s.io "$@"; }
stop_containerd() { kill "$daemon"; wait "$daemon" || true; }
