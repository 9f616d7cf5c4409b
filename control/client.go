package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/tunnel"
)

// dialTimeout is for the overlay connection, on which WireGuard's handshake
// may have to be done first.
const dialTimeout = 10 * time.Second

// errClosed is returned by calls of a closed client.
var errClosed = errors.New("the control client is closed")

// Client calls one edge. It keeps one connection, dials again when that
// breaks, and is safe for concurrent use.
type Client struct {
	http *http.Client
	dial func(context.Context) (net.Conn, error)

	mu     sync.Mutex // guards conns, closed
	conns  map[*clientConn]struct{}
	closed bool
}

// NewClient returns a client that reaches the edge through dial.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	c := &Client{dial: dial, conns: map[*clientConn]struct{}{}}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:            c.dialContext,
			Protocols:              protocols,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		},
		// The API has no redirects; one would be an edge gone wrong.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Enroll makes the holder of the invite that the connection comes from an
// agent. A refusal is an *[Error].
func (c *Client) Enroll(ctx context.Context, req EnrollRequest) (EnrollReply, error) {
	var reply EnrollReply
	if err := c.call(ctx, http.MethodPost, "/v1/enroll", MaxEnroll, req, &reply); err != nil {
		return EnrollReply{}, fmt.Errorf("enroll: %w", err)
	}
	return reply, nil
}

// Publish replaces the set of tunnels that the edge serves for the caller. A
// refusal of the whole request is an *[Error]; that of one tunnel is in the
// reply, which has one entry per tunnel, in order.
func (c *Client) Publish(ctx context.Context, req PublishRequest) (PublishReply, error) {
	var reply PublishReply
	if req.Tunnels == nil {
		req.Tunnels = []tunnel.Spec{} // [] on the wire, not null
	}
	if err := c.call(ctx, http.MethodPut, "/v1/tunnels", MaxPublish, req, &reply); err != nil {
		return PublishReply{}, fmt.Errorf("publish: %w", err)
	}
	if len(reply.Tunnels) != len(req.Tunnels) {
		return PublishReply{}, fmt.Errorf("publish: the edge answered for %d tunnels of %d", len(reply.Tunnels), len(req.Tunnels))
	}
	for i, p := range reply.Tunnels {
		if p.ID != req.Tunnels[i].ID {
			return PublishReply{}, fmt.Errorf("publish: the edge answered for tunnel id %d instead of %d", p.ID, req.Tunnels[i].ID)
		}
	}
	return reply, nil
}

// call sends req as JSON and reads the answer into reply. It takes at most
// handlerTimeout and the time to connect, whatever ctx allows.
func (c *Client) call(ctx context.Context, method, path string, limit int, req any, reply validator) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout+handlerTimeout)
	defer cancel()
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if len(body) > limit {
		return fmt.Errorf("request of %d bytes, of at most %d", len(body), limit)
	}
	r, err := newRequest(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	if err := checkStatus(resp); err != nil {
		return err
	}
	if err := decode(resp.Body, limit, reply); err != nil {
		return fmt.Errorf("read the edge's answer: %w", err)
	}
	return nil
}

func newRequest(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, "http://edge"+path, body)
}

// plain drops net/http's "Post "http://edge/v1/…":" in front of the cause.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// checkStatus turns a refusal into an error.
func checkStatus(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var body errorBody
	if err := decode(resp.Body, MaxEnroll, &body); err != nil {
		return fmt.Errorf("the edge answered %d, and no error that this version understands (%w)", resp.StatusCode, err)
	}
	return body.Error
}

// Close breaks all connections, and with them calls and streams under way. The edge
// is told by a reset: whoever closes may be gone before an end is acknowledged.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for conn := range conns {
		relay.Abort(conn.Conn)
	}
	c.http.CloseIdleConnections()
	return nil
}

func (c *Client) dialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	t := &clientConn{Conn: conn, c: c}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.conns[t] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		conn.Close()
		return nil, errClosed
	}
	return t, nil
}

// clientConn is a connection that Close can find.
type clientConn struct {
	net.Conn
	c *Client
}

func (t *clientConn) Close() error {
	t.c.mu.Lock()
	delete(t.c.conns, t)
	t.c.mu.Unlock()
	return t.Conn.Close()
}
