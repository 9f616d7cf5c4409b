package e2e

import (
	"context"
	"net"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen at once.
const patience = 60 * time.Second

// edgeDialer connects to one address whatever name is asked for.
type edgeDialer struct {
	net.Dialer
	addr string
}

func (d *edgeDialer) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	return d.Dialer.DialContext(ctx, network, d.addr)
}

// dial connects to a public TCP port, from a source address unless it is "".
// What does not happen within patience fails.
func dial(t *testing.T, from, to string) *net.TCPConn {
	t.Helper()
	var d net.Dialer
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// testTimeout fires when the test has waited long enough.
func testTimeout(t *testing.T) <-chan time.Time {
	timer := time.NewTimer(patience)
	t.Cleanup(func() { timer.Stop() })
	return timer.C
}
