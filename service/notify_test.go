package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// systemdSocket is the other end of NOTIFY_SOCKET.
func systemdSocket(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotifier(t *testing.T) {
	next := systemdSocket(t)
	n := NewNotifier(slog.New(slog.DiscardHandler))
	n.Ready()
	n.Status("connected to edge 1")
	n.Stopping()
	for _, want := range []string{"READY=1", "STATUS=connected to edge 1", "STOPPING=1"} {
		if got := next(); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

// The watchdog hears of a process that answers, and of no other.
func TestWatch(t *testing.T) {
	next := systemdSocket(t)
	t.Setenv("WATCHDOG_USEC", "3000") // a question each millisecond
	var log strings.Builder
	n := NewNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		n.Watch(ctx, func(context.Context) error {
			if asked++; asked < 4 {
				return errors.New("stuck")
			}
			return nil
		})
	})
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("told %q", got)
	}
	cancel()
	wg.Wait()
	if asked < 4 || strings.Count(log.String(), "stuck") != 3 {
		t.Errorf("asked %d times, logged %s", asked, log.String())
	}
}

func TestWatchdogSettings(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		ok        bool
	}{
		{"", "", 0, true},
		{"2000000", "", 2 * time.Second, true},
		{"2000000", strconv.Itoa(os.Getpid()), 2 * time.Second, true},
		{"2000000", "1", 0, true},
		{"soon", "", 0, false},
		{"-1", "", 0, false},
		{"9223372036854775807", "", 0, false},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got, err := watchdog(); got != c.want || (err == nil) != c.ok {
			t.Errorf("%q for process %q: %v, %v", c.usec, c.pid, got, err)
		}
	}
}

// A manager that reads nothing holds nobody up for ever.
func TestDeafManager(t *testing.T) {
	systemdSocket(t)
	n := NewNotifier(slog.New(slog.DiscardHandler))
	for err := error(nil); !errors.Is(err, os.ErrDeadlineExceeded); err = n.send("STATUS=x") {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	var log strings.Builder
	n := NewNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	n.Ready()
	n.Watch(t.Context(), func(context.Context) error { return nil }) // returns at once
	if log.Len() > 0 {
		t.Error(log.String())
	}
}
