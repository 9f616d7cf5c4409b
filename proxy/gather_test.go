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
