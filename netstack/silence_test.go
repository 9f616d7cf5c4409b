package netstack

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
)

// sleeper is a pair of stacks whose clock only moves when it is told to, with a
// cable between them that can be cut.
type sleeper struct {
	t     *testing.T
	clock *faketime.ManualClock
	a, b  *Stack
	cut   atomic.Bool
}

func newSleeper(t *testing.T) *sleeper {
	s := &sleeper{t: t, clock: faketime.NewManualClock()}
	// All else has its real default.
	s.a, s.b = wiredWith(t, Config{clock: s.clock}, func(bufs [][]byte) [][]byte {
		if s.cut.Load() {
			return nil
		}
		return bufs
	})
	return s
}

// pass lets time pass. With sending, both ends have something to send again in
// each second, and time does not go on before they have: a connection that
// gives up too early is then not saved by a test that is too quick for it.
func (s *sleeper) pass(d time.Duration, sending bool) {
	s.t.Helper()
	for ; d > 0; d -= maxRTO {
		before := s.a.Stats().Retransmits + s.b.Stats().Retransmits
		s.clock.Advance(maxRTO)
		if !sending {
			continue
		}
		for deadline := time.Now().Add(20 * time.Second); s.a.Stats().Retransmits+s.b.Stats().Retransmits == before; {
			if time.Now().After(deadline) {
				s.t.Fatalf("nothing was sent again, %v before the end", d)
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// arrives reads want from c while time passes.
func (s *sleeper) arrives(c *Conn, want string) {
	s.t.Helper()
	done := make(chan error, 1)
	p := make([]byte, len(want))
	go func() {
		_, err := io.ReadFull(c, p)
		done <- err
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		select {
		case err := <-done:
			if err != nil || string(p) != want {
				s.t.Fatalf("read %q, %v; want %q", p, err, want)
			}
			return
		case <-time.After(time.Millisecond):
			if time.Now().After(deadline) {
				s.t.Fatalf("%q does not arrive", want)
			}
			s.clock.Advance(maxRTO / 10)
		}
	}
}

// fails reads from c until it breaks, while time passes.
func (s *sleeper) fails(c *Conn) error {
	s.t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Millisecond):
			if time.Now().After(deadline) {
				s.t.Fatal("the connection does not end")
			}
			s.clock.Advance(10 * maxRTO)
		}
	}
}

// A laptop that sleeps, or is without a network, for less than a quarter of an
// hour loses no connection: neither one that has something to send, on either
// side, nor one that is idle, whose keepalives go unanswered meanwhile.
func TestConnectionsOutliveSilence(t *testing.T) {
	for _, gap := range []time.Duration{time.Minute, 5 * time.Minute, DefaultSilence - 20*time.Second} {
		t.Run(gap.String(), func(t *testing.T) {
			t.Parallel()
			s := newSleeper(t)
			client, server := connected(t, s.a, s.b)
			idleClient, idleServer := connected(t, s.a, s.b)
			mustWrite(t, client, "before")
			s.arrives(server, "before")
			s.cut.Store(true)
			mustWrite(t, client, "from the client")
			mustWrite(t, server, "from the server")
			s.pass(gap, true)
			s.cut.Store(false)
			s.arrives(server, "from the client")
			s.arrives(client, "from the server")
			mustWrite(t, idleClient, "hello")
			s.arrives(idleServer, "hello")
			mustWrite(t, idleServer, "hello yourself")
			s.arrives(idleClient, "hello yourself")
		})
	}
}

// A connection whose other end never comes back does end: nobody holds its
// memory for ever.
func TestSilenceEndsConnections(t *testing.T) {
	t.Parallel()
	s := newSleeper(t)
	client, server := connected(t, s.a, s.b)
	s.cut.Store(true)
	mustWrite(t, client, "to nobody")
	for name, c := range map[string]*Conn{"with something to send": client, "idle": server} {
		if err := s.fails(c); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("%s: %v, want a timeout", name, err)
		}
	}
}
