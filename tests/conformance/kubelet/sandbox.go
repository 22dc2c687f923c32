// Sandboxes: a process with a network and a root folder of its own.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podInitName is the name under which this program, started again inside a sandbox, knows that it is there.
const podInitName = "pod-init"

// programName is where a pod's program is in its root folder.
const programName = "/program"

// Sandbox is what a pod's process runs in. It travels to the process as JSON.
type Sandbox struct {
	Root        string
	Program     string
	Arguments   []string
	Environment []string
	Address     string
	Gateway     string
}

// Process is a running pod.
type Process struct {
	command *exec.Cmd
	link    netlink.Link
	ended   chan struct{}
	err     error // why it ended; to be read after `ended` is closed
}

// Start starts a process in a sandbox: it waits inside for its end of the cable and for the word that it is there.
func (network *Network) Start(sandbox Sandbox, output io.Writer) (*Process, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	command := exec.Command("/proc/self/exe")
	command.Args = []string{podInitName}
	command.Env = sandbox.Environment
	command.Stdout, command.Stderr = output, output
	command.ExtraFiles = []*os.File{reader}
	// Unsharing mounts, other than cloning them, also keeps ours from seeing the pod's.
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	err = command.Start()
	_ = reader.Close()
	if err != nil {
		return nil, err
	}
	process := &Process{command: command, ended: make(chan struct{})}
	go func() {
		process.err = command.Wait()
		close(process.ended)
	}()
	if process.link, err = network.connect(command.Process.Pid, sandbox.Address); err != nil {
		process.Stop()
		return nil, err
	}
	if err := json.NewEncoder(writer).Encode(sandbox); err != nil {
		process.Stop()
		return nil, err
	}
	return process, nil
}

// PID is the process's id.
func (process *Process) PID() int {
	return process.command.Process.Pid
}

// Ended is closed when the process has ended.
func (process *Process) Ended() <-chan struct{} {
	return process.ended
}

// Err says why the process ended.
func (process *Process) Err() error {
	if process.err == nil {
		return fmt.Errorf("exit status 0")
	}
	return process.err
}

// Stop ends the process within a second.
func (process *Process) Stop() {
	_ = process.command.Process.Signal(unix.SIGTERM)
	select {
	case <-process.ended:
	case <-time.After(time.Second):
		_ = process.command.Process.Kill()
		<-process.ended
	}
}

// Disconnect pulls the ended process's cable. The kernel does so, too, when it removes the namespace, but in its own
// time, and until then the bridge believes that the address is at the end of this cable.
func (process *Process) Disconnect() {
	_ = netlink.LinkDel(process.link)
}

// podInit is the first program in a sandbox: it finishes the inside and becomes the pod's program.
func podInit() error {
	var sandbox Sandbox
	pipe := os.NewFile(3, "sandbox")
	if err := json.NewDecoder(pipe).Decode(&sandbox); err != nil {
		return fmt.Errorf("read the sandbox: %w", err)
	}
	_ = pipe.Close()
	if err := configureInside(sandbox.Address, net.ParseIP(sandbox.Gateway)); err != nil {
		return err
	}
	target := filepath.Join(sandbox.Root, programName)
	if err := os.WriteFile(target, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(sandbox.Program, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", sandbox.Program, err)
	}
	if err := unix.Chroot(sandbox.Root); err != nil {
		return fmt.Errorf("enter %s: %w", sandbox.Root, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	arguments := append([]string{filepath.Base(sandbox.Program)}, sandbox.Arguments...)
	return unix.Exec(programName, arguments, sandbox.Environment)
}
