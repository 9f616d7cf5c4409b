package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// The protocol on agent.sock: one JSON object per line. A guest or a status
// command sends a request, and the owner answers with messages. The socket is
// open to its user only, so a peer is trusted to be honest and not to be
// bug-free: everything has a limit.

const (
	// localVersion is spoken by owners and guests of the same number only. A
	// guest of another one is told to wait for the owner's end.
	localVersion = 2

	maxLocalLine = 8 << 20         // room for control.MaxTunnels of the longest kind
	localTimeout = 5 * time.Second // for one line to be read or written
)

// Types of a request.
const (
	askRun      = "run"      // take these tunnels, and tell what becomes of them
	askUpdate   = "update"   // after run: take these tunnels in place of those; those with the same number are the same
	askWithdraw = "withdraw" // take them back; the last request
	askStatus   = "status"   // may be asked again on the same connection
)

// request is a line from a guest.
type request struct {
	Version  int        `json:"version"`
	Type     string     `json:"type"`
	PID      int        `json:"pid,omitempty"`
	Name     string     `json:"name,omitempty"`     // run: on the roll
	Tunnels  []offer    `json:"tunnels,omitempty"`  // run, update
	Of       int        `json:"of,omitempty"`       // status: only what is of the command with this process id, the same for a connection
	Visits   bool       `json:"visits,omitempty"`   // status: with those since the last question on the connection
	LogLevel slog.Level `json:"log_level,omitzero"` // run: least level of what is to be told in log messages
	Inspect  Inspect    `json:"inspect,omitzero"`   // run
	Reach    Reach      `json:"reach,omitzero"`     // run: what it would do as the owner

	Certificates Certificates `json:"certificates,omitzero"` // run
}

// Types of a message.
const (
	msgWelcome = "welcome" // the tunnels are taken
	msgEvent   = "event"
	msgEnd     = "end"    // the edge or the owner refuses for good: Error says why
	msgDone    = "done"   // withdrawn, and all connections have ended
	msgBye     = "bye"    // the owner ends; somebody else should take over
	msgStatus  = "status" // Status
	msgLog     = "log"    // Log
)

// message is a line from the owner, and what an inbox holds.
type message struct {
	Version int            `json:"version,omitempty"` // of welcome and end
	Type    string         `json:"type"`
	Event   *Event         `json:"event,omitempty"`
	Number  int            `json:"number,omitempty"`  // of a tunnel's event: which of the request's tunnels
	Refused bool           `json:"refused,omitempty"` // of a tunnel's event: by the edge, or for another command's sake
	Error   *control.Error `json:"error,omitempty"`
	Status  *Status        `json:"status,omitempty"`
	Log     *logLine       `json:"log,omitempty"`
}

// inbox holds messages for one process. Putting never blocks; there is one
// reader.
type inbox struct {
	mu     sync.Mutex // guards all below
	queue  []message
	closed bool
	lost   int           // log lines that there was no room for
	wake   chan struct{} // capacity 1
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) put(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.queue = append(b.queue, m)
	b.signal()
}

// close lets the reader read what is there, and then end.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// next waits for a message. ok is false after the last one, and when ctx ends.
func (b *inbox) next(ctx context.Context) (m message, ok bool) {
	for {
		b.mu.Lock()
		if len(b.queue) > 0 {
			m, b.queue = b.queue[0], b.queue[1:]
			b.mu.Unlock()
			return m, true
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return message{}, false
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return message{}, false
		}
	}
}

// localConn is one end of a connection on agent.sock.
type localConn struct {
	net.Conn
	in *bufio.Reader

	writing sync.Mutex // one line at a time
}

func newLocalConn(c net.Conn) *localConn { return &localConn{Conn: c, in: bufio.NewReader(c)} }

func (c *localConn) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(line) >= maxLocalLine {
		return fmt.Errorf("message of %d bytes, of at most %d", len(line), maxLocalLine)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.SetWriteDeadline(time.Now().Add(localTimeout)); err != nil {
		return err
	}
	_, err = c.Write(append(line, '\n'))
	return err
}

// read waits for a line. The error is io.EOF when the other end has gone.
func (c *localConn) read(v any) error {
	line, err := readLimited(c.in)
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// readSoon is read of a line that must come within localTimeout.
func (c *localConn) readSoon(v any) error {
	if err := c.SetReadDeadline(time.Now().Add(localTimeout)); err != nil {
		return err
	}
	if err := c.read(v); err != nil {
		return err
	}
	return c.SetReadDeadline(time.Time{}) // the next line may take its time
}

// readLimited reads a line of less than maxLocalLine bytes.
func readLimited(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) >= maxLocalLine:
			return nil, fmt.Errorf("line of more than %d bytes", maxLocalLine)
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// codeLocal marks an error that no edge has to do with.
const codeLocal = "local"

// asControl makes any error fit for a message.
func asControl(err error) *control.Error {
	var e *control.Error
	if errors.As(err, &e) {
		return e
	}
	return &control.Error{Code: codeLocal, Message: err.Error()}
}

// fromControl is the inverse: only what the edge said remains a *control.Error.
func fromControl(e *control.Error) error {
	if e.Code == codeLocal || e.Code == CodeNameInUse {
		return errors.New(e.Message)
	}
	return e
}

// versionError tells a command that the owner is of another version.
func versionError(pid int) *control.Error {
	return &control.Error{Code: codeLocal, Message: fmt.Sprintf(
		"the wgexpose command that serves this state directory (process %d) is of another version: stop it, and start all of them with the same version", pid)}
}
