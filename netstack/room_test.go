package netstack

import (
	"bytes"
	"io"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// TestRoom has connections write, and looks what rooms they come to.
func TestRoom(t *testing.T) {
	const ms, segment = time.Millisecond, 59400
	for _, c := range []struct {
		name            string
		rtt             time.Duration
		conns, segments int
		every           time.Duration // of which a further connection says something small; 0: once
		alone           bool          // it says so without having heard anything
	}{
		{"alone on one machine", ms, 1, 26, 0, false},
		{"alone beside a dialogue", ms, 1, 7, 200 * ms, false},
		{"alone beside heartbeats", ms, 1, 26, time.Second, false},
		{"two on one machine", ms, 2, 13, 0, false},
		{"8 on one machine", ms, 8, 4, 0, false},
		{"8 beside a dialogue", ms, 8, 1, 200 * ms, false},
		{"8 beside a monologue", ms, 8, 4, 200 * ms, true},
		{"64 on one machine", ms, 64, 1, 0, false},
		{"one over 40 ms beside a dialogue", 40 * ms, 1, windowMost / segment, 200 * ms, false},
		{"8 over 40 ms", 40 * ms, 8, 23, 0, false},
		{"one over 200 ms", 200 * ms, 1, windowMost / segment, 0, false},
	} {
		p := &peer{}
		p.timed(c.rtt, boot)
		rooms := make([]room, c.conns+1)
		for i := range rooms {
			rooms[i].size = 2 * segment
		}
		for now := ms; now < 5*time.Second; now += ms {
			// One says little, and is not busy.
			if now == ms || c.every != 0 && now%c.every == 0 {
				rooms[c.conns].wrote(100, segment, !c.alone, now, p)
			}
			for i := range rooms[:c.conns] {
				rooms[i].wrote(segment, segment, true, now, p)
			}
		}
		for i := range rooms[:c.conns] {
			if got := rooms[i].size; got != c.segments*segment {
				t.Errorf("%s: room for %d bytes, want %d segments", c.name, got, c.segments)
			}
		}
		if got := rooms[c.conns].size; got != 2*segment {
			t.Errorf("%s: room for %d bytes of a connection that says little", c.name, got)
		}
	}
}

// TestRoomWakesWriters holds when gVisor tells of space, which is at half of the
// limit: with room for one segment as soon as less than a packet is left, with room
// for three as soon as one segment is.
func TestRoomWakesWriters(t *testing.T) {
	const mss, segment = 1320, 45 * 1320
	for segments, left := range map[int]int{1: mss, 3: segment} {
		r := room{size: segments * segment}
		if limit := r.limit(segment, mss); limit/2 <= left {
			t.Errorf("a writer with room for %d segments sleeps while %d bytes are left, at a limit of %d", segments, left, limit)
		}
	}
}

// TestAnswersHaveRoom has one of many connections that have room for one segment hear
// something: two segments of its answer need not wait, and then one is the bound again.
func TestAnswersHaveRoom(t *testing.T) {
	const mss, segment = 1320, 45 * 1320
	p := &peer{}
	p.timed(time.Millisecond, boot)
	rooms := make([]room, 64)
	now := time.Millisecond
	for i := range rooms {
		rooms[i].size = 2 * segment
	}
	for ; now < time.Second; now += time.Millisecond {
		for i := range rooms {
			rooms[i].wrote(segment, segment, true, now, p)
		}
	}
	r := &rooms[0]
	unacknowledged := 0
	fits := func() bool { return unacknowledged < r.limit(segment, mss) }
	write := func() {
		r.wrote(segment, segment, false, now, p)
		unacknowledged += segment
	}
	if write(); fits() {
		t.Error("two segments fit what is no answer")
	}
	unacknowledged = 0
	r.answers(segment)
	if write(); !fits() {
		t.Error("the second segment of an answer has to wait")
	}
	if write(); fits() {
		t.Error("the third segment of an answer need not wait")
	}
	unacknowledged = segment
	if fits() {
		t.Error("the room stays larger after an answer's two segments")
	}
}

// TestWritesAreTakenWhole fills a connection that nobody reads, and then empties it.
func TestWritesAreTakenWhole(t *testing.T) {
	a, b := wired(t, nil)
	client, server := connected(t, a, b)
	defer client.Close()
	defer server.Close()
	var sent []byte
	for i := 0; ; i++ {
		p := bytes.Repeat([]byte{byte(i)}, a.segment)
		client.writeMu.Lock()
		n, terr := client.write(p)
		client.writeMu.Unlock()
		if _, full := terr.(*tcpip.ErrWouldBlock); full && n == 0 {
			break
		}
		if terr != nil || n != len(p) {
			t.Fatalf("took %d of %d bytes: %v", n, len(p), terr)
		}
		sent = append(sent, p...)
	}
	// The rest goes as room comes.
	more := bytes.Repeat([]byte{255}, 10*a.segment+1)
	done := make(chan error, 1)
	go func() {
		_, err := client.Write(more)
		done <- err
	}()
	sent = append(sent, more...)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(server, got); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Fatal("other bytes arrived than were sent")
	}
}
