package e2e

import (
	"runtime"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/process"
)

// The first thing that people try: the demo, and the curl line that it prints,
// pasted into a shell.
func TestDemo(t *testing.T) {
	process.Need(t, "curl")
	if runtime.GOOS == "windows" {
		t.Skip("the line is for a POSIX shell")
	}
	p := process.Start(t, process.Config{Name: "demo", Path: binary, Args: []string{"demo", "--listen-https", "127.0.0.1:0"}})
	var line string
	p.AwaitOutput("the demo prints a curl line", func(out string) bool {
		for l := range strings.Lines(out) {
			if l = strings.TrimSpace(l); strings.HasPrefix(l, "curl --cacert ") && strings.HasSuffix(out, "\n") {
				line = l
				return true
			}
		}
		return false
	})
	if got := process.Run(t, process.Config{Path: "/bin/sh", Args: []string{"-c", line}}); !strings.Contains(got, "It works") {
		t.Errorf("%s\nprinted %q", line, got)
	}
	p.Interrupt()
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
}
