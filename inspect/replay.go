package inspect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Changes are what a replay sends otherwise. Nil fields stay as they were.
type Changes struct {
	Method *string
	// Path is the target, with its query.
	Path *string
	// Headers replaces all headers. A value that is Mask, or holds it as it was
	// shown, stands for the original one.
	Headers *[]Field
	// Body replaces the body. It is sent as it is, without Content-Encoding.
	Body *[]byte
}

// Why a request cannot be sent again.
var (
	ErrUnknown     = errors.New("there is no such request; it may have been dropped to make room")
	ErrUpgraded    = errors.New("a connection that was upgraded cannot be replayed")
	ErrOpaque      = errors.New("this was not understood as a request, so it cannot be replayed")
	ErrNotWhole    = errors.New("only the beginning of this request's body was kept; give a body to replay it with")
	ErrUnderWay    = errors.New("this request is still being received")
	ErrNoRedial    = errors.New("the upstream of this request cannot be dialled from here")
	ErrBusy        = errors.New("too many replays are under way; try again when one has ended")
	ErrChanges     = errors.New("the changed request is not valid HTTP")
	ErrUnreachable = errors.New("the upstream cannot be reached")
)

// maxReplays bounds replays that are under way.
const maxReplays = 8

// cannotReplay is why not, or nil. It is called with x.mu held.
func (x *exchange) cannotReplay() error {
	switch {
	case x.kind == KindOpaque:
		return ErrOpaque
	case x.upgrade != "", x.wantsUpgrade && x.status == 0:
		return ErrUpgraded
	case x.redial == nil:
		return ErrNoRedial
	case x.gone:
		return ErrUnknown
	case !x.request.done && !x.request.cut:
		return ErrUnderWay
	}
	return nil
}

// Replay sends a request again, to the upstream that had it, and returns the
// id of the new exchange as soon as it is sent. The answer goes on to be read
// until it ends or Config.ReplayTimeout is over. Errors wrap one of those
// above, or are ErrClosed.
func (i *Inspector) Replay(ctx context.Context, id string, c Changes) (string, error) {
	x := i.find(id)
	if x == nil {
		return "", ErrUnknown
	}
	request, method, err := x.replayRequest(c)
	if err != nil {
		return "", err
	}
	select {
	case i.slots <- struct{}{}:
	default:
		return "", ErrBusy
	}
	free := func() { <-i.slots }
	if !i.enter() {
		free()
		return "", ErrClosed
	}
	life, cancel := context.WithTimeout(i.life, i.cfg.ReplayTimeout)
	stop := context.AfterFunc(ctx, cancel)
	done := func() {
		cancel()
		free()
		i.replays.Done()
	}
	raw, err := x.redial(life)
	if err != nil {
		stop()
		done()
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	sequence := i.nextID()
	up, s := i.tap(raw, func(m Meta, redial Redial) *session {
		s := i.newSession(m, redial)
		s.preset, s.replays = sequence, x.sequence
		return s
	}, x.Meta, x.redial)
	if s == nil {
		raw.Close()
		stop()
		done()
		return "", ErrClosed
	}
	abortUp := context.AfterFunc(life, func() { up.(interface{ Abort() }).Abort() })
	sent := make(chan error, 1)
	go func() {
		defer done()
		defer abortUp()
		defer up.Close()
		_, err := up.Write(request)
		sent <- err
		if err == nil {
			receive(up, method)
		}
	}()
	err = <-sent
	// The caller may go now; the answer is still waited for.
	stop()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := i.settle(ctx, s); err != nil {
		return "", err
	}
	return i.id(sequence), nil
}

// enter counts a replay, unless the Inspector was closed.
func (i *Inspector) enter() bool {
	i.closeMu.Lock()
	defer i.closeMu.Unlock()
	if i.closed.Load() {
		return false
	}
	i.replays.Add(1)
	return true
}

// settle waits until all that passed s so far was parsed.
func (i *Inspector) settle(ctx context.Context, s *session) error {
	mark, wake := s.sync()
	s.wake(wake)
	select {
	case <-mark:
		return nil
	case <-i.life.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive reads an answer to its end; the tap shows it, and shows what is
// wrong with it. A server need not close a connection just because it was
// asked to.
func receive(up net.Conn, method string) {
	r := bufio.NewReader(up)
	answer, err := http.ReadResponse(r, &http.Request{Method: method})
	for err == nil && answer.StatusCode < 200 {
		answer, err = http.ReadResponse(r, &http.Request{Method: method})
	}
	if err != nil {
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
}

// notReplayed are fields that belong to the first connection.
var notReplayed = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect", "Content-Length",
}

// replayRequest is the request as it is sent again.
func (x *exchange) replayRequest(c Changes) (wire []byte, method string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.cannotReplay(); err != nil {
		return nil, "", err
	}
	method, target, headers, body := x.method, x.target, []Field(x.request.fields), x.request.body
	if c.Method != nil {
		method = *c.Method
	}
	if c.Path != nil {
		target = *c.Path
	}
	if c.Headers != nil {
		headers = unmask(*c.Headers, x.request.fields)
	}
	switch {
	case c.Body != nil:
		body = *c.Body
	case x.request.cut:
		return nil, "", ErrNotWhole
	}
	if !isToken(method) || target == "" || strings.ContainsAny(target, " \t\r\n\x00") {
		return nil, "", fmt.Errorf("%w: method %q, path %q", ErrChanges, method, target)
	}
	if method == "CONNECT" {
		return nil, "", fmt.Errorf("%w: CONNECT cannot be replayed", ErrChanges)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, target)
	dropped := func(name string) bool {
		return slices.ContainsFunc(notReplayed, func(n string) bool { return strings.EqualFold(n, name) }) ||
			(c.Body != nil && strings.EqualFold(name, "Content-Encoding")) || x.request.fields.has("Connection", name)
	}
	host := false
	for _, f := range headers {
		if !isToken(f.Name) || strings.ContainsAny(f.Value, "\r\n\x00") {
			return nil, "", fmt.Errorf("%w: header %q", ErrChanges, f.Name)
		}
		if dropped(f.Name) {
			continue
		}
		host = host || strings.EqualFold(f.Name, "Host")
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	if !host {
		b.WriteString("Host: " + x.request.fields.find("Host") + "\r\n")
	}
	if len(body) > 0 || hasBody(method, x.request.fields) {
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	b.Write(body)
	return b.Bytes(), method, nil
}

// hasBody tells whether a length of 0 is said: by methods that are expected to
// bring a body, and where the original said it.
func hasBody(method string, original fields) bool {
	switch method {
	case "POST", "PUT", "PATCH":
		return true
	}
	return original.find("Content-Length") != ""
}
