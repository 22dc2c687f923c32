// A process that ends with this program.

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// Child is a process that the kernel kills when this program ends.
type Child struct {
	name    string
	log     string
	process *os.Process
	asked   atomic.Bool   // somebody asked it to end
	done    chan struct{} // closed when it has ended
}

// startChild starts a program whose output goes to a log file in the folder. A child that ends unasked is sent to
// `ended`. Only the main thread may call it, see main.
func startChild(folder *Folder, ended chan<- *Child, binary string, arguments []string) (*Child, error) {
	name := filepath.Base(binary)
	log, err := os.OpenFile(folder.Path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(binary, arguments...)
	command.Stdout, command.Stderr = log, log
	// Collecting garbage rarely makes the API server ready in 5 s rather than 8 s on a busy machine with two cores.
	command.Env = append(os.Environ(), "GOGC=400", "GOMEMLIMIT=700MiB")
	// A process group of its own: an interrupt from the terminal is for us, and we end the children in order.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, err
	}
	child := &Child{name: name, log: log.Name(), process: command.Process, done: make(chan struct{})}
	go func() {
		_ = command.Wait()
		close(child.done)
		if !child.asked.Load() {
			ended <- child
		}
	}()
	return child, nil
}

// Kill ends the child at once and waits until it is gone.
func (child *Child) Kill() {
	child.asked.Store(true)
	_ = child.process.Kill()
	<-child.done
}

// LogTail is the end of what the child printed.
func (child *Child) LogTail() string {
	const limit = 4000
	output, _ := os.ReadFile(child.log)
	output = bytes.TrimSpace(output)
	return string(output[max(0, len(output)-limit):])
}
