package agent

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestHandshakeClock(t *testing.T) {
	dir := testDir(t)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	start := func() *handshakeClock {
		t.Helper()
		c, err := openClock(dir)
		if err != nil {
			t.Fatal(err)
		}
		c.now = func() time.Time { return now }
		return c
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c := start()
	if c.check() != nil {
		t.Error("behind at the first start")
	}
	must(c.good())
	now = now.Add(time.Hour)
	must(c.goesOn()) // kept
	now = now.Add(-time.Hour)
	must(c.goesOn())
	if got := c.behind(); got != time.Hour {
		t.Errorf("set back while it ran: behind by %v", got)
	}

	c = start()
	var wrong *clockError
	if err := c.check(); !errors.As(err, &wrong) || wrong.by != time.Hour {
		t.Errorf("after a restart: %v", err)
	}
	must(c.good()) // the edge has forgotten, or the clock was wrong before
	if err := start().check(); err != nil {
		t.Errorf("after the edge has taken it: %v", err)
	}
	now = now.Add(-clockSlack / 2)
	if err := c.check(); err != nil {
		t.Errorf("a correction: %v", err)
	}

	must(os.WriteFile(dir.Path(clockFile), []byte("yesterday"), 0o600))
	if c, err := openClock(dir); err == nil || c.check() != nil {
		t.Errorf("damaged: %v, %v", err, c.check())
	}
}
