package inspect

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what an Inspector keeps and shows. Zero values are the defaults.
type Config struct {
	// MaxBytes bounds all that is kept: exchanges with their overhead, and
	// what waits to be parsed. 50 MiB.
	MaxBytes int64
	// MaxExchanges bounds how many exchanges are kept. 5000.
	MaxExchanges int
	// BodyLimit is how many bytes of each body are kept. 256 KiB. While so much
	// comes that MaxBytes would be turned over within 2 s, it is 16 KiB at most.
	BodyLimit int
	// HeadLimit is how long a request's or an answer's head may be. A longer
	// one passes, but cannot be shown. 64 KiB.
	HeadLimit int
	// QueueBytes bounds what one connection has waiting to be parsed. 512 KiB.
	QueueBytes int
	// MaxMessages is how many WebSocket messages or server-sent events of one
	// exchange are kept, the newest. 1000.
	MaxMessages int
	// MessageLimit is how many bytes of each of them are kept. 4 KiB.
	MessageLimit int
	// ReplayTimeout bounds a replay, its answer included. 30 s.
	ReplayTimeout time.Duration
	// Unmask shows the values of Authorization, Cookie and the like.
	Unmask bool
	// Hosts are host names and addresses, without port, by which the page may
	// be opened besides localhost and loopback addresses. An unspecified
	// address (0.0.0.0, ::) allows all addresses, but no names.
	Hosts []string
	// Version is shown on the status page.
	Version string
	// Logger takes what the web side has to say; traffic is never logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	set(&c.MaxBytes, 50<<20)
	set(&c.MaxExchanges, 5000)
	set(&c.BodyLimit, 256<<10)
	set(&c.HeadLimit, 64<<10)
	set(&c.QueueBytes, 512<<10)
	set(&c.MaxMessages, 1000)
	set(&c.MessageLimit, 4<<10)
	set(&c.ReplayTimeout, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func set[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Meta says whose connection is tapped. All fields are for display.
type Meta struct {
	Tunnel    string // name
	PublicURL string // "https://app.example.com"
	Upstream  string // "http://127.0.0.1:8089"
	// Visitor is who is connected. It is empty where the edge shares a
	// connection between visitors; each request then says in X-Forwarded-For.
	Visitor string
}

// Redial connects to the upstream once more, for a replay.
type Redial func(ctx context.Context) (net.Conn, error)

// Inspector keeps the exchanges that passed its taps. Its methods may be
// called at any time, beside each other.
type Inspector struct {
	cfg      Config
	ring     *ring
	work     workers
	meters   meters
	watchers watchers
	token    string
	started  time.Time

	queueMax int64        // bytes in all queues
	queued   atomic.Int64 // bytes in all queues
	sequence atomic.Uint64
	conns    atomic.Uint64
	epoch    uint32 // upper half of ids, so that those of another run differ

	closed   atomic.Bool
	replays  sync.WaitGroup
	slots    chan struct{} // a token for each replay under way
	life     context.Context
	endLife  context.CancelFunc
	closeMu  sync.Mutex // guards the start of replays against Close
	released chan struct{}
}

// ErrClosed is returned by calls on an Inspector that was closed.
var ErrClosed = errors.New("the inspector is closed")

// New makes an Inspector. It does no I/O and starts nothing.
func New(cfg Config) *Inspector {
	cfg = cfg.withDefaults()
	i := &Inspector{
		cfg:      cfg,
		token:    randomToken(),
		started:  time.Now(),
		queueMax: cfg.MaxBytes / 8,
		epoch:    uint32(time.Now().Unix()),
		slots:    make(chan struct{}, maxReplays),
		released: make(chan struct{}),
	}
	i.ring = newRing(cfg.MaxBytes-i.queueMax, cfg.MaxExchanges, cfg.BodyLimit)
	i.life, i.endLife = context.WithCancel(context.Background())
	return i
}

func randomToken() string {
	var b [24]byte
	rand.Read(b[:]) // never fails: it ends the process instead (Go 1.24)
	return hex.EncodeToString(b[:])
}

// Close ends all reading along and replaying, and waits until no goroutine of
// the inspector is left. Tapped connections go on as if they were not tapped.
// What was kept can still be read.
func (i *Inspector) Close() error {
	i.closeMu.Lock()
	first := !i.closed.Swap(true)
	i.closeMu.Unlock()
	if !first {
		<-i.released
		return nil
	}
	i.endLife()
	i.replays.Wait()
	i.work.close()
	i.watchers.close()
	close(i.released)
	return nil
}

func (i *Inspector) nextID() uint64 { return i.sequence.Add(1) }

// id is how a sequence number is shown: 16 hexadecimal digits.
func (i *Inspector) id(sequence uint64) string {
	return fmt.Sprintf("%08x%08x", i.epoch, uint32(sequence))
}

// find is the exchange with an id, or nil.
func (i *Inspector) find(id string) *exchange {
	var epoch, sequence uint32
	if len(id) != 16 {
		return nil
	}
	if n, err := fmt.Sscanf(id, "%08x%08x", &epoch, &sequence); n != 2 || err != nil || epoch != i.epoch {
		return nil
	}
	return i.ring.find(uint64(sequence))
}

// Clear forgets all exchanges. Those under way are not shown any more either.
func (i *Inspector) Clear() {
	i.ring.clear()
	i.watchers.cleared()
}
