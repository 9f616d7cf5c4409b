package wg

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// noted is a connection that notes what each Write and each Together brought.
type noted struct {
	net.Conn
	writes    [][]byte
	togethers []int // the bytes that each was told of
}

func (c *noted) Write(p []byte) (int, error) {
	c.writes = append(c.writes, bytes.Clone(p))
	return len(p), nil
}

func (c *noted) Together(write func() (int, error)) (int, error) {
	n, err := write()
	c.togethers = append(c.togethers, n)
	return n, err
}

func (c *noted) Widen() {}

// What waits comes out in order, in blocks that are full, and what follows is in
// others.
func TestOutbox(t *testing.T) {
	set := newTestStreams(t)
	box := outbox{blocks: &set.blocks}
	if got := box.take(); len(got) != 0 {
		t.Fatalf("%d blocks at the beginning", len(got))
	}
	for round := range 3 {
		var want, got []byte
		for _, size := range []int{100, 16_380, 1452, 0xffff, 60_000, 5_000, 1, 0xffff} {
			p := bytes.Repeat([]byte{byte(size + round)}, size)
			want = append(want, frame(p)...)
			if dropped, err := box.put([][]byte{p}); dropped != 0 || err != nil {
				t.Fatalf("a packet of %d bytes: %d dropped, %v", size, dropped, err)
			}
		}
		taken := box.take()
		if _, err := box.put([][]byte{[]byte("meanwhile")}); err != nil {
			t.Fatal(err)
		}
		for _, b := range taken {
			if cap(b.frames) != blockSize {
				t.Errorf("a block has grown to %d bytes", cap(b.frames))
			}
			got = append(got, b.frames...)
			set.blocks.put(b)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: %d bytes that are not the %d", round, len(got), len(want))
		}
		if len(taken) != 4 {
			t.Errorf("%d blocks, want 4", len(taken))
		}
		if rest := box.take(); len(rest) != 1 || !bytes.Equal(rest[0].frames, frame([]byte("meanwhile"))) {
			t.Fatalf("what came meanwhile is %v", rest)
		}
	}
}

// The outbox has a bound, tells what it does not take, and has room again once it
// was emptied. The bound is larger as long as nothing has waited for long.
func TestOutboxBound(t *testing.T) {
	synctest.Test(t, testOutboxBound)
}

func testOutboxBound(t *testing.T) {
	set := newTestStreams(t)
	box := outbox{blocks: &set.blocks}
	packets := slices.Repeat([][]byte{make([]byte, 10_000-frameHeader)}, 300)
	empty := func() {
		for _, b := range box.take() {
			set.blocks.put(b)
		}
	}
	for range 2 {
		if dropped, err := box.put(packets); dropped != len(packets)-outboxBurst/10_000 || err != nil {
			t.Errorf("%d dropped of a burst, want %d: %v", dropped, len(packets)-outboxBurst/10_000, err)
		}
		if dropped, err := box.put(packets[:1]); dropped != 1 || err != nil {
			t.Errorf("%d dropped of a full one, want 1: %v", dropped, err)
		}
		empty()
		if dropped, err := box.put(packets[:1]); dropped != 0 || err != nil {
			t.Errorf("%d dropped of an empty one: %v", dropped, err)
		}
		time.Sleep(outboxPatience)
		if dropped, err := box.put(packets); dropped != len(packets)+1-outboxSize/10_000 || err != nil {
			t.Errorf("%d dropped of a slow one, want %d: %v", dropped, len(packets)+1-outboxSize/10_000, err)
		}
		empty()
	}
	// A writer that takes long to write what it took is as slow.
	box.put(packets[:1])
	taken := box.take()
	time.Sleep(outboxPatience)
	if dropped, err := box.put(packets); dropped != len(packets)-outboxSize/10_000 || err != nil {
		t.Errorf("%d dropped behind a slow write, want %d: %v", dropped, len(packets)-outboxSize/10_000, err)
	}
	set.blocks.put(taken[0])
	empty()
	empty()
	time.Sleep(outboxPatience)
	if dropped, err := box.put(packets); dropped != len(packets)-outboxBurst/10_000 || err != nil {
		t.Errorf("%d dropped of a burst when all was written, want %d: %v", dropped, len(packets)-outboxBurst/10_000, err)
	}
	empty()
	if _, err := box.put([][]byte{make([]byte, 0x10000)}); err == nil {
		t.Error("a packet that has no frame was taken")
	}
	box.close()
	if _, err := box.put(packets); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// Records begin where frames begin, and hold as many as fit; the records of a block
// leave together. Where the connection is no TLS, a block is one write.
func TestFramesInRecords(t *testing.T) {
	p := func(size int) []byte { return frame(message(device.MessageTransportType, size-frameHeader)) }
	large, small := p(recordSize), p(1400)
	huge := p(maxFrame - 9*1400)
	var eleven []byte
	for range 11 {
		eleven = append(eleven, small...)
	}
	for _, c := range []struct {
		name string
		want [][]byte
	}{
		{"one small", [][]byte{small}},
		{"four that fit", [][]byte{large, large, large, large}},
		{"small before and behind", [][]byte{small, large, eleven, small}},
		{"larger than a record", [][]byte{small, huge, append(bytes.Clone(small), small...)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			frames := slices.Concat(c.want...)
			var plain, secure noted
			if err := writeBlock(&plain, nil, frames); err != nil {
				t.Fatal(err)
			}
			if len(plain.writes) != 1 || !bytes.Equal(plain.writes[0], frames) {
				t.Errorf("%d writes without TLS", len(plain.writes))
			}
			if err := writeBlock(&secure, &secure, frames); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(secure.writes, c.want, bytes.Equal) {
				t.Errorf("%d writes, want %d", len(secure.writes), len(c.want))
			}
			if !slices.Equal(secure.togethers, []int{len(frames)}) {
				t.Errorf("together %v, want %d", secure.togethers, len(frames))
			}
		})
	}
}
