// The suite: upstream's conformance tests as they are, and a test of the cluster that they run on.
package suite

import (
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
)

// TestConformance runs upstream's suite as its flags say.
func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	// The suite reads the supported features before it waits for the gateway to write them.
	timeouts := options.TimeoutConfig
	timeouts.GWCMustBeAccepted = 30 * time.Second
	kubernetes.GWCMustHaveAcceptedConditionTrue(t, options.Client, timeouts, options.GatewayClassName)
	conformance.RunConformanceWithOptions(t, options)
}
