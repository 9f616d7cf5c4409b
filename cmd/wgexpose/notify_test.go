package main

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type scriptKey struct{}

// script is what the commands of one script share beside its processes.
type script struct {
	reports chan string // set by notifysocket
}

// notifysocket: programs that are started from now on report to a socket, as
// they do to systemd, with a watchdog that wants to hear of them often.
func notifySocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: notifysocket")
	}
	path := filepath.Join(ts.MkAbs("."), "n.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	ts.Check(err)
	// All is read at once, as systemd does: a full socket would hold up who writes.
	reports := make(chan string, 10000)
	var reader sync.WaitGroup
	reader.Go(func() {
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return // closed
			}
			reports <- string(buf[:n])
		}
	})
	ts.Defer(func() { conn.Close(); reader.Wait() })
	ts.Value(scriptKey{}).(*script).reports = reports
	ts.Setenv("NOTIFY_SOCKET", path)
	ts.Setenv("WATCHDOG_USEC", "300000")
}

// notified PREFIX: reads on in what programs report until something begins so.
func notified(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: notified PREFIX")
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case report := <-ts.Value(scriptKey{}).(*script).reports:
			if strings.HasPrefix(report, args[0]) {
				return
			}
		case <-limit.C:
			ts.Fatalf("nothing like %s was reported", args[0])
		}
	}
}
