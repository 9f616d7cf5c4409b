package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
)

// A server that answers only after the end of the request must see that end,
// and its answer must still find the visitor.
func TestHalfClose(t *testing.T) {
	server := origin.StartTCP(t, origin.Digest)
	s := startSystem(t, share{name: "digest", kind: "tcp", upstream: server.Addr()})
	for _, n := range []int64{0, 1, 10 << 20} {
		c := dial(t, "", s.addr("digest"))
		if _, err := io.Copy(c, origin.Data(n)); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		_, sum, err := origin.Sum(origin.Data(n))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d %s\n", n, sum); string(got) != want {
			t.Errorf("answer %q, want %q", got, want)
		}
	}
}

// The other half: a server that ends first still gets what the visitor sends.
func TestHalfCloseOfTheServer(t *testing.T) {
	received := make(chan string, 1)
	server := origin.StartTCP(t, func(c *net.TCPConn) {
		if _, err := io.WriteString(c, "bye\n"); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("the server: %v", err)
		}
		received <- string(b)
	})
	s := startSystem(t, share{name: "server", kind: "tcp", upstream: server.Addr()})
	c := dial(t, "", s.addr("server"))
	if got, err := io.ReadAll(c); err != nil || string(got) != "bye\n" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := io.WriteString(c, "after the end"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-received:
		if got != "after the end" {
			t.Errorf("the server got %q", got)
		}
	case <-testTimeout(t):
		t.Fatal("the server still waits for the visitor's end")
	}
}

// A reset stays a reset, in both directions.
func TestResets(t *testing.T) {
	serverSaw := make(chan error, 1)
	server := origin.StartTCP(t, func(c *net.TCPConn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			serverSaw <- fmt.Errorf("no command: %w", err)
			return
		}
		if line == "reset me\n" {
			c.SetLinger(0) // Close sends RST
			return
		}
		io.WriteString(c, "waiting\n")
		_, err = io.Copy(io.Discard, c)
		serverSaw <- err
	})
	s := startSystem(t, share{name: "server", kind: "tcp", upstream: server.Addr()})

	c := dial(t, "", s.addr("server"))
	if _, err := io.WriteString(c, "reset me\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server reset the connection; the visitor read %d bytes, %v", n, err)
	}

	c = dial(t, "", s.addr("server"))
	if _, err := io.WriteString(c, "wait\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != "waiting\n" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-serverSaw:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the visitor reset the connection; the server saw %v", err)
		}
	case <-testTimeout(t):
		t.Error("the server still waits for a visitor who has reset the connection")
	}
}

// An upstream that refuses leads to a reset and not to silence, and serves once
// it is there.
func TestUpstreamThatRefuses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s := startSystem(t, share{name: "nobody", kind: "tcp", upstream: addr})
	c := dial(t, "", s.addr("nobody"))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes from an upstream that is not there", n)
	} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the visitor waits in silence")
	}
}

// 1,000 visitors at once, each with a connection of its own that stays open
// until all are there.
func TestManyConnections(t *testing.T) {
	visitors := 1000
	if raced {
		visitors = 100 // each costs ten times as much
	}
	server := origin.StartTCP(t, origin.Echo)
	web := origin.StartWeb(t)
	web.Together = visitors
	s := startSystem(t,
		share{name: "echo", kind: "tcp", upstream: server.Addr()},
		share{name: "web", kind: "http", upstream: web.Addr()},
	)
	t.Run("tcp", func(t *testing.T) {
		conns := make([]*net.TCPConn, visitors)
		each(t, visitors, func(_ context.Context, i int) error {
			c, err := net.DialTimeout("tcp", s.addr("echo"), patience)
			if err != nil {
				return err
			}
			conns[i] = c.(*net.TCPConn)
			c.SetDeadline(time.Now().Add(2 * patience))
			return exchange(conns[i], fmt.Sprintf("hello from visitor %d\n", i))
		})
		// All are open now, and all still work.
		each(t, visitors, func(_ context.Context, i int) error {
			if err := exchange(conns[i], fmt.Sprintf("%d says %s\n", i, strings.Repeat("x", 10_000))); err != nil {
				return err
			}
			if err := conns[i].CloseWrite(); err != nil {
				return err
			}
			rest, err := io.ReadAll(conns[i])
			if err == nil && len(rest) != 0 {
				err = fmt.Errorf("%d bytes too many", len(rest))
			}
			conns[i].Close()
			return err
		})
	})
	t.Run("https", func(t *testing.T) {
		// The origin answers none before all are waiting.
		each(t, visitors, func(ctx context.Context, _ int) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.public["web"]+"/together", nil)
			if err != nil {
				return err
			}
			resp, err := s.client(false).Do(req) // a client and a connection for each
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err == nil && string(body) != origin.Greeting {
				err = fmt.Errorf("%s: %q", resp.Status, body)
			}
			return err
		})
	})
}

// exchange sends text and expects it back.
func exchange(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("got %.40q back for %.40q", got, text)
	}
	return nil
}

// each calls do for 0 … n-1 at once and reports the first few errors. The first
// one ends the context, as does a time that is long enough.
func each(t *testing.T, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	errs := make(chan error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := do(ctx, i); err != nil {
				cancel()
				errs <- fmt.Errorf("visitor %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	failed := 0
	for err := range errs {
		if failed++; failed <= 5 {
			t.Error(err)
		}
	}
	if failed > 0 {
		t.Fatalf("%d of %d failed", failed, n)
	}
}

// With a PROXY header the upstream learns the visitor's address and port.
func TestProxyProtocol(t *testing.T) {
	visitor := "127.0.0.1"
	if runtime.GOOS == "linux" {
		visitor = "127.0.0.2" // not the agent's
	}
	got := make(chan string, 1)
	server := origin.StartTCP(t, func(c *net.TCPConn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			line = err.Error()
		}
		got <- line
	})
	s := startSystem(t, share{name: "server", kind: "tcp", upstream: server.Addr(), more: "proxy_protocol: v1"})
	c := dial(t, visitor, s.addr("server"))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-got:
		f := strings.Fields(line)
		local := c.LocalAddr().(*net.TCPAddr)
		if len(f) != 6 || f[0] != "PROXY" || f[1] != "TCP4" || f[2] != visitor || f[4] != fmt.Sprint(local.Port) {
			t.Errorf("the upstream was told %q of a visitor from %v", line, local)
		}
	case <-testTimeout(t):
		t.Fatal("the upstream got nothing")
	}
}
