//go:build unix

package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// onHangup turns SIGHUP into a value of the channel, which holds one. A terminal
// that goes away sends the same signal: end is called then. unhook must be called.
func onHangup(end func()) (asked <-chan struct{}, unhook func()) {
	// With nohup the end of the terminal is to be survived.
	attached := !signal.Ignored(syscall.SIGHUP) && hasTerminal()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	out, stopped := make(chan struct{}, 1), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stopped:
				return
			case <-signals:
			}
			if attached && !hasTerminal() {
				end()
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	})
	return out, func() {
		signal.Stop(signals)
		close(stopped)
		running.Wait()
	}
}

// hasTerminal reports whether the process has a controlling terminal. The system
// takes it away before it sends SIGHUP.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	tty.Close()
	return true
}
