# The first process of a machine, in mount and process namespaces of its own within the cluster's. Whatever it mounts goes with it.
# usage: FOLDER IMAGE OFFSET NAME UUID ADDRESS SEED GROUP
set -eu
folder=$1 image=$2 offset=$3 name=$4 uuid=$5 address=$6 seed=$7 group=$8

# Control groups of its own, which the cluster's sweeper finds by name.
for controller in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e "$controller/cgroup.procs" ] || continue
    mkdir -p "$controller/$group/$name"
    for inherited in cpuset.cpus cpuset.mems; do
        for below in "$group" "$group/$name"; do
            if [ -f "$controller/$inherited" ] && [ -z "$(cat "$controller/$below/$inherited")" ]; then
                cat "$controller/$inherited" > "$controller/$below/$inherited"
            fi
        done
    done
    echo $$ > "$controller/$group/$name/cgroup.procs"
done

mount -t tmpfs machine "$folder"
mkdir -p "$folder/disk" "$folder/sys" "$folder/identity/dmi/id"
mount -o "loop,offset=$offset" "$image" "$folder/disk"
echo "$uuid" > "$folder/identity/dmi/id/product_uuid"

# A network of its own, with one cable to the cluster's bridge.
mount -t tmpfs run /run
mkdir /run/netns
touch /run/netns/cluster
mount --bind /proc/self/ns/net /run/netns/cluster
cat > /run/with-network << 'NETWORK'
set -eu
folder=$1 name=$2 address=$3 seed=$4
cable="cable-${address##*.}"
ip link add eth0 type veth peer name "$cable" netns cluster
ip -n cluster link set "$cable" master cni0 up
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via 10.88.0.1
# Devices as this network has them, and the identity beside them.
mount -t sysfs sysfs "$folder/sys"
# A machine filters none of its own system calls (runc wants keyrings), and has /tmp on its disk.
export SYSTEMD_SECCOMP=0 SYSTEMD_NSPAWN_TMPFS_TMP=0
exec systemd-nspawn --register=no --keep-unit --machine="$name" --directory="$folder/disk" --resolv-conf=off \
    --capability=all --bind=/dev/kmsg --overlay="$folder/sys/class:$folder/identity:/sys/class" \
    --boot "ds=nocloud-net;s=$seed" systemd.log_color=0
NETWORK
exec unshare --net /bin/sh /run/with-network "$folder" "$name" "$address" "$seed"
