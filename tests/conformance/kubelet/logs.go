// The pods' logs: written line by line with the time, read through the API server.

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Logs are the log files, one for every pod. They stay when the pod goes, for whoever looks for a fault.
type Logs struct {
	folder string
}

func newLogs(folder string) (*Logs, error) {
	logs := &Logs{folder: filepath.Join(folder, "logs")}
	return logs, os.MkdirAll(logs.folder, 0o755)
}

func (logs *Logs) path(namespace, pod string) string {
	return filepath.Join(logs.folder, namespace+"_"+pod+".log")
}

// Open opens a pod's log to append to it.
func (logs *Logs) Open(namespace, pod string) (io.WriteCloser, error) {
	file, err := os.OpenFile(logs.path(namespace, pod), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &timedLines{file: file}, err
}

// timedLines puts the time before every line. Each line is written at once: tests look for it right after a request.
type timedLines struct {
	file    *os.File
	pending []byte // the beginning of a line
}

func (lines *timedLines) Write(output []byte) (int, error) {
	lines.pending = append(lines.pending, output...)
	for {
		line, rest, complete := bytes.Cut(lines.pending, []byte("\n"))
		if !complete {
			return len(output), nil
		}
		if _, err := fmt.Fprintf(lines.file, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano), line); err != nil {
			return 0, err
		}
		lines.pending = rest
	}
}

func (lines *timedLines) Close() error {
	return lines.file.Close()
}

// Serve serves the logs to the API server and returns the port.
func (logs *Logs) Serve(address string) (int32, error) {
	certificate, err := selfSigned()
	if err != nil {
		return 0, err
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(address, "0"), &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return 0, err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", logs.answer)
	go func() { log.Fatal(http.Serve(listener, routes)) }()
	return int32(listener.Addr().(*net.TCPAddr).Port), nil
}

func (logs *Logs) answer(response http.ResponseWriter, request *http.Request) {
	selection, err := parseSelection(request.URL.Query())
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	file, err := os.Open(logs.path(request.PathValue("namespace"), request.PathValue("pod")))
	if err != nil {
		http.Error(response, err.Error(), http.StatusNotFound)
		return
	}
	defer file.Close()
	for _, line := range selection.read(file) {
		fmt.Fprintln(response, line)
	}
}

// selection is which lines of a log are asked for.
type selection struct {
	since      time.Time
	tail       int // -1 is all
	timestamps bool
}

func parseSelection(query url.Values) (selection, error) {
	var err error
	chosen := selection{tail: -1, timestamps: query.Get("timestamps") == "true"}
	if query.Get("follow") == "true" {
		return chosen, fmt.Errorf("follow is not supported")
	}
	if value := query.Get("sinceTime"); value != "" {
		if chosen.since, err = time.Parse(time.RFC3339, value); err != nil {
			return chosen, err
		}
	}
	if value := query.Get("sinceSeconds"); value != "" {
		seconds, err := strconv.Atoi(value)
		if err != nil {
			return chosen, err
		}
		chosen.since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	if value := query.Get("tailLines"); value != "" {
		if chosen.tail, err = strconv.Atoi(value); err != nil {
			return chosen, err
		}
	}
	return chosen, nil
}

func (chosen selection) read(log io.Reader) []string {
	var lines []string
	for scanner := bufio.NewScanner(log); scanner.Scan(); {
		stamp, text, _ := strings.Cut(scanner.Text(), " ")
		if written, err := time.Parse(time.RFC3339Nano, stamp); err != nil || written.Before(chosen.since) {
			continue
		}
		if chosen.timestamps {
			text = scanner.Text()
		}
		lines = append(lines, text)
	}
	if chosen.tail >= 0 && len(lines) > chosen.tail {
		lines = lines[len(lines)-chosen.tail:]
	}
	return lines
}

// selfSigned makes a certificate; the API server does not check whose it is.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: key}, err
}
