package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// notifyTimeout is how long systemd may take to take a message. A process must
// not stand still for a manager that does.
const notifyTimeout = time.Second

// Notifier tells systemd how the process is (sd_notify(3)). Without systemd it
// does nothing.
type Notifier struct {
	socket string
	log    *slog.Logger
}

// NewNotifier makes one that logs what systemd does not take.
func NewNotifier(log *slog.Logger) *Notifier {
	return &Notifier{socket: os.Getenv("NOTIFY_SOCKET"), log: log}
}

func (n *Notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	if err := n.send(state); err != nil {
		n.log.Warn("tell systemd", "err", err)
	}
}

func (n *Notifier) send(state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}

// Ready says that the process does its work. Saying it again changes nothing.
func (n *Notifier) Ready() { n.tell("READY=1") }

// Stopping says that the process drains.
func (n *Notifier) Stopping() { n.tell("STOPPING=1") }

// Status says in one line what the process is doing, for people.
func (n *Notifier) Status(line string) { n.tell("STATUS=" + line) }

// Watch tells systemd, until ctx ends, that the process is alive: each time that
// check, which should ask the process something that only a live one answers,
// returns nil. When systemd has heard nothing for WatchdogSec=, it starts the
// process anew. Without a watchdog Watch returns at once.
func (n *Notifier) Watch(ctx context.Context, check func(context.Context) error) {
	limit, err := watchdog()
	if err != nil {
		n.log.Warn("read the watchdog's settings", "err", err)
		return
	}
	if limit == 0 || n.socket == "" {
		return
	}
	ticker := time.NewTicker(limit / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		asking, cancel := context.WithTimeout(ctx, limit/3)
		err := check(asking)
		cancel()
		switch {
		case err == nil:
			n.tell("WATCHDOG=1")
		case ctx.Err() == nil:
			n.log.Error("the watchdog got no answer", "err", err)
		}
	}
}

// watchdog is how long systemd waits for a sign of this process, or 0
// (sd_watchdog_enabled(3)).
func watchdog() (time.Duration, error) {
	usec := os.Getenv("WATCHDOG_USEC")
	if usec == "" {
		return 0, nil
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil // meant for the parent
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q, and should be a number of microseconds", usec)
	}
	return time.Duration(n) * time.Microsecond, nil
}
