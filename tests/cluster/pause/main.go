// The process that keeps a pod's namespaces: it waits for the signal that ends it. The only image that a kubelet needs
// besides the pods' own.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGINT, syscall.SIGTERM)
	<-ending
}
