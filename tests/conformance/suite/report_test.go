package suite

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	upstream "sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

// How many tests each profile has in this version of the suite; fewer means that some did not run.
var testsOfProfiles = map[upstream.ConformanceProfileName]struct{ core, extended uint32 }{
	upstream.GatewayHTTPConformanceProfileName: {37, 57},
	upstream.GatewayGRPCConformanceProfileName: {15, 10},
	upstream.GatewayTLSConformanceProfileName:  {20, 15},
	upstream.GatewayTCPConformanceProfileName:  {19, 10},
	upstream.GatewayUDPConformanceProfileName:  {20, 10},
}

// Features that this version of the suite has no test for. Those of its next release pass, and so do cases of our own.
var untested = sets.New(features.SupportHTTPRouteRetryBackendTimeout, features.SupportHTTPRouteRetryConnectionError)

// TestReport holds the report of TestConformance against what it must say: every test of every profile succeeded, no
// feature is unsupported, and the features that the GatewayClass claims are those that the tests were run for.
func TestReport(t *testing.T) {
	options := conformance.DefaultOptions(t)
	content, err := os.ReadFile(options.ReportOutputPath)
	require.NoError(t, err, "TestConformance writes the report that -report-output names")
	var report confv1.ConformanceReport
	require.NoError(t, yaml.UnmarshalStrict(content, &report))
	require.NoError(t, report.Implementation.Validate())

	reported := sets.New[string]()
	profiles := sets.New[upstream.ConformanceProfileName]()
	for _, profile := range report.ProfileReports {
		name := upstream.ConformanceProfileName(profile.Name)
		profiles.Insert(name)
		succeeded(t, profile.Name+" core", profile.Core, testsOfProfiles[name].core)
		if assert.NotNil(t, profile.Extended, "%s has no extended tests", name) {
			succeeded(t, profile.Name+" extended", profile.Extended.Status, testsOfProfiles[name].extended)
			assert.Empty(t, profile.Extended.UnsupportedFeatures, "%s: unsupported features", name)
			reported.Insert(profile.Extended.SupportedFeatures...)
		}
	}
	assert.ElementsMatch(t, sets.KeySet(testsOfProfiles).UnsortedList(), profiles.UnsortedList(), "profiles")

	claimed := claimedFeatures(t, options)
	assert.Empty(t, sets.List(reported.Difference(claimed)), "reported, but the GatewayClass does not claim them")
	assert.Empty(t, sets.List(claimed.Difference(testedFeatures())), "claimed by the GatewayClass, but not run")
	assert.Empty(t, sets.List(testedFeatures().Difference(claimed)), "skipped: the GatewayClass does not claim them")
}

func succeeded(t *testing.T, what string, status confv1.Status, count uint32) {
	t.Helper()
	assert.Equal(t, confv1.Success, status.Result, "%s: failed %v, skipped %v", what, status.FailedTests, status.SkippedTests)
	assert.Equal(t, confv1.Statistics{Passed: count}, status.Statistics, what)
}

func claimedFeatures(t *testing.T, options upstream.ConformanceOptions) sets.Set[string] {
	t.Helper()
	var class gatewayv1.GatewayClass
	key := types.NamespacedName{Name: options.GatewayClassName}
	require.NoError(t, options.Client.Get(context.Background(), key, &class))
	names := sets.New[string]()
	for _, feature := range class.Status.SupportedFeatures {
		names.Insert(string(feature.Name))
	}
	return names
}

// testedFeatures are those of all tests but the ones of service meshes, which a gateway is not.
func testedFeatures() sets.Set[string] {
	names := sets.New[string]()
	for _, test := range tests.ConformanceTests {
		if !slices.Contains(test.Features, features.SupportMesh) {
			for _, feature := range test.Features {
				names.Insert(string(feature))
			}
		}
	}
	for feature := range untested {
		names.Insert(string(feature))
	}
	return names
}
