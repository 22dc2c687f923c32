// The processes of a control plane and their command lines.

package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// Plane is a running control plane.
type Plane struct {
	binaries    string
	folder      *Folder
	kubeconfig  string
	client      *Client
	etcd        *Child
	server      *Child
	controllers *Child // nil until started
	startServer func() (*Child, error)
	ended       chan *Child // those that ended unasked
}

// startPlane starts etcd and the API server, which waits for etcd.
func startPlane(options Options, folder *Folder) (*Plane, error) {
	ports, err := freePorts(options.address, 3)
	if err != nil {
		return nil, err
	}
	if options.port != 0 {
		ports[2] = options.port
	}
	credentials, err := writeCredentials(folder, options.address, ports[2])
	if err != nil {
		return nil, err
	}
	client, err := newClient(credentials)
	if err != nil {
		return nil, err
	}

	plane := &Plane{
		binaries: options.binaries, folder: folder, kubeconfig: credentials.kubeconfig,
		client: client, ended: make(chan *Child, 3),
	}
	etcdURL := fmt.Sprintf("http://%s:%d", options.address, ports[0])
	peerURL := fmt.Sprintf("http://%s:%d", options.address, ports[1])
	plane.startServer = func() (*Child, error) {
		binary := filepath.Join(options.binaries, "kube-apiserver")
		return startChild(folder, plane.ended, binary, serverArguments(options.address, ports[2], etcdURL, credentials))
	}
	if plane.etcd, err = startChild(folder, plane.ended, "etcd", etcdArguments(folder, etcdURL, peerURL)); err != nil {
		return nil, fmt.Errorf("%w; on Debian, apt-get install etcd-server", err)
	}
	if plane.server, err = plane.startServer(); err != nil {
		return nil, err
	}
	return plane, nil
}

// StartControllers starts the controllers that workloads need. They wait no more than 10 s for the API server, and learn
// of new kinds of objects every 30 s only, so they come when everything is applied.
func (plane *Plane) StartControllers() (err error) {
	binary := filepath.Join(plane.binaries, "kube-controller-manager")
	plane.controllers, err = startChild(plane.folder, plane.ended, binary, controllerArguments(plane.kubeconfig))
	return err
}

// Prepare waits for the API server and applies the manifests, in the background.
func (plane *Plane) Prepare(manifests []string) <-chan error {
	ready := make(chan error, 1)
	go func() {
		if err := plane.client.WaitReady(2 * time.Minute); err != nil {
			ready <- err
			return
		}
		ready <- plane.client.Apply(manifests)
	}()
	return ready
}

// RestartServer kills the API server as a crash would and starts it again on the same port and data.
func (plane *Plane) RestartServer() error {
	plane.server.Kill()
	server, err := plane.startServer()
	if err != nil {
		return fmt.Errorf("restart the API server: %w", err)
	}
	plane.server = server
	return nil
}

// Kill ends all processes.
func (plane *Plane) Kill() {
	for _, child := range []*Child{plane.controllers, plane.server, plane.etcd} {
		if child != nil {
			child.Kill()
		}
	}
}

func etcdArguments(folder *Folder, clientURL, peerURL string) []string {
	return []string{
		"--data-dir=" + folder.Path("etcd"),
		"--listen-client-urls=" + clientURL, "--advertise-client-urls=" + clientURL,
		"--listen-peer-urls=" + peerURL, "--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster=default=" + peerURL,
		"--log-level=error",
	}
}

func serverArguments(address string, port int, etcdURL string, credentials *Credentials) []string {
	return []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + address, "--advertise-address=" + address, "--secure-port=" + strconv.Itoa(port),
		"--tls-cert-file=" + credentials.certificate, "--tls-private-key-file=" + credentials.key,
		"--token-auth-file=" + credentials.tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + credentials.key, "--service-account-signing-key-file=" + credentials.key,
		// With this plugin a pod waits for a service account and its token, which no controller here makes.
		"--disable-admission-plugins=ServiceAccount",
		// The address may be a loopback one, which the endpoints of the Service `kubernetes` may not have.
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
		"--kubelet-preferred-address-types=InternalIP",
		"--enable-priority-and-fairness=false", "--profiling=false",
	}
}

func controllerArguments(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		// Not those that evict pods from nodes without a heartbeat: the process kubelet sends none.
		"--controllers=deployment-controller,replicaset-controller,endpointslice-controller,namespace-controller,garbage-collector-controller",
		"--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400",
	}
}
