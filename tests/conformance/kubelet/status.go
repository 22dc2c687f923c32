// What the API is told about a pod.

package main

import (
	"context"
	"encoding/json"
	"log"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PodState is what changes in a pod's life.
type PodState struct {
	address   string
	started   metav1.Time
	restarts  int32
	container corev1.ContainerState
}

// Waiting is the state of a pod whose process does not run yet, or no longer.
func (state PodState) Waiting(reason string, cause error) PodState {
	state.container = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: cause.Error()}}
	return state
}

// Running is the state of a pod whose process runs and listens.
func (state PodState) Running() PodState {
	state.container = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	return state
}

func (state PodState) status(pod *corev1.Pod, nodeAddress string) corev1.PodStatus {
	running := state.container.Running != nil
	phase, ready := corev1.PodPending, corev1.ConditionFalse
	if running {
		phase, ready = corev1.PodRunning, corev1.ConditionTrue
	}
	condition := func(kind corev1.PodConditionType, status corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: metav1.Now()}
	}
	container := pod.Spec.Containers[0]
	return corev1.PodStatus{
		Phase: phase,
		Conditions: []corev1.PodCondition{
			condition(corev1.PodScheduled, corev1.ConditionTrue),
			condition(corev1.PodReadyToStartContainers, corev1.ConditionTrue),
			condition(corev1.PodInitialized, corev1.ConditionTrue),
			condition(corev1.ContainersReady, ready),
			condition(corev1.PodReady, ready),
		},
		HostIP: nodeAddress, HostIPs: []corev1.HostIP{{IP: nodeAddress}},
		PodIP: state.address, PodIPs: []corev1.PodIP{{IP: state.address}},
		StartTime: &state.started,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: container.Name, Image: container.Image, ImageID: container.Image,
			State: state.container, Ready: running, Started: &running, RestartCount: state.restarts,
		}},
	}
}

// report writes a pod's status. A pod that is gone needs none.
func (node *Node) report(ctx context.Context, pod *corev1.Pod, state PodState) {
	patch, err := json.Marshal(map[string]any{
		// A pod of the same name that came after this one has another UID.
		"metadata": map[string]any{"uid": pod.UID},
		"status":   state.status(pod, node.options.address),
	})
	if err == nil {
		_, err = node.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		log.Printf("status of %s/%s: %v", pod.Namespace, pod.Name, err)
	}
}
