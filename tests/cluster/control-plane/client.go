// A client of the API server that can wait for it and apply manifests.

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Client speaks to the API server as the administrator.
type Client struct {
	server string
	token  string
	http   *http.Client
}

// Manifest is one object as it stands in a file, with the fields that say where it goes.
type Manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	// Of a CustomResourceDefinition only.
	Spec struct {
		Group    string `json:"group"`
		Names    struct{ Plural string }
		Versions []struct {
			Name   string `json:"name"`
			Served bool   `json:"served"`
		}
	} `json:"spec"`

	text []byte
}

func newClient(credentials *Credentials) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(credentials.authority) {
		return nil, errors.New("the authority's certificate cannot be read")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	return &Client{
		server: credentials.server,
		token:  credentials.adminToken,
		http:   &http.Client{Transport: transport, Timeout: 30 * time.Second},
	}, nil
}

// WaitReady waits until the API server says that it is ready.
func (client *Client) WaitReady(timeout time.Duration) error {
	return eventually(timeout, func() error { return client.do(http.MethodGet, "/readyz", "", nil) })
}

// Apply applies the manifests in files and folders by server-side apply: definitions first and, when these are
// served, the rest.
func (client *Client) Apply(paths []string) error {
	manifests, err := readManifests(paths)
	if err != nil {
		return err
	}
	var definitions, others errgroup.Group
	for _, manifest := range manifests {
		if manifest.Kind == "CustomResourceDefinition" {
			definitions.Go(func() error { return client.define(manifest) })
		}
	}
	if err := definitions.Wait(); err != nil {
		return err
	}
	for _, manifest := range manifests {
		if manifest.Kind != "CustomResourceDefinition" {
			others.Go(func() error { return client.apply(manifest) })
		}
	}
	return others.Wait()
}

// define applies a definition and waits until its objects can be listed; the condition Established comes earlier.
func (client *Client) define(manifest Manifest) error {
	if err := client.apply(manifest); err != nil {
		return err
	}
	for _, version := range manifest.Spec.Versions {
		if !version.Served {
			continue
		}
		list := fmt.Sprintf("/apis/%s/%s/%s?limit=1", manifest.Spec.Group, version.Name, manifest.Spec.Names.Plural)
		if err := eventually(30*time.Second, func() error { return client.do(http.MethodGet, list, "", nil) }); err != nil {
			return err
		}
	}
	return nil
}

func (client *Client) apply(manifest Manifest) error {
	path := manifest.path() + "?fieldManager=trigate-tests&force=true"
	return client.do(http.MethodPatch, path, "application/apply-patch+yaml", manifest.text)
}

func (client *Client) do(method, path, contentType string, body []byte) error {
	request, err := http.NewRequest(method, client.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+client.token)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := client.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return nil
}

// path is the object's place in the API. The plural is guessed, which is right for every kind that clusters have.
func (manifest Manifest) path() string {
	plural := strings.ToLower(manifest.Kind)
	switch {
	case strings.HasSuffix(plural, "s"):
		plural += "es"
	case strings.HasSuffix(plural, "y"):
		plural = strings.TrimSuffix(plural, "y") + "ies"
	default:
		plural += "s"
	}
	prefix := "/apis/" + manifest.APIVersion
	if !strings.Contains(manifest.APIVersion, "/") {
		prefix = "/api/" + manifest.APIVersion
	}
	if manifest.Metadata.Namespace != "" {
		prefix += "/namespaces/" + manifest.Metadata.Namespace
	}
	return prefix + "/" + plural + "/" + manifest.Metadata.Name
}

func readManifests(paths []string) ([]Manifest, error) {
	var manifests []Manifest
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err != nil {
			return nil, err
		} else if info.IsDir() {
			files, _ = filepath.Glob(filepath.Join(path, "*.yaml"))
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			ofFile, err := parseManifests(content)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			manifests = append(manifests, ofFile...)
		}
	}
	return manifests, nil
}

func parseManifests(content []byte) ([]Manifest, error) {
	var manifests []Manifest
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return manifests, nil
		}
		if err != nil {
			return nil, err
		}
		manifest := Manifest{text: document}
		if err := yaml.Unmarshal(document, &manifest); err != nil {
			return nil, err
		}
		// A document of comments only has no kind.
		if manifest.Kind != "" {
			manifests = append(manifests, manifest)
		}
	}
}

// eventually tries until it works; after the timeout it gives up with the last error.
func eventually(timeout time.Duration, try func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
