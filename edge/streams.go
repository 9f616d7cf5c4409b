package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	// maxStreams bounds the connections that carry WireGuard packets; each
	// costs some 100 KiB. Agents beyond have UDP.
	maxStreams = 4096
	// maxStrangers and maxStrangersPer bound those that have brought no valid
	// handshake yet, in all and of one address. Behind one proxy there may be
	// many agents, which come back all at once.
	maxStrangers    = 256
	maxStrangersPer = 64
	// streamProbation is how long they have for that.
	streamProbation = 5 * time.Second
	// streamIdle ends a stream whose agent has gone without a word: one that
	// is there sends something every few seconds.
	streamIdle = 2 * time.Minute
)

// streamHost takes connections that carry WireGuard packets, for agents on
// networks without UDP. Whoever can connect gets nothing more than whoever can
// send to the UDP port: what is no WireGuard packet ends the connection, and
// only a peer's handshake is answered.
type streamHost struct {
	streams *wg.Streams
	log     *slog.Logger
	room    *relay.WaitingRoom

	ctx    context.Context // of all connections
	cancel context.CancelFunc

	mu      sync.Mutex // guards all below
	host    string     // the name that agents know this edge by; "" while it is an address
	count   int
	total   uint64
	refused uint64
	closed  bool
	running sync.WaitGroup // its Add happens under mu, while not closed

	selfSigned func() (*tls.Certificate, error)
}

func newStreamHost(log *slog.Logger) *streamHost {
	h := &streamHost{
		streams: wg.NewStreams(), log: log, room: relay.NewWaitingRoom(maxStrangers, maxStrangersPer),
		selfSigned: sync.OnceValues(selfSigned),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// close ends all streams and waits for them.
func (h *streamHost) close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	err := h.streams.Close()
	h.running.Wait()
	return err
}

// carry runs conn, whose handshake is done, on a goroutine of its own. It owns
// conn. origin is the connection below it.
func (h *streamHost) carry(conn, origin net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	log := h.log.With("visitor", origin.RemoteAddr())
	if h.closed || h.count >= maxStreams {
		h.refused++
		log.Warn("stream refused", "streams", h.count)
		conn.Close()
		return
	}
	place, ok := h.room.Enter(origin)
	if !ok {
		h.refused++
		log.Debug("stream refused", "err", "too many streams of this address have brought no handshake yet")
		conn.Close()
		return
	}
	h.count++
	h.total++
	h.running.Go(func() {
		defer func() {
			place.Leave()
			h.mu.Lock()
			h.count--
			h.mu.Unlock()
		}()
		st, err := h.streams.Attach(conn, addrPort(origin.RemoteAddr()), wg.StreamOptions{
			Probation: streamProbation, Idle: streamIdle, Answered: place.Leave,
		})
		if err == nil {
			err = st.Run(h.ctx)
		}
		log.Debug("stream ended", "err", err)
	})
}

// tls finishes the handshake of a connection whose ClientHello asked for
// streams, and carries it. first is what was read of conn.
func (h *streamHost) tls(conn net.Conn, first []byte, get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	secure := tls.Server(relay.NewWire(conn, first), &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true, // see wg.Wire
		NextProtos:                  []string{wg.StreamProtocol},
		GetCertificate:              h.orSelfSigned(get, func(string) bool { return true }),
	})
	ctx, cancel := context.WithTimeout(h.ctx, streamProbation)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	h.carry(secure, conn)
	return nil
}

// orSelfSigned gives a certificate that nobody vouches for where get has none
// and may agrees. WireGuard authenticates both sides inside of the stream.
func (h *streamHost) orSelfSigned(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), may func(host string) bool) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(info)
		if cert == nil && may(info.ServerName) {
			return h.selfSigned()
		}
		return cert, err
	}
}

// tally is how many streams are open now, and how many there were and were refused
// since the edge started.
func (h *streamHost) tally() (open int, total, refused uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, h.total, h.refused
}

// setHost tells the name that agents know this edge by.
func (h *streamHost) setHost(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.host = host
}

// isHost reports whether host is the name that agents know this edge by.
func (h *streamHost) isHost(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return host != "" && host == h.host
}

// isStream reports whether a ClientHello asks for a stream.
func isStream(h *hello) bool { return slices.Equal(h.Protocols, []string{wg.StreamProtocol}) }

// upgrade serves WebSocket requests for streams, which pass middleboxes that
// look into HTTP, and hands all else to next. The connection is out of the HTTP
// server's hands then, and does not count as a visitor's.
func (h *streamHost) upgrade(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wg.StreamPath || r.Header.Get("Sec-WebSocket-Protocol") != wg.StreamProtocol {
			next.ServeHTTP(w, r)
			return
		}
		// No cookie or password goes with it, so its origin is of no interest.
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wg.StreamProtocol}, InsecureSkipVerify: true})
		if err != nil {
			h.log.Debug("stream refused", "visitor", r.RemoteAddr, "err", err)
			return // it has been told
		}
		conn := websocket.NetConn(h.ctx, ws, websocket.MessageBinary)
		h.carry(conn, remote{Conn: conn, addr: r.RemoteAddr})
	})
}

// remote is a connection with the remote address that net/http gave.
type remote struct {
	net.Conn
	addr string
}

func (r remote) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", r.addr) // an address as net/http gives it, never a name
	if err != nil {
		return nil
	}
	return a
}

// selfSigned makes a certificate that says nothing.
func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// streamEndpoint is where agents find the streams: at the endpoint's host, on
// the HTTPS port. It is "" for an edge without HTTPS.
func streamEndpoint(endpoint, scheme string, port uint16) (string, error) {
	if scheme != "https" {
		return "", nil
	}
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return "", fmt.Errorf("endpoint %q: %w", endpoint, err)
	}
	return net.JoinHostPort(host, fmt.Sprint(port)), nil
}

// endpoints lists where an edge is reached, best first.
func (sv serving) endpoints() ([]keys.Endpoint, error) {
	var all []keys.Endpoint
	if sv.Endpoint == "" {
		return nil, errors.New("this edge has no endpoint")
	}
	all = append(all, keys.Endpoint{Kind: keys.EndpointUDP, Addr: sv.Endpoint})
	for more := range strings.SplitSeq(sv.More, ",") {
		if more != "" {
			all = append(all, keys.Endpoint{Kind: keys.EndpointUDP, Addr: more})
		}
	}
	https, err := streamEndpoint(sv.Endpoint, sv.Scheme, sv.Port)
	if err != nil {
		return nil, err
	}
	if https != "" {
		all = append(all, keys.Endpoint{Kind: keys.EndpointHTTPS, Addr: https})
	}
	return all, nil
}
