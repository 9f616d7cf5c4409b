package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wgexpose/wgexpose/proxy"
)

// counted is a connection that notes how long each Write was.
type counted struct {
	net.Conn
	mu     sync.Mutex
	writes []int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// TestRecordsTogether has an answer's pieces go to a visitor on a new connection,
// whose first TLS records are as small as packets: each piece leaves in one write,
// and is the same at the other end.
func TestRecordsTogether(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	near, far := net.Pipe()
	under := &counted{Conn: near}
	server := tls.Server(&tap{Conn: under, passing: true}, cert.TLS.Clone())
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	defer client.Close()

	pieces := [][]byte{
		bytes.Repeat([]byte("a"), 100), bytes.Repeat([]byte("b"), 32<<10), bytes.Repeat([]byte("c"), 5000),
		bytes.Repeat([]byte("d"), 200<<10), // more than is gathered
	}
	var want, got []byte
	var sending sync.WaitGroup
	var first int
	sending.Go(func() {
		defer server.Close()
		if err := server.Handshake(); err != nil {
			t.Error(err)
			return
		}
		under.mu.Lock()
		first = len(under.writes)
		under.mu.Unlock()
		c := proxy.Secured(server)
		for _, p := range pieces {
			if n, err := c.Write(p); n != len(p) || err != nil {
				t.Errorf("wrote %d of %d bytes: %v", n, len(p), err)
			}
		}
	})
	got, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	sending.Wait()
	for _, p := range pieces {
		want = append(want, p...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came that are not the %d sent", len(got), len(want))
	}
	// The last piece takes several; what comes behind it is the end.
	if writes := under.writes[first:]; len(writes) < 4 || writes[0] < 100 || writes[1] < 32<<10 || writes[2] < 5000 || len(writes) > 9 {
		t.Errorf("writes of %v bytes", writes)
	}
}

// countedListener has its connections count what is written to them.
type countedListener struct {
	net.Listener
	mu       sync.Mutex
	accepted []*counted
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := &counted{Conn: c}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = append(l.accepted, n)
	return n, nil
}

// take is how long the writes to the first connection were since the last call.
func (l *countedListener) take() []int {
	l.mu.Lock()
	c := l.accepted[0]
	l.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	writes := c.writes
	c.writes = nil
	return writes
}

// mailbox is a connection to an upstream that says what the test says, one string
// for each Read.
type mailbox struct {
	net.Conn // closed with this

	mu     sync.Mutex // guards what follows
	change sync.Cond
	asked  bool // a request came: before, nothing is to be heard
	said   []string
	ended  bool
}

func newMailbox(t *testing.T) *mailbox {
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	m := &mailbox{Conn: near}
	m.change.L = &m.mu
	return m
}

func (m *mailbox) say(pieces ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, pieces...)
	m.change.Broadcast()
}

// sayLast says pieces and is gone at the same time.
func (m *mailbox) sayLast(pieces ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said, m.ended = append(m.said, pieces...), true
	m.change.Broadcast()
}

func (m *mailbox) Readable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended || m.asked && len(m.said) > 0
}

func (m *mailbox) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = true
	m.change.Broadcast()
	return len(p), nil
}

func (m *mailbox) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.asked || len(m.said) == 0 {
		if m.ended {
			return 0, io.EOF
		}
		m.change.Wait()
	}
	n := copy(p, m.said[0])
	if m.said[0] = m.said[0][n:]; m.said[0] == "" {
		m.said = m.said[1:]
	}
	return n, nil
}

func (m *mailbox) Close() error {
	m.mu.Lock()
	m.ended = true
	m.change.Broadcast()
	m.mu.Unlock()
	return m.Conn.Close()
}

// inParts is an answer that comes in parts.
type inParts struct {
	header string
	said   [][]string // what is there at the same time; the first has the header in front of it
	bytes  []int      // of the body, so far
	writes []int      // to a visitor with HTTP/1.1, how many; of the last, the server adds to what ended
}

func answersInParts() map[string]inParts {
	page := func(n int) string { return string(bytes.Repeat([]byte("x"), n)) }
	chunk := func(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, page(n)) }
	return map[string]inParts{
		"short":               {"Content-Length: 1000", [][]string{{page(1000)}}, []int{1000}, []int{1}},
		"in two packets":      {"Content-Length: 9000", [][]string{{page(1000), page(8000)}}, []int{9000}, []int{1}},
		"header first":        {"Content-Length: 9000", [][]string{{""}, {page(9000)}}, []int{0, 9000}, []int{1, 1}},
		"bit by bit":          {"Content-Length: 9000", [][]string{{page(1)}, {page(8000)}, {page(999)}}, []int{1, 8001, 9000}, []int{1, 1, 1}},
		"more than is held":   {"Content-Length: 200000", [][]string{{page(60000), page(60000), page(80000)}}, []int{200000}, []int{4}},
		"of unknown length":   {"Transfer-Encoding: chunked", [][]string{{chunk(1000)}, {chunk(5000), chunk(3000)}, {"0\r\n\r\n"}}, []int{1000, 9000, 9000}, []int{1, 1, 1}},
		"of unknown, at once": {"Transfer-Encoding: chunked", [][]string{{chunk(1000) + "0\r\n\r\n"}}, []int{1000}, []int{2}},
	}
}

// saying serves a tunnel by an upstream that says parts of c when the result is called,
// with the number of the part.
func (r *rig) saying(c inParts) func(part int) {
	upstream := newMailbox(r.t)
	r.apply(httpEntry(1, "app.edge.test"))
	r.dialer.set(1, func(context.Context) (net.Conn, error) { return upstream, nil })
	return func(part int) {
		pieces := slices.Clone(c.said[part])
		if part == 0 {
			pieces[0] = "HTTP/1.1 200 OK\r\n" + c.header + "\r\n\r\n" + pieces[0]
		}
		upstream.say(pieces...)
	}
}

// TestAnswersLeaveInTime has an upstream say parts of an answer, each after the visitor
// has got the one before.
func TestAnswersLeaveInTime(t *testing.T) {
	for name, c := range answersInParts() {
		for proto, client := range map[string]func(*rig) *http.Client{
			"HTTP/2": func(r *rig) *http.Client { return r.client(nil) },
			"HTTP/3": (*rig).client3,
		} {
			t.Run(name+" over "+proto, func(t *testing.T) {
				r := newRig(t, withHTTP3(nil))
				say := r.saying(c)
				say(0)
				res, err := client(r).Do(r.request(http.MethodGet, "https://app.edge.test/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.Proto != proto+".0" {
					t.Fatalf("the answer came by %s", res.Proto)
				}
				total := 0
				for i, sofar := range c.bytes {
					if i > 0 {
						say(i)
					}
					n, err := io.CopyN(io.Discard, res.Body, int64(sofar-total))
					if total += int(n); err != nil {
						t.Fatalf("part %d: %v", i, err)
					}
				}
				if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
					t.Fatalf("%d bytes more: %v", len(rest), err)
				}
			})
		}
	}
}

// TestLastWordsArrive has an upstream die in the middle of an answer: what it said before
// may be why, and must not look like all of it.
func TestLastWordsArrive(t *testing.T) {
	words := strings.Repeat("x", 20)
	for kind, c := range map[string]struct{ header, said string }{
		"of known length":   {"Content-Length: 9000", words},
		"of unknown length": {"Transfer-Encoding: chunked", "14\r\n" + words + "\r\n"},
	} {
		for proto, client := range map[string]func(*rig) *http.Client{
			"HTTP/1.1": func(r *rig) *http.Client {
				return r.client(func(tr *http.Transport) { tr.ForceAttemptHTTP2 = false })
			},
			"HTTP/2.0": func(r *rig) *http.Client { return r.client(nil) },
			"HTTP/3.0": (*rig).client3,
		} {
			t.Run(kind+" over "+proto, func(t *testing.T) {
				r := newRig(t, withHTTP3(nil))
				upstream := newMailbox(t)
				r.apply(httpEntry(1, "app.edge.test"))
				r.dialer.set(1, func(context.Context) (net.Conn, error) { return upstream, nil })
				upstream.say("HTTP/1.1 200 OK\r\n" + c.header + "\r\n\r\n" + c.said)
				res, err := client(r).Do(r.request(http.MethodGet, "https://app.edge.test/", nil))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.Proto != proto {
					t.Fatalf("the answer came by %s", res.Proto)
				}
				if _, err := io.ReadFull(res.Body, make([]byte, len(words))); err != nil {
					t.Fatal(err)
				}
				upstream.sayLast(c.said)
				b, err := io.ReadAll(res.Body)
				rest := string(b)
				// A reset of a stream of QUIC drops what is under way (RFC 9000, section 3.1).
				if lost := proto == "HTTP/3.0" && strings.HasPrefix(words, rest); err == nil || rest != words && !lost {
					t.Errorf("%d bytes of the last %d came, and then %v", len(rest), len(words), err)
				}
			})
		}
	}
}

// TestAnswersLeaveTogether has an upstream say parts of an answer, and looks what
// leaves: what it has said, before it says more, in one write.
func TestAnswersLeaveTogether(t *testing.T) {
	for name, c := range answersInParts() {
		t.Run(name, func(t *testing.T) {
			var visitors *countedListener
			r := newRig(t, func(r *rig) {
				visitors = &countedListener{Listener: r.cfg.HTTPS}
				r.cfg.HTTPS = visitors
			})
			say := r.saying(c)
			conn := r.dialTLS("app.edge.test", "http/1.1")
			br := bufio.NewReader(conn)
			visitors.take()
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.edge.test\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			var res *http.Response
			total := 0
			for i := range c.said {
				say(i)
				if res == nil {
					var err error
					if res, err = http.ReadResponse(br, nil); err != nil {
						t.Fatal(err)
					}
				}
				n, err := io.CopyN(io.Discard, res.Body, int64(c.bytes[i]-total))
				if total += int(n); err != nil {
					t.Fatal(err)
				}
				if i == len(c.said)-1 {
					if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
						t.Fatalf("%d bytes more: %v", len(rest), err)
					}
				}
				if writes := visitors.take(); len(writes) != c.writes[i] {
					t.Errorf("part %d left in writes of %v bytes, want %d", i, writes, c.writes[i])
				}
			}
		})
	}
}
