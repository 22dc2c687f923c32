// Secrets and ConfigMaps as files.

package main

import (
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/listers/core/v1"
)

// Volumes are the objects that a pod can mount.
type Volumes struct {
	secrets    v1.SecretLister
	configMaps v1.ConfigMapLister
}

// Write puts a container's volumes into its root folder, where it mounts them. It fails while an object is missing.
// They are not updated later.
func (volumes Volumes) Write(pod *corev1.Pod, container corev1.Container, root string) error {
	contents := map[string]map[string][]byte{}
	for _, volume := range pod.Spec.Volumes {
		files, err := volumes.read(pod.Namespace, volume)
		if err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		contents[volume.Name] = files
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for _, mount := range container.VolumeMounts {
		if mount.SubPath != "" {
			return fmt.Errorf("mount %s: subPath is not supported", mount.Name)
		}
		for name, content := range contents[mount.Name] {
			path := filepath.Join(root, mount.MountPath, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (volumes Volumes) read(namespace string, volume corev1.Volume) (map[string][]byte, error) {
	switch {
	case volume.Secret != nil:
		secret, err := volumes.secrets.Secrets(namespace).Get(volume.Secret.SecretName)
		if err != nil {
			return nil, err
		}
		return selectItems(secret.Data, volume.Secret.Items)
	case volume.ConfigMap != nil:
		configMap, err := volumes.configMaps.ConfigMaps(namespace).Get(volume.ConfigMap.Name)
		if err != nil {
			return nil, err
		}
		content := map[string][]byte{}
		for key, value := range configMap.Data {
			content[key] = []byte(value)
		}
		return selectItems(content, volume.ConfigMap.Items)
	case volume.EmptyDir != nil:
		return nil, nil
	default:
		return nil, fmt.Errorf("only secret, configMap and emptyDir are supported")
	}
}

// selectItems picks the keys that are asked for under the paths they are asked for; all of them if none is named.
func selectItems(content map[string][]byte, items []corev1.KeyToPath) (map[string][]byte, error) {
	if len(items) == 0 {
		return content, nil
	}
	selected := map[string][]byte{}
	for _, item := range items {
		value, ok := content[item.Key]
		if !ok {
			return nil, fmt.Errorf("key %s is missing", item.Key)
		}
		selected[item.Path] = value
	}
	return selected, nil
}
