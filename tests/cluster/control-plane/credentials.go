// What the API server and its clients prove themselves with.

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// Credentials are the files and secrets of a control plane.
type Credentials struct {
	server      string // URL of the API server
	authority   []byte // PEM of the certificate authority
	certificate string // file: certificate of the API server
	key         string // file: its key, which signs service account tokens, too
	tokens      string // file: who the bearer tokens belong to
	adminToken  string
	kubeconfig  string // file: a context for every user, the current one is `admin`
}

// users maps a user to the groups that decide what it may do: `admin` everything, the others what a test grants them.
var users = []struct{ name, groups string }{
	{"admin", "system:masters"},
	{"trigate", ""},
	{"nobody", ""},
}

func writeCredentials(folder *Folder, address string, port int) (*Credentials, error) {
	credentials := &Credentials{server: fmt.Sprintf("https://%s", net.JoinHostPort(address, fmt.Sprint(port)))}
	certificate, key, err := credentials.issueCertificate(address)
	if err != nil {
		return nil, err
	}
	if credentials.certificate, err = folder.Write("server.crt", certificate); err != nil {
		return nil, err
	}
	if credentials.key, err = folder.Write("server.key", key); err != nil {
		return nil, err
	}

	var tokens, clusterUsers, contexts strings.Builder
	for _, user := range users {
		token := rand.Text()
		if user.name == "admin" {
			credentials.adminToken = token
		}
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, user.name, user.name, user.groups)
		fmt.Fprintf(&clusterUsers, "- name: %s\n  user: {token: %q}\n", user.name, token)
		fmt.Fprintf(&contexts, "- name: %s\n  context: {cluster: test, user: %s}\n", user.name, user.name)
	}
	if credentials.tokens, err = folder.Write("tokens.csv", []byte(tokens.String())); err != nil {
		return nil, err
	}
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: admin
clusters:
- name: test
  cluster: {server: %q, certificate-authority-data: %s}
users:
%scontexts:
%s`, credentials.server, base64.StdEncoding.EncodeToString(credentials.authority), clusterUsers.String(), contexts.String())
	credentials.kubeconfig, err = folder.Write("kubeconfig", []byte(kubeconfig))
	return credentials, err
}

// issueCertificate makes an authority and has it sign a certificate for the API server.
func (credentials *Credentials) issueCertificate(address string) (certificate, key []byte, err error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "trigate tests"},
		// Clocks of virtual machines jump back now and then.
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, nil, err
	}
	credentials.authority = encodePEM("CERTIFICATE", authorityDER)

	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.ParseIP(address)},
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, serverKey.Public(), authorityKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(serverKey)
	return encodePEM("CERTIFICATE", serverDER), encodePEM("EC PRIVATE KEY", keyDER), err
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
