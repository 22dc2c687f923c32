// Environment variables of a container.

package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// resolveEnvironment turns the container's variables into NAME=VALUE. It knows literal values and fields of the pod.
func resolveEnvironment(pod *corev1.Pod, container corev1.Container, address, nodeAddress string) ([]string, error) {
	if len(container.EnvFrom) != 0 {
		return nil, fmt.Errorf("envFrom is not supported")
	}
	environment := []string{"HOSTNAME=" + pod.Name}
	for _, variable := range container.Env {
		value := variable.Value
		if source := variable.ValueFrom; source != nil {
			if source.FieldRef == nil {
				return nil, fmt.Errorf("variable %s: only fieldRef is supported", variable.Name)
			}
			switch source.FieldRef.FieldPath {
			case "metadata.name":
				value = pod.Name
			case "metadata.namespace":
				value = pod.Namespace
			case "metadata.uid":
				value = string(pod.UID)
			case "spec.nodeName":
				value = nodeName
			case "status.podIP":
				value = address
			case "status.hostIP":
				value = nodeAddress
			default:
				return nil, fmt.Errorf("variable %s: field %s is not supported", variable.Name, source.FieldRef.FieldPath)
			}
		}
		environment = append(environment, variable.Name+"="+value)
	}
	return environment, nil
}
