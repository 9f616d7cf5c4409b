package statedir_test

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

	"github.com/wgexpose/wgexpose/statedir"
)

// The test binary runs itself again as another process, and says in these
// variables what that one is to do.
const (
	helperEnv = "WGEXPOSE_TEST_STATEDIR_HELPER"
	pathEnv   = "WGEXPOSE_TEST_STATEDIR_PATH"
)

var helpers = map[string]func(dir *statedir.Dir) error{
	"lock":   holdLock,
	"listen": listen,
	"write":  writeForEver,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		dir, err := statedir.Open(os.Getenv(pathEnv))
		if err == nil {
			err = helpers[name](dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// holdLock takes the lock, or says that it is taken, and waits for its end.
func holdLock(dir *statedir.Dir) error {
	_, err := dir.Lock("test.lock")
	switch {
	case errors.Is(err, statedir.ErrLocked):
		fmt.Println("taken")
	case err != nil:
		return err
	default:
		fmt.Println("locked")
	}
	_, err = os.Stdin.Read(make([]byte, 1)) // never written to
	return err
}

// listen answers one byte to everybody, as the owner of a directory does.
func listen(dir *statedir.Dir) error {
	if _, err := dir.Lock("test.lock"); err != nil {
		return err
	}
	ln, err := dir.ListenUnix("test.sock")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		conn.Close()
	}
}

// writeForEver replaces a file as fast as it can.
func writeForEver(dir *statedir.Dir) error {
	for n := 1; ; n++ {
		if err := dir.WriteFile("file", content(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func content(n int) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("%d\n", n), 1+n*97%3000))
}

// helper is a process, and the lines that it prints.
type helper struct {
	cmd   *exec.Cmd
	lines *bufio.Reader
}

func startHelper(t *testing.T, name, path string, env ...string) *helper {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(append(os.Environ(), helperEnv+"="+name, pathEnv+"="+path), env...)
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

// line waits for a whole line.
func (h *helper) line(t *testing.T) string {
	t.Helper()
	line, err := h.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the other process has ended: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// kill ends the process with SIGKILL, and gives the lines that it left.
func (h *helper) kill(t *testing.T) []string {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(h.lines)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Wait(); err == nil {
		t.Fatal("a process that was to be killed has ended by itself")
	}
	lines := strings.Split(string(rest), "\n")
	return lines[:len(lines)-1]
}

func open(t *testing.T, path string) *statedir.Dir {
	t.Helper()
	dir, err := statedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
