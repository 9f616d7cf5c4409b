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
	"strconv"
	"sync"
)

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
		s.replay(sequence, x.sequence)
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
	url     *url.URL // the target, for HTTP/2; without scheme and host
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
	where := *o.url
	where.Scheme, where.Host = "http", o.host // whatever up is, TLS is below it
	request := (&http.Request{
		// Without a User-Agent net/http has one of its own.
		Method: o.method, URL: &where, Host: o.host, Header: http.Header{"User-Agent": nil},
		Body: io.NopCloser(bytes.NewReader(o.body)), ContentLength: int64(len(o.body)),
	}).WithContext(httptrace.WithClientTrace(ctx, trace))
	for _, f := range o.headers {
		request.Header.Add(f.Name, f.Value)
	}
	if len(o.body) == 0 {
		request.Body = nil
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
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
