package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/wgexpose/wgexpose/e2e/origin"
)

// 10,000 messages to the origin and 10,000 back, both under way at once.
func TestWebSocket(t *testing.T) {
	const messages = 10_000
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, strings.Replace(s.public["web"], "https", "wss", 1)+"/socket",
		&websocket.DialOptions{HTTPClient: s.client(false)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()

	// Short and long ones: the length is written differently from 126 bytes on.

	message := func(i int) string {
		return fmt.Sprintf("%d %s", i, strings.Repeat("x", i%300))
	}
	sent := make(chan error, 1)
	go func() {
		for i := range messages {
			if err := c.Write(ctx, websocket.MessageText, []byte(message(i))); err != nil {
				sent <- fmt.Errorf("send message %d: %w", i, err)
				return
			}
		}
		sent <- nil
	}()
	for i := range messages {
		kind, got, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if kind != websocket.MessageText || string(got) != message(i) {
			t.Fatalf("message %d is %v %q", i, kind, got)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	large := strings.Repeat("0123456789abcdef", 70_000/16)
	if err := c.Write(ctx, websocket.MessageBinary, []byte(large)); err != nil {
		t.Fatal(err)
	}
	if kind, got, err := c.Read(ctx); err != nil || kind != websocket.MessageBinary || string(got) != large {
		t.Fatalf("large message: %v, %d bytes, %v", kind, len(got), err)
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}
