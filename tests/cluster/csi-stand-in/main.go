// A stand-in for the node part of Azure's disk driver: it answers to its name, and a disk is a file of this machine.
//
// A disk's id ends in its name; the file of that name in the folder given by -disks, in lower case, is the disk: a raw image, or a
// link to one. Where it is missing, NAME.wanted is written, which holds the id, and the call waits a while: somebody outside may
// attach the disk. When nothing on this node uses it any more, NAME.released is written.
//
// Block volumes only. Each attached disk is a loop device that the kernel detaches when this process has gone; a file of its name in
// the folder given by -loops holds the path of its image, for whoever has to clean up after a kill.
package main

import (
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driver = "disk.csi.azure.com"

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	kubelet := flag.String("kubelet", "/var/lib/kubelet", "the kubelet's root folder")
	node := flag.String("node", "", "the name of the node")
	zone := flag.String("zone", "", "the zone that the node is in, as in westeurope-1")
	disks := flag.String("disks", "", "the folder with the disks")
	loops := flag.String("loops", "", "the folder where attached loop devices are noted")
	flag.Parse()

	socket := filepath.Join(*kubelet, "plugins", driver, "csi.sock")
	service := grpc.NewServer(grpc.UnaryInterceptor(logged))
	csi.RegisterIdentityServer(service, identity{})
	csi.RegisterNodeServer(service, &nodeServer{name: *node, zone: *zone, shelf: newShelf(*disks, *loops)})
	go serve(service, socket)

	// The kubelet looks for sockets in this folder, and asks each who it is.
	registry := grpc.NewServer(grpc.UnaryInterceptor(logged))
	registration.RegisterRegistrationServer(registry, registrar{socket: socket})
	serve(registry, filepath.Join(*kubelet, "plugins_registry", driver+"-reg.sock"))
}

func serve(server *grpc.Server, socket string) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		log.Fatal(err)
	}
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}
