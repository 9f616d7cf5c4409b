package edge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/tunnel"
)

func TestUnchangedRoutesKeepTheirConnections(t *testing.T) {
	r := newRig(t, nil)
	ended := make(chan string, 8)
	watch := func(id tunnel.ID, name string) {
		h := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }
		r.watchedUpstream(id, h, func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				ended <- name
			}
		})
	}
	watch(1, "kept")
	watch(2, "changed")
	watch(3, "changed to")
	watch(4, "removed")
	r.apply(httpEntry(1, "kept.edge.test"), httpEntry(2, "changed.edge.test"), httpEntry(4, "removed.edge.test"))
	c := r.client(nil)
	for _, name := range []string{"kept", "changed", "removed"} {
		if _, body := r.get(c, "https://"+name+".edge.test/"); body != name {
			t.Fatalf("%s: %q", name, body)
		}
	}
	before := len(r.dialer.dials())

	r.apply(httpEntry(1, "kept.edge.test"), httpEntry(3, "changed.edge.test"))
	got := map[string]bool{await(t, ended, "closed connection"): true, await(t, ended, "second closed connection"): true}
	if !got["changed"] || !got["removed"] {
		t.Errorf("closed: %v", got)
	}
	if _, body := r.get(c, "https://kept.edge.test/"); body != "kept" || len(r.dialer.dials()) != before {
		t.Errorf("%q; %d new connections for an unchanged tunnel", body, len(r.dialer.dials())-before)
	}
	if _, body := r.get(c, "https://changed.edge.test/"); body != "changed to" {
		t.Errorf("changed: %q", body)
	}
	if res, _ := r.get(c, "https://removed.edge.test/"); res.StatusCode != 404 {
		t.Errorf("removed: %s", res.Status)
	}
	if len(ended) > 0 {
		t.Errorf("closed too: %s", <-ended)
	}
}

// A request that is under way when its tunnel leaves the table finishes.
func TestApplyLetsRequestsFinish(t *testing.T) {
	r := newRig(t, nil)
	arrived, release := make(chan struct{}), make(chan struct{})
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		io.WriteString(w, "done")
	})
	r.apply(httpEntry(1, "a.edge.test"))
	c := r.client(nil)
	answer := make(chan string, 1)
	go func() {
		res, err := c.Get("https://a.edge.test/")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		answer <- fmt.Sprint(string(b), err)
	}()
	await(t, arrived, "request")
	r.apply()
	close(release)
	if got := await(t, answer, "answer"); got != "done<nil>" {
		t.Errorf("%s", got)
	}
}

func TestDropNodeCutsEverything(t *testing.T) {
	r := newRig(t, nil)
	streaming, waiting := make(chan struct{}, 1), make(chan struct{}, 1)
	gone := make(chan string, 4)
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
			streaming <- struct{}{}
		} else {
			waiting <- struct{}{}
		}
		<-r.Context().Done()
		gone <- r.URL.Path
	})
	port, tcp := r.tcpTunnel(2, func(c net.Conn) { io.Copy(c, c) })
	r.apply(httpEntry(1, "a.edge.test"), tcp)
	c := r.client(nil)

	type result struct {
		status int
		err    error
	}
	results := make(chan result, 2)
	for _, path := range []string{"/stream", "/wait"} {
		go func() {
			res, err := c.Get("https://a.edge.test" + path)
			if err != nil {
				results <- result{0, err}
				return
			}
			defer res.Body.Close()
			_, err = io.ReadAll(res.Body)
			results <- result{res.StatusCode, err}
		}()
	}
	await(t, streaming, "stream")
	await(t, waiting, "request")
	conn := r.dialPort(port)
	echoOver(t, conn, "hello")

	r.DropNode(testAgent)
	for range 2 {
		switch res := await(t, results, "result"); {
		case res.status == 200 && res.err != nil: // the stream broke off
		case res.status == 503 && res.err == nil: // no answer yet: a page
		default:
			t.Errorf("%+v", res)
		}
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the TCP connection is still there")
	}
	await(t, gone, "end at the upstream")
	await(t, gone, "second end at the upstream")
	before := len(r.dialer.dials())
	if res, _ := r.get(c, "https://a.edge.test/"); res.StatusCode != 503 || len(r.dialer.dials()) != before {
		t.Errorf("after: %s, dialled %d times", res.Status, len(r.dialer.dials())-before)
	}
}

// A new process of an agent knows nothing of the connections of the one before:
// they end, and new ones go to it.
func TestRestartNodeCutsWhatWas(t *testing.T) {
	r := newRig(t, nil)
	waiting := make(chan struct{}, 1)
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			waiting <- struct{}{}
			<-r.Context().Done()
		}
	})
	port, tcp := r.tcpTunnel(2, func(c net.Conn) { io.Copy(c, c) })
	r.apply(httpEntry(1, "a.edge.test"), tcp)
	c := r.client(nil)
	status := make(chan string, 1)
	go func() {
		res, err := c.Get("https://a.edge.test/wait")
		if err != nil {
			status <- err.Error()
			return
		}
		defer res.Body.Close()
		status <- fmt.Sprint(res.StatusCode, " ", res.Header.Get("Retry-After"))
	}()
	await(t, waiting, "request")
	conn := r.dialPort(port)
	echoOver(t, conn, "hello")

	r.RestartNode(testAgent)
	if got := await(t, status, "answer"); got != "503 10" {
		t.Errorf("the request that waited: %s", got)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the TCP connection: %v; want a reset", err)
	}
	if res, _ := r.get(c, "https://a.edge.test/"); res.StatusCode != 200 {
		t.Errorf("after: %s", res.Status)
	}
	echoOver(t, r.dialPort(port), "hello again")
	r.DropNode(testAgent)
	r.RestartNode(testAgent)
	if res, _ := r.get(c, "https://a.edge.test/"); res.StatusCode != 503 {
		t.Errorf("a node that was dropped came back: %s", res.Status)
	}
}

// At the end, what is under way finishes and nothing new begins.
func TestDrain(t *testing.T) {
	r := newRig(t, nil)
	arrived, release := make(chan struct{}), make(chan struct{})
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(arrived)
		<-release
		io.WriteString(w, "the rest")
	})
	port, tcp := r.tcpTunnel(2, func(c net.Conn) { io.Copy(c, c) })
	r.apply(httpEntry(1, "a.edge.test"), tcp)
	conn := r.dialPort(port)
	echoOver(t, conn, "before")
	c := r.client(nil)
	res, err := c.Do(r.request("GET", "https://a.edge.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	await(t, arrived, "request")

	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	// The listeners close first; that is how to know that draining has begun.
	for _, addr := range []net.Addr{r.cfg.HTTPS.Addr(), r.cfg.HTTP.Addr(), conn.RemoteAddr()} {
		waitClosed(t, addr)
	}
	echoOver(t, conn, "while draining")
	close(release)
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "the rest" {
		t.Errorf("%q %v", b, err)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended while a connection was open: %v", err)
	default:
	}
	conn.Close()
	if err := await(t, ended, "end"); err != nil {
		t.Error(err)
	}
	if _, err := r.openPort(1); !errors.Is(err, errPortsEnded) {
		t.Errorf("a port opened after the end: %v", err)
	}
}

func (f *front) openPort(port uint16) (*tcpPort, error) {
	f.applyMu.Lock()
	defer f.applyMu.Unlock()
	return f.openPortLocked(port)
}

// Connections that are no requests, or not any more, may finish too.
func TestDrainWaitsForConnections(t *testing.T) {
	r := newRig(t, nil)
	port, tcp := r.tcpTunnel(2, func(c net.Conn) { io.Copy(c, c) })
	r.apply(tcp)
	conn := r.dialPort(port)
	echoOver(t, conn, "before")
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	waitClosed(t, conn.RemoteAddr())
	waitClosed(t, r.cfg.HTTPS.Addr())
	for range 300 {
		echoOver(t, conn, "while draining")
	}
	conn.Close()
	if err := await(t, ended, "end"); err != nil {
		t.Error(err)
	}
}

// What does not finish in time is cut off.
func TestDrainIsBounded(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.drain = 50 * time.Millisecond })
	arrived := make(chan struct{}, 2)
	r.upstream(1, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	port, tcp := r.tcpTunnel(2, func(c net.Conn) { io.Copy(c, c) })
	r.apply(httpEntry(1, "a.edge.test"), tcp)
	conn := r.dialPort(port)
	echoOver(t, conn, "hello")
	old := r.dialTLS("a.edge.test", "http/1.1")
	fmt.Fprint(old, "GET / HTTP/1.1\r\nHost: a.edge.test\r\n\r\n")
	await(t, arrived, "request over HTTP/1.1")
	res, err := r.client(nil).Do(r.request("GET", "https://a.edge.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	await(t, arrived, "request over HTTP/2")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a stream that was cut off looks whole")
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the TCP connection is still there")
	}
}

// waitClosed waits until nobody listens at addr.
func waitClosed(t *testing.T, addr net.Addr) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			return
		}
		c.Close()
	}
	t.Fatalf("%v still listens", addr)
}
