package relay

import (
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
)

// expectBroken asserts that Copy ended with a reset.
func expectBroken(t testing.TB, done <-chan outcome) outcome {
	t.Helper()
	got := wait(t, done)
	if !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("error %v, want a reset", got.err)
	}
	return got
}

func TestResetOfAnIdleRelay(t *testing.T) {
	t.Run("by the client", func(t *testing.T) {
		client, server, done := relayed(t)
		Abort(client)
		expectReset(t, server)
		expectBroken(t, done)
	})
	t.Run("by the server", func(t *testing.T) {
		client, server, done := relayed(t)
		Abort(server)
		expectReset(t, client)
		expectBroken(t, done)
	})
}

func TestBytesBeforeAResetArriveAndAreCounted(t *testing.T) {
	client, server, done := relayed(t)
	send(t, server, "half an ans")
	expect(t, client, "half an ans")
	Abort(server)
	expectReset(t, client)
	if got, want := expectBroken(t, done).Stats, (Stats{0, 11}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestResetAfterAHalfClose(t *testing.T) {
	client, server, done := relayed(t)
	closeWrite(t, client)
	expectEOF(t, server)
	Abort(server)
	expectReset(t, client)
	expectBroken(t, done)
}

// The client half-closes and then breaks, while the server says nothing that
// could bump into it.
func TestResetAfterTheEndReachesASilentServer(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows is not asked for a socket's error")
	}
	client, server, done := relayed(t)
	closeWrite(t, client)
	expectEOF(t, server)
	Abort(client)
	expectBroken(t, done)
	if _, err := io.Copy(server, zeros{}); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the server's write: %v, want a reset", err)
	}
}

// A server that refuses an upload answers and closes with the upload unread,
// which makes its kernel send a RST behind the answer.
func TestAnswerBeforeAResetIsDelivered(t *testing.T) {
	for range 200 {
		client, server, done := relayed(t)
		flooded := make(chan error, 1)
		go func() {
			_, err := io.Copy(client, zeros{})
			flooded <- err
		}()
		expect(t, server, "\x00\x00\x00")
		send(t, server, "413 too large")
		server.Close()
		expect(t, client, "413 too large")
		if err := <-flooded; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("flood ended with %v", err)
		}
		expectBroken(t, done)
		client.Close()
	}
}

// The kernel tells of a reset once: to the relay's write or to its read. In
// neither case may the client see a clean end.
func TestAResetIsNeverTakenForAnEnd(t *testing.T) {
	for range 500 {
		client, server, done := relayed(t)
		// The client's own writes may be told first as well, so it only
		// reads while another goroutine floods.
		flooded := make(chan struct{})
		go func() {
			defer close(flooded)
			_, _ = io.Copy(client, zeros{}) // ends with the reset that is asserted below
		}()
		expect(t, server, "\x00")
		Abort(server)
		<-flooded
		expectBroken(t, done)
		client.Close()
	}
}

// The client breaks while the relay waits for a server that does not read.
func TestResetBehindAStalledWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows is not asked for a socket's error")
	}
	client, server, done := relayed(t)
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		_, _ = io.Copy(client, zeros{}) // ends with the abort
	}()
	eventually(t, "the relay waits for the server to read", func() bool { return buffers.out.Load() == 1 })
	Abort(client)
	<-flooded
	expectBroken(t, done)
	expectReset(t, server)
}

func TestErrorsNameTheDirection(t *testing.T) {
	client, server, done := relayed(t)
	Abort(server)
	expectReset(t, client)
	err := wait(t, done).err
	if want := "relay b to a: read: read: connection reset by peer"; err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestAsReset(t *testing.T) {
	op := &net.OpError{Op: "write", Net: "tcp", Err: resetAliases[0]}
	if err := asReset(op); !errors.Is(err, syscall.ECONNRESET) || !errors.Is(err, resetAliases[0]) {
		t.Errorf("%v is not both errors", err)
	}
	if err := asReset(io.ErrShortWrite); errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v is a reset", err)
	}
}
