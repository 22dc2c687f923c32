// The binary kube is kube-apiserver or kube-controller-manager, whichever name it is started under.
//
// Both are upstream's own commands. They share one binary because most of either is the same code:
// it is linked once, and the cache holds it once.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	default:
		fmt.Fprintf(os.Stderr, "%s is not a part of the cluster; start this binary as kube-apiserver or kube-controller-manager\n", name)
		os.Exit(2)
	}
}
