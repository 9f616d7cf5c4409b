package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// binary is the program under test. TestMain builds it.
var binary string

// raced says that the binary has the race detector in it.
var raced = os.Getenv("WGEXPOSE_E2E_RACE") == "1"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wgexpose-e2e-")
	if err == nil {
		binary, err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	for _, d := range append(madeDirs, dir) {
		os.RemoveAll(d)
	}
	os.Exit(code)
}

func build(dir string, flags ...string) (string, error) {
	path := filepath.Join(dir, "wgexpose")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	args := []string{"build", "-o", path}
	if raced {
		args = append(args, "-race")
	}
	args = append(args, flags...)
	cmd := exec.Command("go", append(args, "./cmd/wgexpose")...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}
