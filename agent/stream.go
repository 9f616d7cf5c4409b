package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/wg"
)

// Ways for WireGuard packets to an edge.
const (
	TransportAuto = "auto" // UDP, or TLS where UDP does not get through
	TransportUDP  = "udp"
	TransportTLS  = "tls"
)

// NoProxy as a proxy's address means that none is used, whatever the
// environment says.
const NoProxy = "off"

// Reach says how an agent gets to its edges. The zero value is
// TransportAuto, with the proxy that the environment names.
type Reach struct {
	Transport string `json:"transport,omitempty"`
	// Proxy is for TLS: http://, https:// or socks5://[USER:PASSWORD@]HOST[:PORT],
	// or NoProxy. "" = as HTTPS_PROXY and NO_PROXY say.
	Proxy string `json:"proxy,omitempty"`
	// MTU is the size of packets inside WireGuard, in bytes. 0: what the path
	// to the edge takes is found out, and followed.
	MTU int `json:"mtu,omitempty"`
}

// Validate says what makes a Reach unusable.
func (r Reach) Validate() error {
	switch r.Transport {
	case "", TransportAuto, TransportUDP, TransportTLS:
	default:
		return fmt.Errorf("transport %q is not one of auto, udp and tls", r.Transport)
	}
	if r.MTU != 0 && (r.MTU < netstack.MinMTU || r.MTU > netstack.MaxMTU) {
		return fmt.Errorf("MTU %d is not between %d and %d", r.MTU, netstack.MinMTU, netstack.MaxMTU)
	}
	_, err := r.proxy()
	return err
}

// proxy is a function as http.Transport.Proxy is, but for the type of what it
// takes.
func (r Reach) proxy() (func(*url.URL) (*url.URL, error), error) {
	switch r.Proxy {
	case "":
		return httpproxy.FromEnvironment().ProxyFunc(), nil
	case NoProxy:
		return func(*url.URL) (*url.URL, error) { return nil, nil }, nil
	}
	u, err := url.Parse(r.Proxy)
	if err != nil || u.Host == "" {
		return nil, errors.New("the proxy is not http://, https:// or socks5://[USER:PASSWORD@]HOST[:PORT]") // without the text: it may hold a password
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("a proxy of kind %q is not supported; it is http, https or socks5", u.Scheme)
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }, nil
}

// maxProxyAnswer bounds what a proxy may say before it connects, in bytes.
const maxProxyAnswer = 16 << 10

// streamDialer connects to edges' HTTPS endpoints.
type streamDialer struct {
	proxy func(*url.URL) (*url.URL, error)
}

// dial makes a connection that carries packets, to the first of edge's HTTPS
// endpoints that takes one. from is what the other end is called by.
//
// No certificate is checked. The outer TLS is there for what is in the way;
// WireGuard inside authenticates both ends, and a middlebox that ends TLS sees
// what anybody on the way sees of UDP.
func (d *streamDialer) dial(ctx context.Context, edge keys.Edge) (c net.Conn, from netip.AddrPort, err error) {
	var errs []error
	for _, ep := range edge.Endpoints {
		if ep.Kind != keys.EndpointHTTPS {
			continue
		}
		c, from, err := d.dialTLS(ctx, ep.Addr, wg.StreamProtocol)
		if err == nil {
			return c, from, nil
		}
		var no *notStreamError
		if errors.As(err, &no) && ctx.Err() == nil {
			var wsErr error
			if c, from, wsErr = d.dialWebSocket(ctx, ep.Addr); wsErr == nil {
				return c, from, nil
			}
			err = fmt.Errorf("%w; as a WebSocket: %w", err, wsErr)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, netip.AddrPort{}, errNoStreamEndpoint
	}
	return nil, netip.AddrPort{}, errors.Join(errs...)
}

// errNoStreamEndpoint is for edges that were invited from before there were
// streams, or that leave HTTPS to another program.
var errNoStreamEndpoint = errors.New("the edge has no HTTPS endpoint to carry WireGuard; join it again to learn of one, if it has HTTPS")

func hasStreamEndpoint(edge keys.Edge) bool {
	for _, ep := range edge.Endpoints {
		if ep.Kind == keys.EndpointHTTPS {
			return true
		}
	}
	return false
}

// notStreamError says that something answers, but not as an edge does.
type notStreamError struct {
	addr string
	err  error // nil: TLS was done, without the protocol
}

func (e *notStreamError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("%s takes no streams of WireGuard packets", e.addr)
	}
	return fmt.Sprintf("TLS with %s: %v", e.addr, e.err)
}

func (e *notStreamError) Unwrap() error { return e.err }

// dialTLS connects and asks for protocol by ALPN.
func (d *streamDialer) dialTLS(ctx context.Context, addr, protocol string) (net.Conn, netip.AddrPort, error) {
	raw, err := d.connect(ctx, addr)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		raw.Close()
		return nil, netip.AddrPort{}, err
	}
	under := raw
	if protocol == wg.StreamProtocol {
		under = relay.NewWire(raw, nil)
	}
	c := tls.Client(under, &tls.Config{
		ServerName: host, NextProtos: []string{protocol}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		DynamicRecordSizingDisabled: true, // see wg.Wire
	})
	err = c.HandshakeContext(ctx)
	if err == nil && protocol == wg.StreamProtocol && c.ConnectionState().NegotiatedProtocol != protocol {
		err = &notStreamError{addr: addr}
	} else if err != nil {
		err = &notStreamError{addr: addr, err: err}
	}
	if err != nil {
		raw.Close()
		return nil, netip.AddrPort{}, err
	}
	return c, remoteOf(raw), nil
}

// remoteOf is the address of the other end of c, which may be a proxy's.
func remoteOf(c net.Conn) netip.AddrPort {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// dialWebSocket connects in the way that middleboxes know which look into TLS.
func (d *streamDialer) dialWebSocket(ctx context.Context, addr string) (net.Conn, netip.AddrPort, error) {
	var from netip.AddrPort
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, remote, err := d.dialTLS(ctx, addr, "http/1.1")
		from = remote
		return c, err
	}}
	defer transport.CloseIdleConnections()
	ws, _, err := websocket.Dial(ctx, "wss://"+addr+wg.StreamPath, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{wg.StreamProtocol},
	})
	if err != nil {
		return nil, from, err
	}
	if ws.Subprotocol() != wg.StreamProtocol {
		return nil, from, errors.Join(&notStreamError{addr: addr}, ws.CloseNow())
	}
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), from, nil
}

// tcpDialer makes the TCP connections below streams.
func tcpDialer() *net.Dialer { return &net.Dialer{Control: limitSegments} }

// connect opens a TCP connection, through a proxy where there is one to use.
func (d *streamDialer) connect(ctx context.Context, addr string) (net.Conn, error) {
	via, err := d.proxy(&url.URL{Scheme: "https", Host: addr})
	if err != nil {
		return nil, fmt.Errorf("find the proxy for %s: %w", addr, err)
	}
	if via == nil {
		return tcpDialer().DialContext(ctx, "tcp", addr)
	}
	var c net.Conn
	switch via.Scheme {
	case "socks5", "socks5h":
		c, err = dialSOCKS(ctx, via, addr)
	default:
		c, err = dialConnect(ctx, via, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %w", via.Redacted(), err)
	}
	return c, nil
}

// proxyAddr is where a proxy listens.
func proxyAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "1080"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func dialSOCKS(ctx context.Context, via *url.URL, addr string) (net.Conn, error) {
	var auth *proxy.Auth
	if via.User != nil {
		password, _ := via.User.Password()
		auth = &proxy.Auth{User: via.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", proxyAddr(via), auth, tcpDialer())
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
}

// dialConnect asks an HTTP proxy for a connection (RFC 9110, section 9.3.6).
func dialConnect(ctx context.Context, via *url.URL, addr string) (net.Conn, error) {
	c, err := tcpDialer().DialContext(ctx, "tcp", proxyAddr(via))
	if err != nil {
		return nil, err
	}
	if via.Scheme == "https" {
		secure := tls.Client(c, &tls.Config{ServerName: via.Hostname(), NextProtos: []string{"http/1.1"}})
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		c = secure
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err = askConnect(c, via, addr)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func askConnect(c net.Conn, via *url.URL, addr string) error {
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if via.User != nil {
		password, _ := via.User.Password()
		r.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := r.Write(c); err != nil {
		return err
	}
	answer := bufio.NewReader(io.LimitReader(c, maxProxyAnswer))
	resp, err := http.ReadResponse(answer, r)
	if err != nil {
		return fmt.Errorf("read the proxy's answer: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return errors.New("it wants a user and a password, or others than those that were given")
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("it refuses to connect to %s: %s", addr, strings.TrimSpace(resp.Status))
	case answer.Buffered() > 0:
		return errors.New("it sent something that nobody asked for")
	}
	return nil
}

// attempt is one dial of an edge's stream at a time, while a reach goes on.
type attempt struct {
	node   *node
	edge   keys.Edge
	busy   bool
	result chan dialled
}

type dialled struct {
	conn net.Conn
	from netip.AddrPort
	err  error
}

// streamTimeout bounds one dial, so that a better moment is not missed.
const streamTimeout = 8 * time.Second

// begin dials unless that is under way.
func (a *attempt) begin(ctx context.Context) {
	if a.busy {
		return
	}
	a.busy = true
	go func() {
		ctx, cancel := context.WithTimeout(ctx, streamTimeout)
		defer cancel()
		var d dialled
		d.conn, d.from, d.err = a.node.dialer.dial(ctx, a.edge)
		a.result <- d
	}()
}

// end waits for a dial under way, whose context must have ended.
func (a *attempt) end() {
	if !a.busy {
		return
	}
	if d := <-a.result; d.conn != nil {
		d.conn.Close()
	}
}
