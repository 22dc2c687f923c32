// The program kubelet runs the pods of a test cluster as plain processes, without a container runtime.
//
// It is the cluster's one node and its scheduler. A pod is one process with a network namespace of its own on a bridge
// and a root folder of its own; an image is a program that this machine has built. What the conformance suite's pods do
// not need (probes, init containers, several containers, resources, exec) is refused or ignored, not half done.
//
//	pod appears ─▶ bind ─▶ volumes ─▶ sandbox: namespaces, veth ─▶ pod init: address, chroot, exec ─▶ listens ─▶ Ready
//	pod is deleted ─▶ SIGTERM, SIGKILL after a second ─▶ gone from the API
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Options are the command line.
type Options struct {
	kubeconfig string
	address    string // the node's, on the bridge
	bridge     string
	folder     string // for the pods' roots and logs
	images     Images
}

// Images are the programs to run instead of images, by the last part of the image's name.
type Images map[string]string

// Program finds the program for an image such as registry.k8s.io/gateway-api/echo-basic:v1.5.1.
func (images Images) Program(image string) (string, bool) {
	name, _, _ := strings.Cut(path.Base(image), ":")
	program, ok := images[name]
	return program, ok
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if os.Args[0] == podInitName {
		log.Fatal(podInit())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, parseOptions()); err != nil {
		log.Fatal(err)
	}
}

func parseOptions() Options {
	options := Options{images: Images{}}
	flag.StringVar(&options.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "how to reach the API server")
	flag.StringVar(&options.address, "address", "10.244.0.1", "the node's address on the bridge; pods get addresses of its /16")
	flag.StringVar(&options.bridge, "bridge", "br0", "bridge that pods are connected to")
	flag.StringVar(&options.folder, "folder", ".", "folder for the pods' roots and logs")
	flag.Func("image", "NAME=PROGRAM: run this static program for images of this name; may be repeated", func(value string) error {
		name, program, ok := strings.Cut(value, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=PROGRAM", value)
		}
		options.images[name] = program
		return nil
	})
	flag.Parse()
	return options
}

func run(ctx context.Context, options Options) error {
	config, err := clientcmd.BuildConfigFromFlags("", options.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	network, err := newNetwork(options.bridge, options.address)
	if err != nil {
		return err
	}
	logs, err := newLogs(options.folder)
	if err != nil {
		return err
	}
	port, err := logs.Serve(options.address)
	if err != nil {
		return err
	}
	if err := registerNode(ctx, client, options.address, port); err != nil {
		return err
	}
	node := newNode(client, options, network, logs)
	return node.Run(ctx)
}
