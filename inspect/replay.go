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
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	request, err := x.replayRequest(c)
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
		if request.http2 {
			request.sendHTTP2(life, up, sent)
			return
		}
		request.send(up, sent)
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

// outgoing is a request that is sent again.
type outgoing struct {
	http2   bool // as it came
	method  string
	target  string
	host    string
	headers []Field // without host and length
	body    []byte
	length  bool // is said, even if it is 0
}

// send writes the request as HTTP/1.1, tells sent how that went, and reads the
// answer to its end: a server need not close a connection just because it was
// asked to. The tap shows the answer, and what is wrong with it.
func (o *outgoing) send(up net.Conn, sent chan<- error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", o.method, o.target, o.host)
	for _, f := range o.headers {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	if o.length {
		b.WriteString("Content-Length: " + strconv.Itoa(len(o.body)) + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	b.Write(o.body)
	_, err := up.Write(b.Bytes())
	sent <- err
	if err != nil {
		return
	}
	r := bufio.NewReader(up)
	answer, err := http.ReadResponse(r, &http.Request{Method: o.method})
	for err == nil && answer.StatusCode < 200 {
		answer, err = http.ReadResponse(r, &http.Request{Method: o.method})
	}
	if err != nil {
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
}

// sendHTTP2 does the same over HTTP/2.
func (o *outgoing) sendHTTP2(ctx context.Context, up net.Conn, sent chan<- error) {
	var once sync.Once
	tell := func(err error) { once.Do(func() { sent <- err }) }
	trace := &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) { tell(w.Err) }}
	request := (&http.Request{
		Method: o.method, URL: &url.URL{Scheme: "http", Host: o.host, Opaque: o.target}, Host: o.host, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(o.body)), ContentLength: int64(len(o.body)),
	}).WithContext(httptrace.WithClientTrace(ctx, trace))
	for _, f := range o.headers {
		request.Header.Add(f.Name, f.Value)
	}
	if len(o.body) == 0 {
		request.Body = nil
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true) // whatever up is, TLS is below it
	transport := &http.Transport{Protocols: protocols, DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return up, nil }}
	defer transport.CloseIdleConnections()
	answer, err := transport.RoundTrip(request)
	tell(err) // where nothing was written
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
func (x *exchange) replayRequest(c Changes) (*outgoing, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.cannotReplay(); err != nil {
		return nil, err
	}
	original := x.request.fields
	o := &outgoing{http2: x.request.proto == "HTTP/2.0", method: x.method, target: x.target, host: original.find("Host"), body: x.request.body.bytes()}
	headers := []Field(original)
	if c.Method != nil {
		o.method = *c.Method
	}
	if c.Path != nil {
		o.target = *c.Path
	}
	if c.Headers != nil {
		headers = unmask(*c.Headers, original)
	}
	switch {
	case c.Body != nil:
		o.body = *c.Body
	case x.request.cut:
		return nil, ErrNotWhole
	}
	if !isToken(o.method) || o.target == "" || strings.ContainsAny(o.target, " \t\r\n\x00") {
		return nil, fmt.Errorf("%w: method %q, path %q", ErrChanges, o.method, o.target)
	}
	if o.method == "CONNECT" {
		return nil, fmt.Errorf("%w: CONNECT cannot be replayed", ErrChanges)
	}
	for _, f := range headers {
		switch {
		case !isToken(f.Name) || strings.ContainsAny(f.Value, "\r\n\x00"):
			return nil, fmt.Errorf("%w: header %q", ErrChanges, f.Name)
		case strings.EqualFold(f.Name, "Host"):
			o.host = f.Value
		case strings.EqualFold(f.Name, "Te") && o.http2: // gRPC wants it
			o.headers = append(o.headers, f)
		case slices.ContainsFunc(notReplayed, func(n string) bool { return strings.EqualFold(n, f.Name) }),
			c.Body != nil && strings.EqualFold(f.Name, "Content-Encoding"), original.has("Connection", f.Name):
		default:
			o.headers = append(o.headers, f)
		}
	}
	o.length = len(o.body) > 0 || hasBody(o.method, original)
	return o, nil
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
