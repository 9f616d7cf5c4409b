package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wgexpose/wgexpose/store"
)

// The test binary runs itself again as another process, and says in these
// variables what that one is to do.
const (
	helperEnv = "WGEXPOSE_TEST_STORE_HELPER"
	pathEnv   = "WGEXPOSE_TEST_STORE_PATH"
)

var helpers = map[string]func(path string) error{
	"hold":   holdOpen,
	"commit": commitForEver,
	"fill":   fillToTheLimit,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](os.Getenv(pathEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// helper is a process, and the lines that it prints.
type helper struct {
	cmd   *exec.Cmd
	lines *bufio.Reader
}

func startHelper(t *testing.T, name, path string) *helper {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+name, pathEnv+"="+path)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &helper{cmd, bufio.NewReader(stdout)}
}

// line waits for a whole line. io.EOF: the process has ended.
func (h *helper) line() (string, error) {
	line, err := h.lines.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// kill ends the process with SIGKILL, and gives the lines that it left.
func (h *helper) kill(t *testing.T) []string {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for {
		line, err := h.line()
		if err == io.EOF { // what has no line end was not said
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := h.cmd.Wait(); err == nil {
		t.Fatal("a process that was to be killed has ended by itself")
	}
	return lines
}

// holdOpen opens a store, says so, and keeps it until it is killed.
func holdOpen(path string) error {
	s, err := store.OpenBolt(path)
	switch {
	case errors.Is(err, store.ErrLocked):
		fmt.Println("locked")
	case err != nil:
		return err
	default:
		defer s.Close()
		fmt.Println("open")
	}
	_, err = os.Stdin.Read(make([]byte, 1)) // never written to
	return err
}

func openBolt(t testing.TB, path string) *store.Bolt {
	t.Helper()
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
