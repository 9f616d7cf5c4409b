package agent

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

func testDir(t testing.TB) *statedir.Dir {
	t.Helper()
	// Short, because of the socket in it.
	path, err := os.MkdirTemp("", "wgx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	return openDir(t, filepath.Join(path, "s"))
}

func openDir(t testing.TB, path string) *statedir.Dir {
	t.Helper()
	dir, err := statedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// joined is a state directory that has joined e.
func joined(t testing.TB, e *fakeEdge) (*statedir.Dir, Joined) {
	t.Helper()
	dir := testDir(t)
	j, err := Join(t.Context(), dir, e.invite(), JoinOptions{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	return dir, j
}

// running is a Run in a goroutine and what it said.
type running struct {
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid when done is closed

	mu      sync.Mutex // guards what follows
	events  []Event
	changed chan struct{}
}

// start runs cfg until the test ends or stop is called.
func start(t testing.TB, cfg Config) *running {
	t.Helper()
	r := &running{t: t, done: make(chan struct{}), changed: make(chan struct{})}
	cfg.Events = func(e Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
		close(r.changed)
		r.changed = make(chan struct{})
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = Run(ctx, cfg)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// testWriter shows an agent's log if the test fails.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// stop ends the Run and returns its error.
func (r *running) stop() error {
	r.t.Helper()
	r.cancel()
	return r.wait()
}

func (r *running) wait() error {
	r.t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		r.t.Fatal("Run did not end")
		return nil
	}
}

// await waits for an event that pick accepts, from the nth event on, and
// returns it and the number of the next one.
func (r *running) await(from int, what string, pick func(Event) bool) (Event, int) {
	r.t.Helper()
	end := time.After(patience)
	for i := from; ; {
		r.mu.Lock()
		for ; i < len(r.events); i++ {
			if pick(r.events[i]) {
				e := r.events[i]
				r.mu.Unlock()
				return e, i + 1
			}
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-end:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("no event: %s; there were %+v", what, r.events)
		}
	}
}

// seen is how many events there are so far.
func (r *running) seen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// told are the events from the nth on.
func (r *running) told(n int) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events[n:])
}

// tunnel waits for a tunnel to reach a state.
func (r *running) tunnel(from int, name, state string) (Event, int) {
	r.t.Helper()
	return r.await(from, "tunnel "+name+" "+state, func(e Event) bool {
		return e.Event == EventTunnel && (name == "" || e.Name == name) && e.State == state
	})
}

func (r *running) link(from int, state string) (Event, int) {
	r.t.Helper()
	return r.await(from, "link "+state, func(e Event) bool { return e.Event == EventLink && e.State == state })
}

// echo is an upstream that sends back what it gets, after saying who it is.
func echo(t testing.TB, l net.Listener, greeting string) {
	t.Helper()
	serveConns(t, l, func(c net.Conn) {
		if _, err := io.WriteString(c, greeting+"\n"); err != nil {
			return
		}
		io.Copy(c, c)
	})
}

// serveConns serves a listener until the test ends, and waits for its
// connections.
func serveConns(t testing.TB, l net.Listener, serve func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func tcpTunnel(name, upstream string) Tunnel {
	return Tunnel{Spec: tunnel.Spec{Name: name, Kind: tunnel.TCP, Upstream: upstream}}
}

func httpTunnel(name, upstream string) Tunnel {
	return Tunnel{Spec: tunnel.Spec{Name: name, Kind: tunnel.HTTP, Upstream: upstream}}
}

// talk checks that c leads to the echo upstream with that greeting.
func talk(t testing.TB, c net.Conn, greeting string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	if err != nil || line != greeting+"\n" {
		t.Fatalf("got %q, %v; want %q", line, err, greeting)
	}
	again(t, c)
}

// again checks that a connection that talk has begun goes on.
func again(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "marco\n"); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("marco\n"))
	if _, err := io.ReadFull(c, line); err != nil || string(line) != "marco\n" {
		t.Fatalf("echo: %q, %v", line, err)
	}
}

// offered is tunnels as a process hands them to an owner.
func offered(tunnels ...Tunnel) []offer {
	var all []offer
	for i, t := range tunnels {
		all = append(all, offer{i + 1, t})
	}
	return all
}
