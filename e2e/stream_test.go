package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/origin"
)

// The origin sends the next event only when the visitor has the one before, so
// that an event which is held back anywhere ends the test.
func TestServerSentEvents(t *testing.T) {
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.public["web"]+"/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.client(http2).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if want := map[bool]int{false: 1, true: 2}[http2]; resp.ProtoMajor != want {
				t.Errorf("the answer came over %s", resp.Proto)
			}
			if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("content type %q", got)
			}
			lines := bufio.NewReader(resp.Body)
			for i := range 50 {
				event := fmt.Sprintf("event %d", i)
				select {
				case web.Events <- event:
				case <-ctx.Done():
					t.Fatalf("%s was never asked for: %v", event, context.Cause(ctx))
				}
				for _, want := range []string{"data: " + event + "\n", "\n"} {
					if got, err := lines.ReadString('\n'); err != nil || got != want {
						t.Fatalf("read %q (%v), want %q", got, err, want)
					}
				}
			}
		})
	}
}

// A visitor who leaves ends the request at the origin.
func TestVisitorLeavesAStream(t *testing.T) {
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.public["web"]+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	web.Events <- "hello"
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, "hello") {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	select {
	case <-web.Left:
	case <-testTimeout(t):
		t.Error("the origin still sends to a visitor who has left")
	}
}
