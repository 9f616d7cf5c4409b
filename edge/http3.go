package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/relay"
)

const (
	// altSvcAge is for how long browsers remember that there is HTTP/3 here. They
	// come over TCP where it does not answer.
	altSvcAge = 24 * time.Hour

	// quicTrusted handshakes may be under way before newcomers must show that their
	// address is theirs (a Retry, RFC 9000, section 8.1.2), which costs them a round
	// trip.
	quicTrusted = 128

	// quicStreams requests of one connection may be under way.
	quicStreams = 100

	// What a visitor may send ahead of being read, of one request and of a
	// connection, in bytes.
	quicStreamAhead = 1 << 20
	quicConnAhead   = 4 << 20

	// noBodyWait is how long a request that hardly ever has a body may leave it open
	// whether it has one.
	noBodyWait = 10 * time.Second

	// quicFarewell is for a visitor to learn that the connection ends, once nothing
	// goes on in it.
	quicFarewell = 250 * time.Millisecond
)

// http3Server serves the HTTPS host names over HTTP/3.
//
// Early data (0-RTT) is never accepted: it can be replayed, and nobody here knows
// which requests an upstream may be sent twice (RFC 8470).
type http3Server struct {
	front     *front
	log       *slog.Logger
	conn      net.PacketConn
	transport *quic.Transport
	config    *tls.Config
	quic      *quic.Config
	http      *http3.Server
	pace      *relay.Pace // not that of TCP: senders of UDP may give others' addresses

	mu       sync.Mutex // guards all below
	open     int
	from     map[netip.Prefix]int
	shaking  int // of open: before the end of the handshake
	conns    map[*quicConn]bool
	draining bool
}

// newHTTP3 serves with h what comes to conn. It starts nothing.
func newHTTP3(f *front, conn net.PacketConn, h http.Handler) *http3Server {
	s := &http3Server{
		front: f, log: f.log.With("server", "http3"), conn: conn,
		pace: relay.NewPace(f.cfg.Handshakes),
		from: make(map[netip.Prefix]int), conns: make(map[*quicConn]bool),
	}
	config := f.certs.TLSConfig().Clone()
	config.GetCertificate = f.shown.remember(f.onlyRequests(config.GetCertificate), f.keepsLeaf)
	s.config = http3.ConfigureTLSConfig(config)
	s.quic = &quic.Config{
		Allow0RTT:                  false,
		HandshakeIdleTimeout:       f.limits.hello / 2, // the whole handshake may take twice that
		MaxIdleTimeout:             f.limits.idle,
		MaxIncomingStreams:         quicStreams,
		MaxStreamReceiveWindow:     quicStreamAhead,
		MaxConnectionReceiveWindow: quicConnAhead,
		// A visitor that vanished without a word is found out while a request runs.
		KeepAlivePeriod: 30 * time.Second,
	}
	s.transport = &quic.Transport{
		Conn: conn,
		VerifySourceAddress: func(net.Addr) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.shaking >= quicTrusted
		},
		ConnContext: s.arrive,
	}
	s.http = &http3.Server{
		Handler:        s.bounded(h),
		MaxHeaderBytes: proxy.MaxHeader,
		ConnContext:    s.welcome,
		Logger:         s.log,
	}
	return s
}

// onlyRequests wraps tls.Config.GetCertificate for listeners that cannot pass a
// connection on: names whose TLS does not end here have no certificate.
func (f *front) onlyRequests(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
		h := &hello{ServerName: info.ServerName, Protocols: info.SupportedProtos}
		if f.streamFor(h) != nil || !f.serves(h) {
			return nil, nil // crypto/tls sends unrecognized_name
		}
		return get(info)
	}
}

var errQUICFull = errors.New("too many QUIC connections")

// arrive counts a connection before its handshake, or refuses it.
func (s *http3Server) arrive(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	origin := relay.Origin(info.RemoteAddr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.open >= s.front.limits.quic || s.from[origin] >= s.front.limits.quicPer {
		s.front.tally.refused[refusedFull].Add(1)
		return nil, errQUICFull
	}
	if !s.pace.Begin(origin) {
		s.front.tally.refused[refusedHasty].Add(1)
		s.front.hasty.turnedAway(s.log, info.RemoteAddr)
		return nil, errQUICFull
	}
	s.open++
	s.shaking++
	s.front.tally.ways[wayHTTP3].opened()
	s.from[origin]++
	shaken := sync.OnceFunc(func() { s.shaking-- }) // with mu held
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		shaken()
		s.open--
		s.front.tally.ways[wayHTTP3].closed()
		if s.from[origin]--; s.from[origin] == 0 {
			delete(s.from, origin)
		}
	})
	return context.WithValue(ctx, arrivalKey{}, &arrival{origin: origin, shaken: shaken}), nil
}

// Keys of what quic-go and http3 hand from one of their hooks to the next.
type (
	arrivalKey  struct{} // *arrival
	quicConnKey struct{} // *quicConn
)

// arrival is a connection before the end of its handshake.
type arrival struct {
	origin netip.Prefix
	shaken func() // the handshake is over
}

// welcome follows a connection whose handshake is over.
func (s *http3Server) welcome(ctx context.Context, c *quic.Conn) context.Context {
	q := &quicConn{server: s, conn: c}
	s.mu.Lock()
	defer s.mu.Unlock()
	arrived := ctx.Value(arrivalKey{}).(*arrival)
	if arrived.shaken(); c.ConnectionState().TLS.DidResume {
		s.pace.Forget(arrived.origin)
	}
	s.conns[q] = true
	// The first request may not take longer than over TCP.
	q.timer = time.AfterFunc(s.front.limits.header, q.end)
	context.AfterFunc(c.Context(), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		q.timer.Stop()
		delete(s.conns, q)
	})
	return context.WithValue(ctx, quicConnKey{}, q)
}

// quicConn is one connection, which ends when no request has been under way in it
// for a while, whatever else the visitor does. HTTP/3 has no other bound on how
// slowly the header of a request may come.
type quicConn struct {
	server  *http3Server
	conn    *quic.Conn
	timer   *time.Timer
	running int // requests; guarded by server.mu
}

// end closes the connection. Its error says that it is closed already.
func (q *quicConn) end() {
	_ = q.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func (q *quicConn) begin() {
	q.server.mu.Lock()
	defer q.server.mu.Unlock()
	q.running++
	q.timer.Stop()
}

func (q *quicConn) done() {
	q.server.mu.Lock()
	defer q.server.mu.Unlock()
	if q.running--; q.running == 0 {
		q.restLocked()
	}
}

// restLocked has the connection end soon if nothing more happens.
func (q *quicConn) restLocked() {
	if q.server.draining {
		q.timer.Reset(quicFarewell)
	} else {
		q.timer.Reset(q.server.front.limits.idle)
	}
}

// bounded gives requests what net/http's server gives them: an end with the
// front, no body where there is none, and no length that an answer to HEAD lacks.
func (s *http3Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.Context().Value(quicConnKey{}).(*quicConn)
		q.begin()
		defer q.done()
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		defer context.AfterFunc(s.front.base, func() { cancel(context.Cause(s.front.base)) })()
		r = r.WithContext(ctx)
		if err := s.findEnd(w, r); err != nil {
			proxy.WriteProblem(w, r, proxy.SlowUpload())
			return
		}
		next.ServeHTTP(w, r)
		if r.Method == http.MethodHead {
			// Else http3 says that an answer without a length has that of what was
			// written, which is nothing. An error breaks the stream, which http3 sees.
			_ = http.NewResponseController(w).Flush()
		}
	})
}

// findEnd looks whether a request has a body where hardly any has one. http3 does
// not tell, and with a body a request could not be repeated on its way.
func (s *http3Server) findEnd(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > 0 {
		return nil
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodDelete:
	default:
		if r.ContentLength < 0 {
			return nil
		}
	}
	if r.ContentLength == 0 {
		r.Body = http.NoBody
		return nil
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(cmp.Or(s.front.limits.body, noBodyWait))); err != nil {
		return err
	}
	first := make([]byte, 1)
	switch n, err := r.Body.Read(first); {
	case n > 0:
		r.Body = &begunBody{ReadCloser: r.Body, first: first}
	case errors.Is(err, io.EOF):
		r.Body, r.ContentLength = http.NoBody, 0
	case err != nil:
		return err
	}
	return control.SetReadDeadline(time.Time{})
}

// begunBody is a body whose first byte was read already.
type begunBody struct {
	io.ReadCloser
	first []byte
}

func (b *begunBody) Read(p []byte) (int, error) {
	if len(b.first) > 0 && len(p) > 0 {
		p[0], b.first = b.first[0], nil
		return 1, nil
	}
	return b.ReadCloser.Read(p)
}

func (s *http3Server) label() string { return "http3" }

// serve serves until drain or close.
func (s *http3Server) serve() error {
	l, err := s.transport.Listen(s.config, s.quic)
	if err != nil {
		return err
	}
	defer l.Close() // what was accepted goes on
	return s.http.ServeListener(l)
}

// drain takes no new connections, tells visitors of those that there are (GOAWAY),
// and waits for requests under way.
func (s *http3Server) drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	for q := range s.conns {
		if q.running == 0 {
			q.restLocked()
		}
	}
	s.mu.Unlock()
	_ = s.http.Shutdown(ctx) // the error says that ctx ended first
}

// close closes what is left.
func (s *http3Server) close() {
	_ = s.http.Close()
	_ = s.transport.Close() // waits for its reader; neither can fail in a way that matters now
	_ = s.conn.Close()
}

// altSvc tells visitors who came over TCP that there is HTTP/3 as well.
func (f *front) altSvc(next http.Handler) http.Handler {
	port := 443
	if f.cfg.PublicHTTPSPort != 0 {
		port = int(f.cfg.PublicHTTPSPort)
	}
	value := `h3=":` + strconv.Itoa(port) + `"; ma=` + strconv.Itoa(int(altSvcAge.Seconds()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Alt-Svc", value)
		next.ServeHTTP(w, r)
	})
}
