// The program control-plane runs a Kubernetes API server for tests: etcd, kube-apiserver and, if asked, the
// controllers, in a temporary folder.
//
//	            ready KUBECONFIG=…                  (stdout, again after every restart)
//	test ◀──▶ control-plane ──▶ etcd ◀── kube-apiserver ◀── kube-controller-manager
//	     stdin closes, SIGTERM: end        SIGUSR1: kill and start
//
// It leaves nothing behind: it ends with its standard input, the kernel kills its children when it ends, however
// that happens, and a folder that it could not remove is removed by the next one.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// Options are the command line.
type Options struct {
	binaries    string   // folder with kube-apiserver and kube-controller-manager
	address     string   // IP address that etcd and the API server listen on
	port        int      // of the API server; 0 is any free one
	controllers bool     // also run the controllers that workloads need
	manifests   []string // files and folders to apply
}

func main() {
	// The kernel kills a child when the thread that started it ends, so every child is started from the one thread
	// that lives as long as the program.
	runtime.LockOSThread()
	if err := run(parseOptions()); err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		os.Exit(1)
	}
}

func parseOptions() Options {
	var options Options
	flag.StringVar(&options.binaries, "binaries", "", "folder with kube-apiserver and kube-controller-manager")
	flag.StringVar(&options.address, "address", "127.0.0.1", "IP address to listen on")
	flag.IntVar(&options.port, "port", 0, "port of the API server; 0 is any free one")
	flag.BoolVar(&options.controllers, "controllers", false, "also run the controllers that workloads need")
	flag.Func("apply", "file or folder of manifests to apply; may be repeated", func(path string) error {
		options.manifests = append(options.manifests, path)
		return nil
	})
	flag.Parse()
	return options
}

func run(options Options) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	restart := make(chan os.Signal, 1)
	signal.Notify(restart, syscall.SIGUSR1)
	// A reader that went away also closes our standard input; writing to it must not kill us before we have cleaned up.
	signal.Ignore(syscall.SIGPIPE)
	abandoned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(abandoned)
	}()

	folder, err := newFolder()
	if err != nil {
		return err
	}
	defer folder.Remove()
	plane, err := startPlane(options, folder)
	if err != nil {
		return err
	}
	defer plane.Kill()

	ready, served := plane.Prepare(options.manifests), false
	for {
		select {
		case <-stop:
			return nil
		case <-abandoned:
			if !served {
				return errors.New("standard input closed before the API server was ready; keep it open")
			}
			return nil
		case child := <-plane.ended:
			return fmt.Errorf("%s ended\n%s", child.name, child.LogTail())
		case <-restart:
			if err := plane.RestartServer(); err != nil {
				return err
			}
			ready = plane.Prepare(nil)
		case err := <-ready:
			if err != nil {
				return fmt.Errorf("%w\n%s", err, plane.server.LogTail())
			}
			if options.controllers && !served {
				if err := plane.StartControllers(); err != nil {
					return err
				}
			}
			served = true
			fmt.Printf("ready KUBECONFIG=%s\n", plane.kubeconfig)
		}
	}
}
