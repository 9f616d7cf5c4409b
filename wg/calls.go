package wg

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

const (
	// maxCalls is how many calls are remembered. WireGuard has no more of them
	// waiting (wireguard-go, device/constants.go, QueueHandshakeSize).
	maxCalls = 1024
	// callLife is how long a call is remembered. Whoever has no answer by then
	// has made another (wireguard-go, device/constants.go, RekeyTimeout).
	callLife = 5 * time.Second
)

// calls are the first messages of handshakes that have come of late, and where
// they came from.
//
// A caller sends copies of one message to several addresses. WireGuard drops
// what it has seen before, but it looks and notes in two steps (wireguard-go,
// device/noise-protocol.go, ConsumeMessageInitiation), and has several workers:
// of two copies that come at the same time it may answer both. The second
// answer replaces the keys of the first, with which the caller then sends, and
// nothing gets through until the next handshake. So it is shown one copy.
//
// WireGuard sends its answer to where the peer's last packet came from, which
// is another address than the call's where the peer tries one way while it uses
// another. The caller would learn nothing of the way that it tries. So an answer
// goes back the way that its call came.
type calls struct {
	seed maphash.Seed

	mu     sync.Mutex               // guards all below
	oldest []call                   // first
	seen   map[uint64]struct{}      // by sum
	from   map[uint32]conn.Endpoint // by index; nil: answered, or of two calls
}

type call struct {
	sum   uint64 // of the whole message
	index uint32 // its sender's, to which the answer is addressed
	at    time.Time
}

func newCalls() *calls {
	return &calls{seed: maphash.MakeSeed(), seen: make(map[uint64]struct{}), from: make(map[uint32]conn.Endpoint)}
}

// note reports whether a message is not the copy of another, and remembers it.
func (c *calls) note(message []byte, from conn.Endpoint) bool {
	now := time.Now()
	made := call{maphash.Bytes(c.seed, message), binary.LittleEndian.Uint32(message[4:]), now}
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := 0
	for gone < len(c.oldest) && (len(c.oldest)-gone >= maxCalls || now.Sub(c.oldest[gone].at) > callLife) {
		delete(c.seen, c.oldest[gone].sum)
		delete(c.from, c.oldest[gone].index)
		gone++
	}
	c.oldest = c.oldest[gone:]
	if _, copied := c.seen[made.sum]; copied {
		return false
	}
	if _, taken := c.from[made.index]; taken {
		from = nil
	}
	c.oldest = append(c.oldest, made)
	c.seen[made.sum] = struct{}{}
	c.from[made.index] = from
	return true
}

// caller is where the call came from that a message answers; nil: not known.
func (c *calls) caller(answer []byte) conn.Endpoint {
	index := binary.LittleEndian.Uint32(answer[8:])
	c.mu.Lock()
	defer c.mu.Unlock()
	from := c.from[index]
	if from != nil {
		c.from[index] = nil // which may hold a whole stream
	}
	return from
}

// isInitiation tells the first message of a handshake.
func isInitiation(p []byte) bool {
	return len(p) == device.MessageInitiationSize && binary.LittleEndian.Uint32(p) == device.MessageInitiationType
}

// isResponse tells the answer to it.
func isResponse(p []byte) bool {
	return len(p) == device.MessageResponseSize && binary.LittleEndian.Uint32(p) == device.MessageResponseType
}
