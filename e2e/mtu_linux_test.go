package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/lab"
	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// In the middle of a download, the path begins to lose packets of more than 1,300
// bytes without a word. The download goes on and arrives whole; an ssh session and
// the link live on.
func TestPathShrinksInMidDownload(t *testing.T) {
	const size = 6 << 20
	_, want, err := origin.Sum(origin.Data(size))
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, worldOptions{})
	// Ethernet over IPv4 takes 1,440 bytes inside; the nearest size that
	// WireGuard does not make larger is 1,436.
	awaitMTU(t, w.agentDir(), w.edgeDir(), "1436", func(n int) bool { return n == 1436 })
	ssh, err := w.startTypist()
	if err != nil {
		t.Fatal(err)
	}
	events := w.agent.Events()
	ctx, cancel := context.WithTimeout(t.Context(), fullPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/download?n=%d", w.public["web"], size), nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := w.transport()
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sum := sha256.New()
	if _, err := io.CopyN(sum, resp.Body, size/3); err != nil {
		t.Fatal(err)
	}
	small := lab.Good
	small.MTU = 1300
	w.lab.Wire(small)
	shrunk := time.Now()
	var longest time.Duration
	buf := make([]byte, 32<<10)
	for last := shrunk; ; {
		n, err := resp.Body.Read(buf)
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		sum.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the download broke: %v", err)
		}
	}
	t.Logf("after the path had shrunk, the download stood still for %v at most", longest.Round(time.Millisecond))
	if got := hex.EncodeToString(sum.Sum(nil)); resp.StatusCode != http.StatusOK || got != want {
		t.Errorf("status %s, and other bytes than were sent", resp.Status)
	}
	if err := errors.Join(ssh.echoed(time.Now()), ssh.leave()); err != nil {
		t.Error(err)
	}
	// 1,300 bytes outside are 1,240 inside. The edge, which sent nothing large,
	// has no need to know.
	if agent, _ := mtus(t, w.agentDir(), w.edgeDir()); agent < 1200 || agent > 1240 {
		t.Errorf("the agent sends packets of %d bytes, want 1200–1240", agent)
	}
	w.agent.NoEventAfter(events, "the link was lost", func(e process.Event) bool { return e.Event == "link" })
}
