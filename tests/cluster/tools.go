//go:build tools

// Package cluster pins the control plane that the tests run against. scripts/cluster-binaries builds these
// commands; nothing here is compiled into kamino-wf.
package cluster

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
)
