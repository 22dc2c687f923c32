// The node: what it says about itself, and which pods it runs.

package main

import (
	"context"
	"errors"
	"log"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const nodeName = "node"

// Node runs every pod of the cluster.
type Node struct {
	client  kubernetes.Interface
	options Options
	network *Network
	logs    *Logs
	volumes Volumes
	factory informers.SharedInformerFactory

	// Written by the informer's event handlers only, which are called one after the other.
	pods map[types.UID]context.CancelFunc
}

func newNode(client kubernetes.Interface, options Options, network *Network, logs *Logs) *Node {
	factory := informers.NewSharedInformerFactory(client, 0)
	core := factory.Core().V1()
	return &Node{
		client:  client,
		options: options,
		network: network,
		logs:    logs,
		volumes: Volumes{secrets: core.Secrets().Lister(), configMaps: core.ConfigMaps().Lister()},
		factory: factory,
		pods:    map[types.UID]context.CancelFunc{},
	}
}

// registerNode creates the Node object. The API server finds the logs by its address and port.
func registerNode(ctx context.Context, client kubernetes.Interface, address string, port int32) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	node, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status = corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: port}},
		Conditions:      []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
	}
	_, err = client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// Run runs pods until the context ends.
func (node *Node) Run(ctx context.Context) error {
	pods := node.factory.Core().V1().Pods().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { node.observe(ctx, object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { node.observe(ctx, object.(*corev1.Pod)) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			node.forget(object.(*corev1.Pod))
		},
	})
	if err != nil {
		return err
	}
	node.factory.Start(ctx.Done())
	for kind, synced := range node.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return errors.New("cannot list " + kind.String())
		}
	}
	log.Print("ready")
	<-ctx.Done()
	return nil
}

func (node *Node) observe(ctx context.Context, pod *corev1.Pod) {
	stop, running := node.pods[pod.UID]
	switch {
	case pod.Spec.NodeName == "":
		go node.bind(ctx, pod)
	case pod.DeletionTimestamp != nil && running:
		stop()
	case pod.DeletionTimestamp == nil && !running:
		podCtx, stop := context.WithCancel(ctx)
		node.pods[pod.UID] = stop
		go node.runPod(podCtx, pod)
	}
}

func (node *Node) forget(pod *corev1.Pod) {
	if stop, running := node.pods[pod.UID]; running {
		stop()
		delete(node.pods, pod.UID)
	}
}

func (node *Node) bind(ctx context.Context, pod *corev1.Pod) {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}
	err := node.client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
	// Bound before, by an earlier event for the same pod, or deleted meanwhile.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		log.Printf("bind %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}

// release removes a pod, whose process has ended, from the API.
func (node *Node) release(pod *corev1.Pod) {
	now := metav1.NewDeleteOptions(0)
	now.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	// Not with the pod's context, which has ended.
	err := node.client.CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name, *now)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		log.Printf("delete %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}
