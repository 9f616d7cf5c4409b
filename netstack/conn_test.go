package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestHalfClose(t *testing.T) {
	a, b := wired(t, nil)
	client, server := connected(t, a, b)
	mustWrite(t, client, "question")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(server)
	if err != nil || string(got) != "question" {
		t.Fatalf("server read %q, %v", got, err)
	}
	mustWrite(t, server, "answer")
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	got, err = io.ReadAll(client)
	if err != nil || string(got) != "answer" {
		t.Fatalf("client read %q, %v", got, err)
	}
}

// waitReadable returns when Read would not wait.
func waitReadable(c *Conn) {
	for {
		changed := make(chan struct{})
		if c.WhenReadable(func() { close(changed) }) {
			return
		}
		<-changed
	}
}

// A reset is an error to the reader and to the writer, whichever asks first,
// for ever, and never looks like a clean end.
func TestResetIsNeverACleanEnd(t *testing.T) {
	for _, first := range []string{"read", "write", "close-write", "broken"} {
		t.Run(first+" first", func(t *testing.T) {
			a, b := wired(t, nil)
			client, server := connected(t, a, b)
			server.Abort()
			waitReadable(client)
			read := func() error { _, err := client.Read(make([]byte, 1)); return err }
			write := func() error { _, err := client.Write([]byte("x")); return err }
			order := []func() error{read, write, client.Broken, read, write}
			switch first {
			case "write":
				order = []func() error{write, read, client.Broken, write, read}
			case "close-write":
				order = []func() error{client.CloseWrite, read, write, client.Broken}
			case "broken":
				order = []func() error{client.Broken, client.Broken, read, write}
			}
			for i, f := range order {
				if err := f(); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("call %d: %v, want ECONNRESET", i, err)
				}
			}
		})
	}
}

func TestDataBeforeResetIsRead(t *testing.T) {
	a, b := wired(t, nil)
	client, server := connected(t, a, b)
	mustWrite(t, server, "last words")
	waitReadable(client)
	server.Abort()
	mustRead(t, client, "last words")
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after the data: %v, want ECONNRESET", err)
	}
}

func TestRefused(t *testing.T) {
	a, b := wired(t, nil)
	_, err := a.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(b.Addr(), 9))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v, want ECONNREFUSED", err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 1)
	a, _ := wired(t, func([][]byte) [][]byte { // a black hole
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := a.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(addrB, 80)); !errors.Is(err, context.Canceled) {
		t.Fatalf("dial: %v, want context.Canceled", err)
	}
}

func TestDeadlines(t *testing.T) {
	a, b := wired(t, nil)
	client, server := connected(t, a, b)
	past := time.Now().Add(-time.Second)

	t.Run("ends a pending read", func(t *testing.T) {
		done := make(chan error, 1)
		go func() { _, err := client.Read(make([]byte, 1)); done <- err }()
		client.SetReadDeadline(past)
		var nerr net.Error
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &nerr) || !nerr.Timeout() {
			t.Fatalf("read: %v, want a timeout", err)
		}
		if !client.Readable() {
			t.Fatal("a read whose deadline has passed would wait")
		}
	})
	t.Run("can be taken away", func(t *testing.T) {
		client.SetReadDeadline(time.Time{})
		mustWrite(t, server, "x")
		mustRead(t, client, "x")
	})
	t.Run("ends a write into a full window", func(t *testing.T) {
		client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		chunk := make([]byte, 1<<20)
		for {
			if _, err := client.Write(chunk); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("write: %v, want a timeout", err)
				}
				return
			}
		}
	})
}

func TestCloseEndsPendingCalls(t *testing.T) {
	a, b := wired(t, nil)
	client, _ := connected(t, a, b)
	errs := make(chan error, 1)
	go func() { _, err := client.Read(make([]byte, 1)); errs <- err }()
	client.Close()
	if err := <-errs; !errors.Is(err, net.ErrClosed) {
		t.Errorf("pending call: %v, want net.ErrClosed", err)
	}
	waitReadable(client)
	if err := client.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v, want net.ErrClosed", err)
	}
}

func TestListenerClose(t *testing.T) {
	a, _ := wired(t, nil)
	l, err := a.ListenTCP(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := l.Accept(); done <- err }()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("accept: %v, want net.ErrClosed", err)
	}
	again, err := a.ListenTCP(uint16(l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatalf("the port is not free again: %v", err)
	}
	again.Close()
}

// The source is the visitor's address and port, and the destination an
// address that nobody configured.
func TestForwardKeepsVisitorAndDestination(t *testing.T) {
	a, b := wired(t, nil)
	visitor := netip.MustParseAddrPort("[64:ff9b::203.0.113.7]:54321")
	tunnel := netip.MustParseAddrPort("[fd00:2::1:0:77]:1")
	type seen struct{ from, to netip.AddrPort }
	requests := make(chan seen, 2)
	b.ForwardTCP(func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if got := c.RemoteAddr().(*net.TCPAddr).AddrPort(); got != r.From() {
			t.Errorf("RemoteAddr %v, want %v", got, r.From())
		}
		requests <- seen{r.From(), r.To()}
		io.Copy(c, c)
	})
	first := dial(t, a, visitor, tunnel)
	defer first.Close()
	if got := <-requests; got != (seen{visitor, tunnel}) {
		t.Fatalf("request %v, want %v → %v", got, visitor, tunnel)
	}
	mustWrite(t, first, "hello")
	mustRead(t, first, "hello")

	// The same visitor again, as when its port is in use for another
	// tunnel: a free port of the same address.
	second := dial(t, a, visitor, tunnel)
	defer second.Close()
	got := <-requests
	if got.from.Addr() != visitor.Addr() || got.from.Port() == visitor.Port() {
		t.Fatalf("second connection from %v, want another port of %v", got.from, visitor.Addr())
	}
}

// A dial that names no source comes from the node itself, whatever addresses
// other connections have borrowed meanwhile.
func TestDialFromTheNodeItself(t *testing.T) {
	a, b := wired(t, nil)
	from := make(chan netip.Addr, 1)
	b.ForwardTCP(func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		from <- r.From().Addr()
		io.Copy(io.Discard, c)
		c.Close()
	})
	to := netip.AddrPortFrom(addrB, 1)
	for _, visitor := range []string{"fd00:2::2", "fd00:1::2:0:1", "64:ff9b::203.0.113.7", "2001:db8::1"} {
		defer dial(t, a, netip.AddrPortFrom(netip.MustParseAddr(visitor), 999), to).Close()
		if got := <-from; got != netip.MustParseAddr(visitor) {
			t.Fatalf("visitor %v came from %v", visitor, got)
		}
		own := dial(t, a, netip.AddrPort{}, to)
		defer own.Close()
		if got := <-from; got != addrA {
			t.Fatalf("own connection came from %v, want %v", got, addrA)
		}
		if got := own.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); got != addrA {
			t.Fatalf("own connection says that it is from %v, want %v", got, addrA)
		}
	}
}

func TestRejectIsRefused(t *testing.T) {
	a, b := wired(t, nil)
	b.ForwardTCP(func(r *Request) { r.Reject() })
	if _, err := a.DialTCP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(addrB, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v, want ECONNREFUSED", err)
	}
}

func TestAbortFromHitsOnlyThePrefix(t *testing.T) {
	a, b := wired(t, nil)
	b.ForwardTCP(func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			return // of revoked, aborted before it was accepted; other's shows below
		}
		defer c.Close()
		io.Copy(c, c)
	})
	revoked := dial(t, a, netip.AddrPort{}, netip.MustParseAddrPort("[fd00:2::1]:1"))
	defer revoked.Close()
	other := dial(t, a, netip.AddrPort{}, netip.MustParseAddrPort("[fd00:3::1]:1"))
	defer other.Close()
	if n := a.AbortFrom(netip.MustParsePrefix("fd00:2::/32")); n != 1 {
		t.Fatalf("aborted %d connections, want 1", n)
	}
	if _, err := revoked.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("read of the aborted connection: %v, want an error", err)
	}
	mustWrite(t, other, "still here")
	mustRead(t, other, "still here")
}

func TestBulkArrivesWhole(t *testing.T) {
	a, b := wired(t, nil)
	for _, streams := range []int{1, 8} {
		var wg sync.WaitGroup
		for i := range streams {
			client, server := connected(t, a, b)
			want := make([]byte, 8<<20)
			rand.NewChaCha8([32]byte{byte(i)}).Read(want)
			wg.Go(func() {
				if _, err := io.Copy(client, bytes.NewReader(want)); err != nil {
					t.Error(err)
				}
				client.CloseWrite()
			})
			wg.Go(func() {
				got, err := io.ReadAll(server)
				if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
					t.Errorf("read %d of %d bytes, %v, same: %t", len(got), len(want), err, bytes.Equal(got, want))
				}
			})
		}
		wg.Wait()
	}
	for _, s := range []*Stack{a, b} {
		// Retransmits are not judged: a tail loss probe is sent whenever
		// this machine's scheduler is slower than two round trips.
		if st := s.Stats(); st.Dropped != 0 || st.Filtered != 0 {
			t.Errorf("over a perfect wire: %+v", st)
		}
	}
}

// Parallel bulk flows over a path that loses and reorders nothing send
// nothing twice: neither the queue nor the join reorders a flow, and loss
// detection is not fooled by large segments.
func TestNothingIsSentTwice(t *testing.T) {
	a, b := wired(t, nil)
	b.ForwardTCP(func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, c)
		c.Close()
	})
	const flows, size = 25, 4 << 20
	var wg sync.WaitGroup
	for range flows {
		wg.Go(func() {
			c := dial(t, a, netip.AddrPort{}, netip.AddrPortFrom(addrB, 1))
			if _, err := io.Copy(c, io.LimitReader(zeros{}, size)); err != nil {
				t.Error(err)
			}
			c.CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		})
	}
	wg.Wait()
	// A scheduler that stops this process for longer than the minimum RTO of
	// 200 ms causes some; RACK caused hundreds to thousands.
	if n := a.stack.Stats().TCP.SACKRecovery.Value() + a.stack.Stats().TCP.FastRecovery.Value(); n != 0 {
		t.Errorf("%d recoveries, %d retransmits over a perfect wire", n, a.Stats().Retransmits)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// The other end that closed and then reset is broken too, and an orderly end
// is not.
func TestBrokenAfterTheEnd(t *testing.T) {
	a, b := wired(t, nil)
	client, server := connected(t, a, b)
	if err := client.Broken(); err != nil {
		t.Fatalf("a new connection: %v", err)
	}
	if err := server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read: %v, want the end", err)
	}
	if err := client.Broken(); err != nil {
		t.Fatalf("a half-closed connection: %v", err)
	}
	server.Abort()
	for client.Broken() == nil {
		runtime.Gosched() // nothing tells of it: that is what Broken is for
	}
	if err := client.Broken(); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after the reset: %v, want ECONNRESET", err)
	}
}

// A thousand connections end in every way there is; nothing hangs, and each
// side sees bytes in order and then an end or a reset.
func TestStorm(t *testing.T) {
	// With the usual TIME_WAIT: a SYN that comes together with the last packet
	// of the connection before it, from the same port, may be refused.
	a, b := wiredWith(t, Config{}, nil)
	b.ForwardTCP(func(r *Request) {
		if r.To().Port() == 2 {
			r.Reject()
			return
		}
		c, err := r.Accept()
		if err != nil {
			return // the other side gave up
		}
		io.Copy(c, c)
		c.CloseWrite()
		c.Close()
	})
	const workers, rounds = 16, 64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for range rounds {
				stormOnce(t, a, rng)
			}
		})
	}
	wg.Wait()
	if st := b.Stats(); st.Dropped != 0 {
		t.Errorf("dropped packets: %+v", st)
	}
}

func stormOnce(t *testing.T, a *Stack, rng *rand.Rand) {
	port := uint16(1)
	if rng.IntN(8) == 0 {
		port = 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := a.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(addrB, port))
	if port == 2 {
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial a rejecting port: %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	p := make([]byte, rng.IntN(100_000))
	switch rng.IntN(4) {
	case 0:
		c.Abort()
	case 1:
		c.Write(p)
		c.Close()
	case 2: // an echo to the end
		go func() { c.Write(p); c.CloseWrite() }()
		n, err := io.Copy(io.Discard, c)
		if err != nil || int(n) != len(p) {
			t.Errorf("echo of %d bytes: %d, %v", len(p), n, err)
		}
		c.Close()
	case 3: // abort in the middle
		go c.Write(p)
		io.CopyN(io.Discard, c, int64(len(p)/2))
		c.Abort()
	}
}

// TestWhenReadable looks that each reason to read is told once.
func TestWhenReadable(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(client, server *Conn)
	}{
		{"data", func(_, server *Conn) { mustWrite(t, server, "x") }},
		{"end", func(_, server *Conn) { server.CloseWrite() }},
		{"reset", func(_, server *Conn) { server.Abort() }},
		{"close", func(client, _ *Conn) { client.Close() }},
		{"abort", func(client, _ *Conn) { client.Abort() }},
		{"deadline", func(client, _ *Conn) { client.SetReadDeadline(time.Now().Add(time.Millisecond)) }},
		{"deadline that has passed", func(client, _ *Conn) { client.SetDeadline(time.Now().Add(-time.Second)) }},
	} {
		a, b := wired(t, nil)
		client, server := connected(t, a, b)
		called := make(chan struct{}, 2)
		if client.WhenReadable(func() { called <- struct{}{} }) {
			t.Errorf("%s: readable before", c.name)
		}
		c.do(client, server)
		<-called
		if !client.WhenReadable(func() { called <- struct{}{} }) {
			t.Errorf("%s: not readable after", c.name)
		}
		client.Abort()
		if len(called) != 0 {
			t.Errorf("%s: called again", c.name)
		}
	}
}
