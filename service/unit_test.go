package service

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden units")

func specs() map[string]Spec {
	return map[string]Spec{
		"wgexpose-edge": {Role: Edge, Executable: "/usr/local/bin/wgexpose", State: "/var/lib/wgexpose",
			Args: []string{"edge", "--state", "/var/lib/wgexpose", "--config", "/etc/wgexpose/edge.yml"}},
		"wgexpose-agent": {Role: Agent, Executable: "/usr/local/bin/wgexpose", State: "/var/lib/wgexpose-agent",
			Args: []string{"up", "--state", "/var/lib/wgexpose-agent", "--config", "/etc/wgexpose/wgexpose.yml"}},
		"wgexpose-agent-user": {Role: Agent, User: true, Executable: "/usr/local/bin/wgexpose", State: "/home/me/.local/state/wgexpose",
			Args: []string{"up", "--state", "/home/me/.local/state/wgexpose", "--config", "/home/me/100% mine/$x \"y\".yml"}},
	}
}

func TestUnits(t *testing.T) {
	for name, spec := range specs() {
		text, err := Unit(spec)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name+".service")
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("%s is not as its golden file (go test ./service -update, then read the difference):\n%s", name, text)
		}
	}
}

// analyze finds the program that judges units, or skips.
func analyze(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return program
}

// written writes a unit that runs a program which is there.
func written(t *testing.T, spec Spec) string {
	t.Helper()
	spec.Executable = "/bin/true"
	text, err := Unit(spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), spec.Name()+".service")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// systemd itself must understand every line. It only warns of those that it does
// not know, and then ends with success.
func TestUnitsVerify(t *testing.T) {
	program := analyze(t)
	for name, spec := range specs() {
		args := []string{"verify", "--man=no", "--recursive-errors=one"}
		if spec.User {
			args = append(args, "--user")
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
		}
		out, err := exec.Command(program, append(args, written(t, spec))...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	broken := written(t, specs()["wgexpose-edge"])
	text, err := os.ReadFile(broken)
	if err == nil {
		err = os.WriteFile(broken, append(text, "\n[Service]\nProtectEverything=yes\n"...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(program, "verify", "--man=no", broken).CombinedOutput(); !strings.Contains(string(out), "ProtectEverything") {
		t.Errorf("an unknown line is passed over: %s", out)
	}
}

// The exposure of "systemd-analyze security" goes from 0 to 100; most services
// of a distribution are above 80. The edge keeps the network and the right to
// bind low ports.
func TestUnitsSecurity(t *testing.T) {
	program := analyze(t)
	for name, most := range map[string]string{"wgexpose-edge": "16", "wgexpose-agent": "14"} {
		out, err := exec.Command(program, "security", "--offline=yes", "--no-pager", "--threshold="+most, written(t, specs()[name])).CombinedOutput()
		if err != nil {
			t.Errorf("%s is exposed by more than %s: %v\n%s", name, most, err, out)
		}
	}
	if err := exec.Command(program, "security", "--offline=yes", "--threshold=5", written(t, specs()["wgexpose-edge"])).Run(); err == nil {
		t.Error("the threshold has no effect")
	}
}

func TestSpecsThatCannotBe(t *testing.T) {
	good := specs()["wgexpose-edge"]
	for name, change := range map[string]func(*Spec){
		"role":              func(s *Spec) { s.Role = "cow" },
		"relative":          func(s *Spec) { s.Executable = "wgexpose" },
		"relative state":    func(s *Spec) { s.State = "state" },
		"a line of its own": func(s *Spec) { s.Args = append(s.Args, "x\nExecStartPre=/bin/sh") },
		"state elsewhere":   func(s *Spec) { s.State = "/srv/state" },
		"state is all":      func(s *Spec) { s.State = "/var/lib" },
		"two states":        func(s *Spec) { s.State = "/var/lib/a b" },
		"a private state":   func(s *Spec) { s.State = "/var/lib/private/x" },
	} {
		s := good
		change(&s)
		if text, err := Unit(s); err == nil {
			t.Errorf("%s is accepted:\n%s", name, text)
		}
	}
}
