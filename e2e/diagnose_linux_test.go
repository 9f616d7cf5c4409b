package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/lab"
)

// check is a line of "wgexpose diagnose --json".
type check struct{ Check, Target, Result, Found, Advice string }

type checks []check

// diagnose runs the command at home and returns what it found.
func (w *world) diagnose(t *testing.T) (all checks, failed bool) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command(w.program, "diagnose", "--json", "--state", w.agentDir())
	cmd.Env = append(cmd.Environ(), w.agentEnv...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := w.atHome()(cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	for line := range strings.Lines(out.String()) {
		var c check
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		t.Logf("%+v", c)
		if c.Result != "ok" && c.Result != "skip" && c.Advice == "" {
			t.Errorf("no advice: %+v", c)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		t.Fatalf("it says nothing: %v, %s", err, &errOut)
	}
	return all, err != nil
}

// want looks for a line.
func (cs checks) want(t *testing.T, name, target, result, found string) {
	t.Helper()
	for _, c := range cs {
		if c.Check == name && c.Target == target {
			if c.Result != result || !strings.Contains(c.Found, found) {
				t.Errorf("%+v, want %s and %q", c, result, found)
			}
			return
		}
	}
	t.Errorf("nothing is said of %s %s", name, target)
}

const (
	edgeUDP  = edgeName + ":51820"
	edgeUDP2 = edgeName + ":51821"
	edgeTLS  = edgeName + ":443"
)

func TestDiagnose(t *testing.T) {
	w := startWorld(t, worldOptions{clock: true})
	t.Run("while a command runs", func(t *testing.T) {
		all, failed := w.diagnose(t)
		if failed {
			t.Error("it fails")
		}
		all.want(t, "agent", edgeUDP, "ok", "up over udp")
		all.want(t, "udp", "", "skip", "one place at a time")
	})
	kill(w.agent)
	t.Run("all is well", func(t *testing.T) {
		all, failed := w.diagnose(t)
		if failed {
			t.Error("it fails")
		}
		all.want(t, "state", "", "ok", "laptop")
		all.want(t, "dns", edgeName, "ok", lab.Cloud.String())
		all.want(t, "proxy", edgeTLS, "ok", "none")
		all.want(t, "tls", edgeTLS, "ok", "takes WireGuard packets")
		all.want(t, "clock", edgeTLS, "ok", "")
		all.want(t, "udp", edgeUDP, "ok", "there and back")
		all.want(t, "udp", edgeUDP2, "ok", "there and back")
		all.want(t, "mtu", edgeUDP, "ok", "packets of")
		all.want(t, "nat", "", "ok", "the edge sees 198.18.0.1:")
	})
	t.Run("a port and HTTPS are closed, and the path is narrow", func(t *testing.T) {
		w.lab.Filter("udp dport 51821 drop\ntcp dport 443 reject with tcp reset\n")
		narrow := lab.Good
		narrow.MTU = 1300
		w.lab.Wire(narrow)
		all, failed := w.diagnose(t)
		w.lab.Wire(lab.Good)
		w.lab.Filter("")
		if !failed {
			t.Error("it does not fail")
		}
		all.want(t, "tls", edgeTLS, "fail", "refused")
		all.want(t, "udp", edgeUDP, "ok", "there and back")
		all.want(t, "udp", edgeUDP2, "fail", "does not answer")
		all.want(t, "mtu", edgeUDP, "warn", "")
	})
	t.Run("the clock is wrong", func(t *testing.T) {
		w.setClock(t, -time.Hour)
		all, failed := w.diagnose(t)
		if !failed {
			t.Error("it does not fail")
		}
		all.want(t, "clock", edgeTLS, "warn", "off by")
		all.want(t, "clock", "", "fail", "less than at its last handshake")
		all.want(t, "udp", edgeUDP, "fail", "does not answer")
	})
}
