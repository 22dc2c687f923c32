// The program external-dns says which names external-dns would publish for the HTTPRoutes of a namespace, by its own
// source `gateway-httproute`.
//
//	external-dns KUBECONFIG NAMESPACE
//
// It answers each line of standard input with a line of JSON: the targets of each name, sorted.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"sigs.k8s.io/external-dns/source"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: external-dns KUBECONFIG NAMESPACE"))
	}
	clients := &source.SingletonClientGenerator{KubeConfig: os.Args[1], RequestTimeout: time.Minute}
	routes, err := source.NewGatewayHTTPRouteSource(clients, &source.Config{Namespace: os.Args[2]})
	if err != nil {
		fail(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		endpoints, err := routes.Endpoints(context.Background())
		if err != nil {
			fail(err)
		}
		names := map[string][]string{}
		for _, endpoint := range endpoints {
			names[endpoint.DNSName] = append(names[endpoint.DNSName], endpoint.Targets...)
			slices.Sort(names[endpoint.DNSName])
		}
		answer, err := json.Marshal(names)
		if err != nil {
			fail(err)
		}
		fmt.Println(string(answer))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "external-dns:", err)
	os.Exit(1)
}
