package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/process"
)

// mtus is what "wgexpose status" and "wgexpose edge agents" tell about the size
// of packets, in each end's direction; 0: nothing.
func mtus(t *testing.T, agentDir, edgeDir string) (agent, edge int) {
	t.Helper()
	ask := func(into any, args ...string) {
		t.Helper()
		if err := json.Unmarshal([]byte(process.Run(t, process.Config{Path: binary, Args: args})), into); err != nil {
			t.Fatal(err)
		}
	}
	var status struct {
		Links []struct{ MTU int }
	}
	ask(&status, "status", "--json", "--state", agentDir)
	var row struct{ MTU int }
	ask(&row, "edge", "agents", "--json", "--state", edgeDir)
	if len(status.Links) == 1 {
		agent = status.Links[0].MTU
	}
	return agent, row.MTU
}

// awaitMTU waits until both directions are ok.
func awaitMTU(t *testing.T, agentDir, edgeDir, what string, ok func(n int) bool) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		agent, edge := mtus(t, agentDir, edgeDir)
		switch {
		case ok(agent) && ok(edge):
			return
		case time.Since(begun) > patience:
			t.Fatalf("packets of %d bytes from the agent and %d from the edge, want %s", agent, edge, what)
		}
	}
}

// A loopback takes jumbo packets, which is found out without any traffic.
func TestJumboPacketsOnLoopback(t *testing.T) {
	s := startSystem(t, share{name: "web", kind: "http", upstream: "127.0.0.1:9"})
	awaitMTU(t, s.agentDir(), s.edgeDir(), "jumbo packets", func(n int) bool { return n > 8900 })
}

// A size that is named is kept.
func TestPinnedMTU(t *testing.T) {
	t.Setenv("WGEXPOSE_MTU", "1300")
	s := startSystem(t, share{name: "web", kind: "http", upstream: "127.0.0.1:9"})
	awaitMTU(t, s.agentDir(), s.edgeDir(), "1300", func(n int) bool { return n == 1300 })
}
