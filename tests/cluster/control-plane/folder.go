// The temporary folder of a control plane, what is left of earlier ones, and free ports.

package main

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

const folderPrefix = "trigate-control-plane-"

// Folder is a temporary folder, locked for as long as the program that made it lives.
type Folder struct {
	path string
	lock *os.File // never read: it holds the lock
}

// newFolder makes a folder, in memory if there is such a place and no other was asked for: etcd waits for the disk at
// every write.
func newFolder() (*Folder, error) {
	parent := os.TempDir()
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
		parent = "/dev/shm"
	}
	removeAbandoned(parent)
	unlocked, err := os.MkdirTemp(parent, ".trigate-")
	if err != nil {
		return nil, err
	}
	lock, err := os.Open(unlocked)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	// Named only now that it is locked, or another control plane might take it for abandoned.
	path := filepath.Join(parent, folderPrefix+filepath.Base(unlocked)[len(".trigate-"):])
	return &Folder{path: path, lock: lock}, os.Rename(unlocked, path)
}

// removeAbandoned removes the folders whose owners were killed: nobody holds their locks any more.
func removeAbandoned(parent string) {
	paths, _ := filepath.Glob(filepath.Join(parent, folderPrefix+"*"))
	for _, path := range paths {
		folder, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = folder.Close()
	}
}

// Path is the path of a file in the folder.
func (folder *Folder) Path(name string) string {
	return filepath.Join(folder.path, name)
}

// Write writes a file that only its owner can read, and returns its path.
func (folder *Folder) Write(name string, content []byte) (string, error) {
	path := folder.Path(name)
	return path, os.WriteFile(path, content, 0o600)
}

// Remove removes the folder with all that is in it.
func (folder *Folder) Remove() {
	_ = os.RemoveAll(folder.path)
}

// freePorts finds ports below the range that the kernel hands out to clients: there nobody takes one by accident, not
// even while the API server is down between two starts.
func freePorts(address string, count int) ([]int, error) {
	const first, size = 16384, 16384
	var ports []int
	start := rand.IntN(size)
	for i := range size {
		port := first + (start+i)%size
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		_ = listener.Close()
		if ports = append(ports, port); len(ports) == count {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports between 16384 and 32767")
}
