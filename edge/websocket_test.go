package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, b); err != nil {
			return
		}
	}
}

func (r *rig) dialWebSocket(url string) (*websocket.Conn, context.Context) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	client := r.client(func(tr *http.Transport) {
		tr.ForceAttemptHTTP2 = false
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	})
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.CloseNow() })
	return c, ctx
}

func exchange(t *testing.T, ctx context.Context, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(ctx); err != nil || string(b) != text {
		t.Fatalf("%q %v", b, err)
	}
}

// wantGone says that c ends without a timeout.
func wantGone(t *testing.T, ctx context.Context, c *websocket.Conn) {
	t.Helper()
	if _, _, err := c.Read(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v; want the end", err)
	}
}

// A WebSocket goes through every layer, and ends with the node, or with the
// front when its time is up.
func TestWebSocketThroughTheFront(t *testing.T) {
	var log logbuf.Buffer
	r := newRig(t, func(r *rig) {
		r.limits.drain = 50 * time.Millisecond
		r.front.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.upstream(1, echoMessages)
	r.apply(httpEntry(1, "app.edge.test"))
	first, ctx := r.dialWebSocket("https://app.edge.test/")
	for range 100 {
		exchange(t, ctx, first, "hello")
	}
	// The agent's absence alone ends nothing.
	r.live.SetAway()
	exchange(t, ctx, first, "still here")
	r.live.SetUp()
	second, _ := r.dialWebSocket("https://app.edge.test/")
	exchange(t, ctx, second, "me too")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	wantGone(t, ctx, first)
	wantGone(t, ctx, second)
	if out := log.String(); !strings.Contains(out, "host=app.edge.test") {
		t.Errorf("log: %s", out)
	}
}

func TestDropNodeEndsWebSockets(t *testing.T) {
	r := newRig(t, nil)
	r.upstream(1, echoMessages)
	r.apply(httpEntry(1, "app.edge.test"))
	c, ctx := r.dialWebSocket("https://app.edge.test/")
	exchange(t, ctx, c, "hello")
	r.apply() // the tunnel has left the table before the node is dropped
	exchange(t, ctx, c, "still here")
	r.DropNode(testAgent)
	wantGone(t, ctx, c)
}
