package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// counted is a connection that notes how long each Write was.
type counted struct {
	net.Conn
	mu     sync.Mutex
	writes []int
	err    error // of all writes from now on
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// TestGatheredOrder: what another goroutine writes meanwhile stays whole, and
// nothing is lost or sent twice.
func TestGatheredOrder(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	var g Gathering
	var writers sync.WaitGroup
	put := func(b byte, n int) { // a record
		if _, err := g.Write(near, bytes.Repeat([]byte{b}, n)); err != nil {
			t.Error(err)
		}
	}
	writers.Go(func() {
		for range 200 {
			if _, err := g.Together(near, func() (int, error) {
				for range 5 {
					put('a', 1000)
				}
				return 5000, nil
			}); err != nil {
				t.Error(err)
			}
		}
	})
	writers.Go(func() {
		for range 500 {
			put('b', 1000)
		}
	})
	go func() {
		writers.Wait()
		near.Close()
	}()
	got, err := io.ReadAll(far)
	if err != nil || len(got) != 1_500_000 || bytes.Count(got, []byte("a")) != 1_000_000 {
		t.Fatalf("%d bytes, %d of them from together: %v", len(got), bytes.Count(got, []byte("a")), err)
	}
	for record := range slices.Chunk(got, 1000) {
		if !bytes.Equal(record, bytes.Repeat(record[:1], 1000)) {
			t.Fatal("a record is torn")
		}
	}
}

// TestGatheredError: an error is told by the Write that it concerns, and no byte
// follows where bytes are missing.
func TestGatheredError(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	broken := errors.New("broken")
	under := &counted{Conn: near, err: broken}
	var g Gathering
	record := func() (int, error) { return g.Write(under, make([]byte, 1000)) }
	if n, err := g.Together(under, record); n != 0 || err != broken {
		t.Errorf("wrote %d bytes: %v", n, err)
	}
	under.err = nil
	if n, err := g.Together(under, record); n != 0 || err != broken {
		t.Errorf("afterwards, wrote %d bytes: %v", n, err)
	}
	if n, err := record(); n != 0 || err != broken {
		t.Errorf("afterwards, wrote %d bytes by themselves: %v", n, err)
	}
	if len(under.writes) != 1 {
		t.Errorf("%d writes", len(under.writes))
	}
}
