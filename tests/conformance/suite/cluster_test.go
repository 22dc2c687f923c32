package suite

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	upstream "sigs.k8s.io/gateway-api/conformance/utils/suite"
)

var namespaces = []string{upstream.InfrastructureNamespace, upstream.AppBackendNamespace, upstream.WebBackendNamespace}

// TestCluster proves that the cluster does what the suite expects of one, without a gateway: it runs all workloads of
// the suite, and takes the time.
func TestCluster(t *testing.T) {
	options := conformance.DefaultOptions(t)
	cluster := &cluster{t: t, options: options, began: time.Now()}

	cluster.applyBase()
	cluster.lap("base manifests applied")
	cluster.lap("%d pods ready", len(cluster.waitForPods()))
	cluster.applyWorkloadsOfTests()
	cluster.lap("manifests of the tests that bring pods of their own applied")
	pods := cluster.waitForPods()
	cluster.lap("%d pods ready", len(pods))
	cluster.everyServiceHasEndpoints()
	cluster.lap("every Service has its endpoints")
	for _, pod := range pods {
		if strings.HasPrefix(pod.Name, "infra-backend-") {
			cluster.answersAndLogs(pod)
		}
	}
	cluster.lap("pods answer, and their logs say so")
	cluster.deleteNamespaces()
	cluster.lap("namespaces deleted")
}

type cluster struct {
	t       *testing.T
	options upstream.ConformanceOptions
	began   time.Time
}

// lap logs how long a step took.
func (cluster *cluster) lap(format string, arguments ...any) {
	cluster.t.Helper()
	cluster.t.Logf("%6.2f s  "+format, append([]any{time.Since(cluster.began).Seconds()}, arguments...)...)
	cluster.began = time.Now()
}

// applyBase applies the base manifests and, as the suite does, the Secrets that some of their pods wait for.
func (cluster *cluster) applyBase() {
	t, options := cluster.t, cluster.options
	cluster.apply("base/manifests.yaml")
	authority, certificate, key := kubernetes.MustCreateCACertConfigMap(t, upstream.InfrastructureNamespace, "tls-checks-ca-certificate")
	objects := []client.Object{authority}
	for _, secret := range []struct{ namespace, name string }{
		{upstream.InfrastructureNamespace, "tls-checks-certificate"},
		{upstream.InfrastructureNamespace, "tls-passthrough-checks-certificate"},
		{upstream.AppBackendNamespace, "tls-passthrough-checks-certificate"},
	} {
		objects = append(objects, kubernetes.MustCreateCASignedCertSecret(t, secret.namespace, secret.name, []string{"abc.example.com"}, certificate, key))
	}
	kubernetes.Applier{}.MustApplyObjectsWithCleanup(t, options.Client, options.TimeoutConfig, objects, false)
}

func (cluster *cluster) applyWorkloadsOfTests() {
	manifests, err := fs.Glob(conformance.Manifests, "tests/*.yaml")
	require.NoError(cluster.t, err)
	for _, manifest := range manifests {
		content, err := conformance.Manifests.ReadFile(manifest)
		require.NoError(cluster.t, err)
		if strings.Contains(string(content), "kind: Deployment") {
			cluster.apply(manifest)
		}
	}
}

func (cluster *cluster) apply(manifest string) {
	options := cluster.options
	applier := kubernetes.Applier{ManifestFS: options.ManifestFS, GatewayClass: options.GatewayClassName}
	applier.MustApplyWithCleanup(cluster.t, options.Client, options.TimeoutConfig, manifest, false)
}

// waitForPods waits until there are as many ready pods as the Deployments want.
func (cluster *cluster) waitForPods() []corev1.Pod {
	var ready []corev1.Pod
	cluster.eventually(time.Minute, "pods are not ready", func(ctx context.Context) (bool, error) {
		wanted := 0
		ready = nil
		for _, namespace := range namespaces {
			deployments, err := cluster.options.Clientset.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err
			}
			for _, deployment := range deployments.Items {
				wanted += int(*deployment.Spec.Replicas)
			}
			pods, err := cluster.options.Clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err
			}
			for _, pod := range pods.Items {
				for _, condition := range pod.Status.Conditions {
					if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
						ready = append(ready, pod)
					}
				}
			}
		}
		return wanted > 0 && len(ready) == wanted, nil
	})
	return ready
}

func (cluster *cluster) everyServiceHasEndpoints() {
	for _, namespace := range namespaces {
		services, err := cluster.options.Clientset.CoreV1().Services(namespace).List(context.Background(), metav1.ListOptions{})
		require.NoError(cluster.t, err)
		for _, service := range services.Items {
			cluster.eventually(10*time.Second, service.Name+" has no endpoints", func(ctx context.Context) (bool, error) {
				slices, err := cluster.options.Clientset.DiscoveryV1().EndpointSlices(namespace).List(ctx,
					metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service.Name})
				return err == nil && len(slices.Items) > 0 && len(slices.Items[0].Endpoints) > 0, err
			})
		}
	}
}

// answersAndLogs asks a pod something and looks for it in the log, through the API server.
func (cluster *cluster) answersAndLogs(pod corev1.Pod) {
	path := "/asked-of-" + pod.Name
	response, err := http.Get(fmt.Sprintf("http://%s:3000%s", pod.Status.PodIP, path))
	require.NoError(cluster.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(cluster.t, err)
	require.Equal(cluster.t, http.StatusOK, response.StatusCode)
	require.Contains(cluster.t, string(body), fmt.Sprintf("%q: %q", "pod", pod.Name))

	log, err := kubernetes.DumpEchoLogs(context.Background(), pod.Namespace, pod.Labels["app"],
		cluster.options.Client, cluster.options.Clientset, time.Now().Add(-time.Minute))
	require.NoError(cluster.t, err)
	require.Contains(cluster.t, strings.Join(log, "\n"), path)
}

func (cluster *cluster) deleteNamespaces() {
	for _, namespace := range namespaces {
		require.NoError(cluster.t, cluster.options.Clientset.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{}))
	}
	for _, namespace := range namespaces {
		// Ten seconds are the namespace controller's own pauses, which become 25 if pods take longer than 5 to go.
		cluster.eventually(time.Minute, namespace+" is still there", func(ctx context.Context) (bool, error) {
			_, err := cluster.options.Clientset.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
	}
}

func (cluster *cluster) eventually(timeout time.Duration, otherwise string, happens func(context.Context) (bool, error)) {
	cluster.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		done, err := happens(ctx)
		if done {
			return
		}
		select {
		case <-ctx.Done():
			require.FailNow(cluster.t, otherwise, "after %v; last error: %v", timeout, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
