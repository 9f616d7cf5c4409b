// Package proxy carries HTTP requests to one upstream over connections that the
// caller dials:
//
//	p := proxy.New(proxy.Config{
//		Dial: func(ctx context.Context) (net.Conn, error) {
//			return stack.DialTCP(ctx, netip.AddrPort{}, tunnelAddr)
//		},
//	})
//	defer p.Close()
//	http.Serve(listener, p)
//
// The request arrives at the upstream as the visitor sent it, with three
// exceptions. Hop-by-hop fields end here (RFC 9110, section 7.6.1). What a
// visitor claims about earlier hops is dropped, and X-Forwarded-For, -Host,
// -Proto and X-Real-IP say what this connection shows. The Host is replaced
// where Config.HostHeader says so.
//
// Nothing is buffered: each piece of an answer is flushed as it comes, uploads
// stream, trailers and 1xx answers pass, and a connection that was upgraded
// (WebSocket) is copied both ways, half-close included. An answer that breaks
// off in the middle breaks off for the visitor too, never as a short answer that
// looks whole.
//
// Where there is no answer to pass on, the visitor gets a [Problem]: a page, JSON
// or plain text that says in words what happened, marked with the header
// Wgexpose-Error, which upstreams cannot set.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// idleTimeout is how long a pooled connection may lie idle. Common servers
	// close theirs after 5 s (Node's keepAliveTimeout, uvicorn's
	// timeout_keep_alive), so ours goes first in the ordinary case. It is a
	// courtesy and no safeguard: a request that must not be repeated never
	// travels on a pooled connection at all.
	idleTimeout = 4 * time.Second

	// idleTimeout2 is the same over HTTP/2. A server says before it closes such a
	// connection (GOAWAY), and names the last request that it took.
	idleTimeout2 = time.Minute

	// maxIdle is how many idle connections one upstream keeps for the next
	// requests; a page and its assets come in bursts of that size.
	maxIdle = 64

	// continueTimeout is how long an upload with "Expect: 100-continue" waits for
	// the upstream's word before it is sent all the same (RFC 9110, section
	// 10.1.1: a client must not wait for ever).
	continueTimeout = time.Second

	// hstsYear is for this host alone: the others of the domain are others' to decide.
	hstsYear = "max-age=31536000"

	// maxResponseHeader bounds the header of an upstream's answer, in bytes.
	maxResponseHeader = 1 << 20
)

// Config says where the requests go.
type Config struct {
	// Dial opens a connection to the upstream. It must bound its own time. An
	// error that is, or wraps, a *Problem is what the visitor reads. Required.
	Dial func(ctx context.Context) (net.Conn, error)

	// HostHeader is sent to the upstream as Host. Empty: the visitor's own.
	HostHeader string

	// HTTP2 speaks HTTP/2 to the upstream, without a negotiation before, and many
	// requests share a connection. Requests for an upgrade arrive without it: HTTP/2
	// has none.
	HTTP2 bool

	// Compression compresses answers for visitors that ask for it (gzip, zstd) where
	// the upstream has not done so. Where a page shows a secret next to what a
	// visitor chose, its length then gives the secret away (the BREACH attack).
	Compression bool

	// HSTS tells visitors over TLS to come over TLS alone for a year (RFC 6797),
	// where the upstream does not say for how long.
	HSTS bool

	// BodyWait is how long an upload of known length may be waited for; each 4 KiB
	// of it give the time back. StreamWait is how long one of unknown length may be
	// silent. Both end when the answer begins. Zero: 1 min and 10 min.
	BodyWait, StreamWait time.Duration

	// ErrorFor names the problem for an error of Dial or of the connection. Nil,
	// or a nil answer: the package's own wording.
	ErrorFor func(error) *Problem

	// Logger takes what went wrong with upstreams, as warnings. Nil: silence.
	Logger *slog.Logger
}

// Proxy is an http.Handler that passes requests on to one upstream. It is safe
// for concurrent use.
type Proxy struct {
	cfg    Config
	log    *slog.Logger
	pooled *http.Transport // for requests that may be sent twice
	fresh  *http.Transport // one connection per request
	rp     httputil.ReverseProxy
	closed atomic.Bool
}

// New returns a proxy. It opens no connection before the first request.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, log: cfg.Logger}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.cfg.BodyWait, p.cfg.StreamWait = cmp.Or(cfg.BodyWait, bodyWait), cmp.Or(cfg.StreamWait, streamWait)
	p.pooled = p.transport()
	p.fresh = p.transport()
	p.fresh.DisableKeepAlives = true
	p.rp = httputil.ReverseProxy{
		Rewrite:       p.rewrite,
		Transport:     transportChooser{p},
		FlushInterval: -1,
		BufferPool:    copyBuffers{},
		ErrorHandler:  p.serveError,
		ErrorLog:      slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
	return p
}

func (p *Proxy) transport() *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(!p.cfg.HTTP2)
	protocols.SetUnencryptedHTTP2(p.cfg.HTTP2)
	idle := idleTimeout
	if p.cfg.HTTP2 {
		idle = idleTimeout2
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := p.cfg.Dial(ctx)
			if err != nil || p.cfg.HTTP2 {
				return conn, err
			}
			return newUpstreamConn(conn), nil
		},
		Protocols: &protocols,
		// An upstream that vanished without a word is found out.
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		DisableCompression:     true, // what the visitor accepts is the visitor's to say
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idle,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
}

// ServeHTTP passes r on and its answer back. It panics with
// http.ErrAbortHandler, as net/http's server expects, when the answer broke off
// after it began.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		WriteProblem(w, r, &Problem{
			Status: http.StatusMethodNotAllowed,
			Code:   "bad_method",
			Title:  "This is not a forward proxy",
			Detail: "CONNECT asks for a connection to another server. This address serves one site only: send it ordinary requests.",
		})
		return
	}
	body := newUpload(r)
	a := &answer{w: w, body: body, gather: gathering{w: w}}
	ctx := a.gather.follow(r.Context())
	if ctx.Value(http.ServerContextKey) == nil {
		// http3's server takes a panic like net/http's, and does not say so: without this
		// httputil.ReverseProxy takes it for a test, and an answer that breaks off for whole.
		ctx = context.WithValue(ctx, http.ServerContextKey, (*http.Server)(nil))
	}
	in := r.WithContext(ctx) // shallow: the server keeps its own body to close
	in.Body, in.Trailer = body, body.trailer
	a.r = in
	defer a.finish()
	if p.cfg.HTTP2 {
		defer func() {
			if p.closed.Load() {
				p.pooled.CloseIdleConnections() // shared, and this may have been the last request on it
			}
		}()
	}
	body.pace(p.cfg.BodyWait, p.cfg.StreamWait, func() {
		// No deadline to set (a recorder in a test): nothing to wait for either.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	})
	rp := p.rp
	rp.ModifyResponse = func(res *http.Response) error {
		a.empty = empty(res)
		if p.cfg.HSTS && Secure(r) && len(res.Header["Strict-Transport-Security"]) == 0 {
			res.Header.Set("Strict-Transport-Security", hstsYear)
		}
		if a.gather.begin(res); a.gather.on && res.ContentLength > 0 {
			rp.FlushInterval = 0 // nothing hangs on when the header is made
		}
		return p.changeResponse(res)
	}
	rp.ServeHTTP(a, in)
}

// Close closes the idle connections. Requests under way finish, and their
// connections are closed after them; a request that comes later gets one of its
// own.
func (p *Proxy) Close() error {
	p.closed.Store(true)
	p.pooled.CloseIdleConnections()
	p.fresh.CloseIdleConnections()
	return nil
}

// transportChooser sends each request by the transport that is safe for it.
type transportChooser struct{ p *Proxy }

func (t transportChooser) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.p.cfg.HTTP2 && !t.p.closed.Load() {
		return t.p.pooled.RoundTrip(r) // which requests were taken is known, see idleTimeout2
	}
	if t.p.closed.Load() || !repeatable(r) {
		// Close is not for upgrades: Connection then says Upgrade, and the
		// connection never returns to a pool anyway.
		r.Close = r.Header.Get("Upgrade") == ""
		return t.p.fresh.RoundTrip(r)
	}
	return t.p.pooled.RoundTrip(r)
}

// repeatable reports whether net/http's transport sends r again by itself when
// a pooled connection turns out to be closed. Every server may close an idle
// connection at the moment a request is on its way (RFC 9112, section 9.3.1),
// and nobody can tell then whether the request was carried out. So a request
// that must not be carried out twice, or whose body is gone once it was sent,
// may not travel on a connection that has been idle.
func repeatable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	// The same two names that net/http goes by.
	return r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != ""
}

// serveError answers a request that got no answer from the upstream.
func (p *Proxy) serveError(w http.ResponseWriter, r *http.Request, err error) {
	a := w.(*answer) // ServeHTTP hands the reverse proxy nothing else
	if a.hijacked {
		return // the connection was upgraded and is closed by now
	}
	problem := p.problemFor(a, r, err)
	if problem == nil {
		// The visitor has gone, or the server is ending: nobody reads an answer,
		// and an empty 200 would be a lie.
		panic(http.ErrAbortHandler)
	}
	if problem.Status >= http.StatusInternalServerError {
		p.log.Warn("no answer from upstream", "code", problem.Code, "method", r.Method, "visitor", r.RemoteAddr, "err", err)
	}
	WriteProblem(a, a.r, problem)
}

// problemFor names what err means for the visitor. Nil: there is no visitor left
// to tell.
func (p *Proxy) problemFor(a *answer, r *http.Request, err error) *Problem {
	var problem *Problem
	// Whoever cancelled the request may have said why.
	if errors.As(context.Cause(r.Context()), &problem) {
		return problem
	}
	// net/http takes a read that was interrupted for the visitor's end.
	if a.body.tooSlowEnded() {
		return SlowUpload()
	}
	if a.r.Context().Err() != nil {
		return nil
	}
	if errors.As(err, &problem) {
		return problem
	}
	if bad := a.body.failure(); bad != nil {
		return badUpload(bad)
	}
	if p.cfg.ErrorFor != nil {
		if problem = p.cfg.ErrorFor(err); problem != nil {
			return problem
		}
	}
	if strings.HasPrefix(err.Error(), "client tried to switch") {
		return badUpgrade()
	}
	problem = defaultProblem(err)
	if p.cfg.HTTP2 && problem.Code == brokenCode {
		problem.Detail = brokenOverHTTP2
	}
	return problem
}
