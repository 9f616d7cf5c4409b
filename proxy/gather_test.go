package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// keeper is a [Gatherer] that counts how often something left.
type keeper struct{ released int }

func (k *keeper) Hold() bool { return true }

func (k *keeper) Release() error {
	k.released++
	return nil
}

// mute is a connection to an upstream that has nothing to say, and would wait.
type mute struct{ net.Conn }

func (mute) Readable() bool           { return false }
func (mute) Read([]byte) (int, error) { return 0, io.EOF }

func newGathering(from *upstreamConn) (*gathering, *keeper) {
	k := &keeper{}
	return &gathering{w: httptest.NewRecorder(), to: k, from: from}, k
}

// flushes counts how often the server is told to let go.
type flushes struct {
	*httptest.ResponseRecorder
	n int
}

func (f *flushes) Flush() { f.n++ }

// lastRead is a body that ends while its connection already has another answer.
type lastRead struct {
	io.ReadCloser
	meanwhile func()
}

func (b lastRead) Read([]byte) (int, error) {
	b.meanwhile()
	return 0, io.EOF
}

// The transport has a connection back, and the next answer may come by it, before the
// read that met the end of the one before returns: what the next one holds leaves all
// the same.
func TestEndOfAnAnswerLeavesTheNextAlone(t *testing.T) {
	conn := newUpstreamConn(mute{})
	before, _ := newGathering(conn)
	next, left := newGathering(conn)
	last := &http.Response{ContentLength: 1, Body: lastRead{meanwhile: func() {
		before.from.done(before) // PutIdleConn
		conn.beforeWait(next)
		next.hold()
	}}}
	before.begin(last)
	if _, err := last.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF || left.released != 1 {
		t.Errorf("what was held left %d times before a read that would wait, %v", left.released, err)
	}
	conn.done(next)
	next.hold()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF || left.released != 1 {
		t.Errorf("what is held left %d times, and once for an answer that has ended; %v", left.released, err)
	}
}

// The connection of an answer to HEAD is in the pool before the answer is here.
func TestAnswerWithoutABodyIsNotHeld(t *testing.T) {
	conn := newUpstreamConn(mute{})
	head, _ := newGathering(conn)
	if head.begin(&http.Response{ContentLength: 5, Body: http.NoBody}); head.on {
		t.Error("it is held, and so looks at a connection that may be another's")
	}
}

// Over HTTP/2 and HTTP/3 the server is flushed before a read that would wait, and else
// for a header only that says that no length is known.
func TestServerAloneIsFlushedBeforeWaits(t *testing.T) {
	conn := newUpstreamConn(mute{})
	server := &flushes{ResponseRecorder: httptest.NewRecorder()}
	g := &gathering{w: server, from: conn}
	res := &http.Response{ContentLength: -1, Body: io.NopCloser(conn)}
	if g.begin(res); !g.on {
		t.Fatal("it is not on")
	}
	look := func(when string, want int) {
		t.Helper()
		if server.n != want {
			t.Errorf("%s the server was flushed %d times, want %d", when, server.n, want)
		}
	}
	write := func() {
		t.Helper()
		if _, err := g.write(make([]byte, heldMost)); err != nil {
			t.Fatal(err)
		}
		if err := g.flush(); err != nil {
			t.Fatal(err)
		}
	}
	g.hold()
	look("before the header", 0)
	write()
	look("after the header", 1)
	write()
	look("after much", 1)
	for want := range 2 {
		if _, err := res.Body.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		look("before a wait", 2+want)
		if _, err := res.Body.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		look("before a wait with nothing written", 2+want)
		write()
	}
	if err := g.end(); err != nil {
		t.Fatal(err)
	}
	look("at the end", 3)
}
