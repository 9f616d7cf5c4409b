package edge

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// refusalWait bounds the wait for the agent's word on a refused dial. The
	// RST and the report travel side by side, so one round trip is enough;
	// 200 ms covers one across the world.
	refusalWait = 200 * time.Millisecond

	// maxReports and maxReportText bound what one agent can make the edge keep.
	maxReports    = 1024
	maxReportText = 512 // bytes
)

// errAway is why a node's presence ended.
var errAway = errors.New("the agent is away")

// liveness is what the edge knows of one node at this moment: whether it is
// there, when it was last heard, and what it said of its upstreams. The control
// plane owns it, one per node, and writes it; the data plane reads it. It
// outlives table swaps. All methods are safe for concurrent use.
type liveness struct {
	mu      sync.Mutex              // guards all below
	heard   time.Time               // zero: never
	present context.Context         // ends when the node turns away; replaced when it comes back
	leave   context.CancelCauseFunc // ends present
	reports map[tunnel.ID]report    // the last one of each upstream
	news    chan struct{}           // closed and replaced at each report
}

// report is an agent's last word on one upstream.
type report struct {
	at  time.Time
	why *failure // nil: it is well
}

// newLiveness returns the liveness of a node that has not been heard yet: away.
func newLiveness() *liveness {
	l := &liveness{
		reports: make(map[tunnel.ID]report),
		news:    make(chan struct{}),
	}
	l.present, l.leave = context.WithCancelCause(context.Background())
	l.leave(errAway)
	return l
}

// Heard notes that something came from the node just now. It does not turn the
// node up: what makes a node up is the control plane's to say.
func (l *liveness) Heard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
}

// HeardSince reports whether anything came from the node after t.
func (l *liveness) HeardSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard.After(t)
}

// SetUp says that the node is there. Away turns false and AwayC gives a new
// channel.
func (l *liveness) SetUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.present.Err() != nil {
		l.present, l.leave = context.WithCancelCause(context.Background())
	}
}

// SetAway says that the node is gone or silent, and wakes whoever waits on
// AwayC.
func (l *liveness) SetAway() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave(errAway)
}

// Away reports whether the node is away.
func (l *liveness) Away() bool { return l.presence().Err() != nil }

// AwayC returns a channel that is closed already while the node is away, and
// else is closed when it next turns away.
func (l *liveness) AwayC() <-chan struct{} { return l.presence().Done() }

// presence returns a context that ends, with errAway as its cause, when the node
// turns away; one that has ended already while it is away. context.AfterFunc on
// it is a wait that costs no goroutine.
func (l *liveness) presence() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present
}

// failure is why an agent cannot reach an upstream.
type failure struct {
	code   string // one of control's CodeUpstream constants, or of a newer agent
	reason string // in words
}

// upstreamFailure reads an agent's report; nil means that the upstream is well.
func upstreamFailure(ev control.AgentEvent) *failure {
	if ev.OK {
		return nil
	}
	reason := ev.Error
	if len(reason) > maxReportText {
		reason = reason[:maxReportText]
	}
	return &failure{code: ev.Code, reason: strings.ToValidUTF8(reason, "\uFFFD")}
}

// Report keeps what the agent says of the upstream of tunnel id: nil, that it
// can be reached, or why not.
func (l *liveness) Report(id tunnel.ID, why *failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.reports[id]; !known && len(l.reports) >= maxReports {
		l.dropOldestLocked()
	}
	l.reports[id] = report{at: time.Now(), why: why}
	close(l.news)
	l.news = make(chan struct{})
}

// dropOldestLocked forgets the report that is longest out of date: an agent's
// tunnel ids change at each of its starts, so old ones would pile up.
func (l *liveness) dropOldestLocked() {
	var oldest tunnel.ID
	var at time.Time
	for id, r := range l.reports {
		if at.IsZero() || r.at.Before(at) {
			oldest, at = id, r.at
		}
	}
	delete(l.reports, oldest)
}

// Last is what the agent last said is wrong with the upstream of tunnel id, or nil.
func (l *liveness) Last(id tunnel.ID) *failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reports[id].why
}

// Refusal returns the agent's reason why the upstream of tunnel id refuses. It
// waits up to 200 ms for a report newer than since, then falls back on the last
// one. Nil: the agent said nothing, or that the upstream is well.
func (l *liveness) Refusal(ctx context.Context, id tunnel.ID, since time.Time) *failure {
	timer := time.NewTimer(refusalWait)
	defer timer.Stop()
	for {
		l.mu.Lock()
		r, news := l.reports[id], l.news
		l.mu.Unlock()
		if r.at.After(since) {
			return r.why
		}
		select {
		case <-news:
		case <-timer.C:
			return r.why
		case <-ctx.Done():
			return r.why
		}
	}
}
