package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestServerAnswersOnlyAfterTheEnd(t *testing.T) {
	client, server, done := relayed(t)
	send(t, client, "question")
	closeWrite(t, client)
	expect(t, server, "question")
	expectEOF(t, server)
	send(t, server, "late answer")
	closeWrite(t, server)
	expect(t, client, "late answer")
	expectEOF(t, client)
	if got, want := wait(t, done), (outcome{Stats{8, 11}, nil}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestClientGoesOnAfterTheServersEnd(t *testing.T) {
	client, server, done := relayed(t)
	closeWrite(t, server)
	expectEOF(t, client)
	send(t, client, "still here")
	closeWrite(t, client)
	expect(t, server, "still here")
	expectEOF(t, server)
	if got, want := wait(t, done), (outcome{Stats{10, 0}, nil}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUnixSockets(t *testing.T) {
	client, a := socketPair(t, "unix", filepath.Join(t.TempDir(), "a.sock"))
	b, server := socketPair(t, "unix", filepath.Join(t.TempDir(), "b.sock"))
	done := start(t, t.Context(), a, b)
	send(t, client, "question")
	closeWrite(t, client.(*net.UnixConn))
	expect(t, server, "question")
	expectEOF(t, server)
	send(t, server, "answer")
	server.Close()
	expect(t, client, "answer")
	expectEOF(t, client)
	if got, want := wait(t, done), (outcome{Stats{8, 6}, nil}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A connection without a half-close ends as a whole, and that is no error.
func TestWithoutHalfClose(t *testing.T) {
	for _, first := range []string{"pipe", "server"} {
		t.Run(first+" ends first", func(t *testing.T) {
			client, a := net.Pipe()
			b, server := tcpPair(t)
			done := start(t, t.Context(), a, b)
			send(t, client, "hello")
			expect(t, server, "hello")
			send(t, server, "hi")
			expect(t, client, "hi")
			if first == "pipe" {
				client.Close()
				expectEOF(t, server)
				server.Close()
			} else {
				server.Close()
				expectEOF(t, client)
			}
			if got, want := wait(t, done), (outcome{Stats{5, 2}, nil}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestBigTransfersBothWays(t *testing.T) {
	const size = 64 << 20
	client, server, done := relayed(t)
	ends := []*net.TCPConn{client, server}
	sent, received := make([][]byte, 2), make([][]byte, 2)
	var wg sync.WaitGroup
	for i, c := range ends {
		wg.Go(func() {
			random := rand.NewChaCha8([32]byte{byte(i)})
			h := sha256.New()
			if _, err := io.Copy(io.MultiWriter(c, h), io.LimitReader(random, size)); err != nil {
				t.Errorf("send: %v", err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			sent[i] = h.Sum(nil)
		})
		wg.Go(func() {
			h := sha256.New()
			if _, err := io.Copy(h, c); err != nil {
				t.Errorf("receive: %v", err)
			}
			received[1-i] = h.Sum(nil)
		})
	}
	wg.Wait()
	for i := range sent {
		if !bytes.Equal(sent[i], received[i]) {
			t.Errorf("direction %d: other bytes arrived than were sent", i)
		}
	}
	if got, want := wait(t, done), (outcome{Stats{size, size}, nil}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A side that does not read stalls its own direction and no other.
func TestStalledSideHoldsUpItsDirectionOnly(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	client, a := tcpPair(t)
	b, server := tcpPair(t)
	done := start(t, ctx, a, b)

	var wg sync.WaitGroup
	wg.Go(func() { // the client never reads, so this ends with the relay
		_, err := io.Copy(server, zeros{})
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("flood ended with %v", err)
		}
	})
	for range 100 {
		send(t, client, "ping")
		expect(t, server, "ping")
	}
	eventually(t, "the relay waits for the client to read", func() bool { return buffers.out.Load() == 1 })
	why := errors.New("drained")
	cancel(why)
	got := wait(t, done)
	if got.err != why {
		t.Errorf("error %v, want the cause of the cancellation", got.err)
	}
	if got.AtoB != 400 || got.BtoA == 0 {
		t.Errorf("counted %+v, want 400 bytes and the part of the flood that was taken", got.Stats)
	}
	expectReset(t, client)
	wg.Wait()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestCancelledBeforeTheStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	client, a := tcpPair(t)
	b, server := tcpPair(t)
	if got := wait(t, start(t, ctx, a, b)); !errors.Is(got.err, context.Canceled) {
		t.Errorf("error %v, want %v", got.err, context.Canceled)
	}
	expectReset(t, client)
	expectReset(t, server)
}

// Whatever the two sides do in whatever order, Copy returns, no clean end is
// made up, and no buffer stays out.
func TestRandomEnds(t *testing.T) {
	const relays, atOnce = 3000, 48
	tokens := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range relays {
		tokens <- struct{}{}
		client, a := tcpPair(t)
		b, server := tcpPair(t)
		done := start(t, t.Context(), a, b)
		wg.Go(func() {
			defer func() { <-tokens }()
			random := rand.New(rand.NewPCG(1, uint64(i)))
			plans := [2]plan{newPlan(random), newPlan(random)}
			var acts sync.WaitGroup
			var seen [2]seen
			for k, c := range []*net.TCPConn{client, server} {
				acts.Go(func() { seen[k] = plans[k].act(c) })
			}
			acts.Wait()
			got := wait(t, done)
			clean := !plans[0].reset && !plans[1].reset
			if clean && got.err != nil {
				t.Errorf("relay %d %+v: %v", i, plans, got.err)
			}
			for k := range seen {
				other := plans[1-k]
				if other.reset && seen[k].err == nil {
					t.Errorf("relay %d %+v: side %d took a reset for an end after %d bytes", i, plans, k, seen[k].bytes)
				}
				if clean && (seen[k].err != nil || seen[k].bytes != other.bytes) {
					t.Errorf("relay %d %+v: side %d saw %+v", i, plans, k, seen[k])
				}
			}
		})
	}
	wg.Wait()
	if out := buffers.out.Load(); out != 0 {
		t.Errorf("%d buffers are still out", out)
	}
}

// plan is what one side of a relay does: send so many bytes, then end.
type plan struct {
	bytes int64
	reset bool // end with a RST instead of a FIN
}

// seen is what one side read: the number of bytes, and nil after a clean end.
type seen struct {
	bytes int64
	err   error
}

func newPlan(random *rand.Rand) plan {
	sizes := []int64{0, 1, 1000, 100_000, 3_000_000}
	return plan{bytes: sizes[random.IntN(len(sizes))], reset: random.IntN(3) == 0}
}

func (p plan) act(c *net.TCPConn) (s seen) {
	var reading sync.WaitGroup
	reading.Go(func() { s.bytes, s.err = io.Copy(io.Discard, struct{ io.Reader }{c}) })
	_, err := io.CopyN(c, zeros{}, p.bytes)
	switch {
	case p.reset:
		Abort(c)
	case err == nil:
		err = c.CloseWrite()
	}
	reading.Wait()
	if s.err == nil {
		// The kernel tells of a reset once, and may have told the writer.
		s.err = err
	}
	c.Close()
	return s
}

// 2,000 connections that have moved bytes and now wait hold no buffer.
func TestIdleRelaysHoldNoBuffer(t *testing.T) {
	const relays = 2000
	type ends struct {
		client, server *net.TCPConn
		done           <-chan outcome
	}
	var all []ends
	for range relays {
		client, server, done := relayed(t)
		all = append(all, ends{client, server, done})
	}
	for _, e := range all {
		send(t, e.client, "ping")
		expect(t, e.server, "ping")
		send(t, e.server, "pong")
		expect(t, e.client, "pong")
	}
	eventually(t, "all buffers are back", func() bool { return buffers.out.Load() == 0 })
	for _, e := range all {
		e.client.Close()
		e.server.Close()
	}
	for _, e := range all {
		if got, want := wait(t, e.done), (outcome{Stats{4, 4}, nil}); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

func BenchmarkCopy(b *testing.B) {
	client, server, done := relayed(b)
	for _, c := range []net.Conn{client, server} {
		if err := c.SetDeadline(time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	go func() {
		for b.Loop() {
			if _, err := client.Write(chunk); err != nil {
				b.Error(err)
				break
			}
		}
		client.CloseWrite()
	}()
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{server}); err != nil {
		b.Fatal(err)
	}
	server.Close()
	wait(b, done)
}
