// The life of one pod.

package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// runPod runs a pod until its context ends, which means that it is deleted: a process that ends is started again.
func (node *Node) runPod(ctx context.Context, pod *corev1.Pod) {
	root := filepath.Join(node.options.folder, "pods", string(pod.UID))
	state := PodState{address: node.network.Allocate(), started: metav1.Now()}
	defer node.release(pod)
	defer os.RemoveAll(root)

	sandbox, ok := node.waitPrepared(ctx, pod, root, state)
	if !ok {
		return
	}
	for ; ; state.restarts++ {
		err := node.runProcess(ctx, pod, sandbox, state)
		if ctx.Err() != nil {
			return
		}
		log.Printf("%s/%s ended: %v", pod.Namespace, pod.Name, err)
		node.report(ctx, pod, state.Waiting("CrashLoopBackOff", err))
		if !sleep(ctx, time.Second) {
			return
		}
	}
}

// waitPrepared prepares a pod as soon as all it needs is there; it is not ok if the pod is deleted before.
func (node *Node) waitPrepared(ctx context.Context, pod *corev1.Pod, root string, state PodState) (Sandbox, bool) {
	reported := ""
	for {
		sandbox, err := node.prepare(pod, root, state.address)
		if err == nil {
			return sandbox, true
		}
		if err.Error() != reported {
			reported = err.Error()
			node.report(ctx, pod, state.Waiting("CreateContainerConfigError", err))
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return Sandbox{}, false
		}
	}
}

// runProcess runs the pod's process once and returns why it ended.
func (node *Node) runProcess(ctx context.Context, pod *corev1.Pod, sandbox Sandbox, state PodState) error {
	output, err := node.logs.Open(pod.Namespace, pod.Name)
	if err != nil {
		return err
	}
	defer output.Close()
	process, err := node.network.Start(sandbox, output)
	if err != nil {
		return err
	}
	defer process.Stop()
	for !listens(process.PID()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-process.Ended():
			process.Disconnect()
			return process.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	node.report(ctx, pod, state.Running())
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-process.Ended():
		process.Disconnect()
		return process.Err()
	}
}

// prepare finds out what to run and fills the root folder. It fails while a Secret or ConfigMap is missing.
func (node *Node) prepare(pod *corev1.Pod, root, address string) (Sandbox, error) {
	if len(pod.Spec.Containers) != 1 || len(pod.Spec.InitContainers) != 0 {
		return Sandbox{}, fmt.Errorf("a pod here has one container and no init containers")
	}
	container := pod.Spec.Containers[0]
	program, ok := node.options.images.Program(container.Image)
	if !ok {
		return Sandbox{}, fmt.Errorf("no program for the image %s", container.Image)
	}
	if len(container.Command) != 0 {
		return Sandbox{}, fmt.Errorf("a container here has no command of its own")
	}
	environment, err := resolveEnvironment(pod, container, address, node.options.address)
	if err != nil {
		return Sandbox{}, err
	}
	if err := node.volumes.Write(pod, container, root); err != nil {
		return Sandbox{}, err
	}
	return Sandbox{
		Root: root, Program: program, Arguments: container.Args, Environment: environment,
		Address: address, Gateway: node.options.address,
	}, nil
}

// sleep says whether the context still lives after the pause.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}
