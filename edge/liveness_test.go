package edge

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLivenessTurns(t *testing.T) {
	l := newLiveness()
	if !l.Away() || !ended(l.AwayC()) {
		t.Error("starts away")
	}
	l.Heard()
	if !l.Away() {
		t.Error("hearing alone does not turn it up")
	}
	l.SetUp()
	c := l.AwayC()
	if l.Away() || ended(c) {
		t.Error("up")
	}
	l.SetUp()
	if l.AwayC() != c {
		t.Error("up twice is up once: who waits, waits on")
	}
	l.SetAway()
	l.SetAway()
	if !l.Away() || !ended(c) || !ended(l.AwayC()) {
		t.Error("away")
	}
	l.SetUp()
	if l.Away() || ended(l.AwayC()) || !ended(c) {
		t.Error("up again: a new wait, the old one stays ended")
	}
}

func TestLivenessHeardSince(t *testing.T) {
	l := newLiveness()
	before := time.Now()
	if l.HeardSince(before.Add(-time.Hour)) {
		t.Error("never heard")
	}
	l.Heard()
	if !l.HeardSince(before.Add(-time.Nanosecond)) || l.HeardSince(time.Now().Add(time.Hour)) {
		t.Error("heard now")
	}
}

func refusedFor(reason string) *failure {
	return upstreamFailure(control.AgentEvent{Code: control.CodeUpstreamRefused, Error: reason})
}

func reasonOf(why *failure) string {
	if why == nil {
		return ""
	}
	return why.reason
}

func TestLivenessRefusal(t *testing.T) {
	ctx := context.Background()
	l := newLiveness()
	past := time.Now().Add(-time.Hour)
	l.Report(1, refusedFor("refused"))
	if got := reasonOf(l.Refusal(ctx, 1, past)); got != "refused" {
		t.Errorf("%q", got)
	}
	if got := l.Refusal(ctx, 2, past); got != nil {
		t.Errorf("of another tunnel: %+v", got)
	}
	if got := reasonOf(l.Refusal(ctx, 1, time.Now().Add(time.Hour))); got != "refused" {
		t.Errorf("nothing newer: %q, want the last word", got)
	}
	l.Report(1, nil)
	if got := l.Refusal(ctx, 1, past); got != nil {
		t.Errorf("well again: %+v", got)
	}
}

// A report that comes a moment after the refusal is waited for.
func TestLivenessRefusalWaits(t *testing.T) {
	l := newLiveness()
	l.Report(1, refusedFor("old"))
	since := time.Now()
	got := make(chan string, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		got <- reasonOf(l.Refusal(context.Background(), 1, since))
	}()
	<-started
	l.Report(2, refusedFor("of another"))
	l.Report(1, refusedFor("new"))
	if reason := await(t, got, "reason"); reason != "new" {
		t.Errorf("%q", reason)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if reason := reasonOf(l.Refusal(cancelled, 1, time.Now().Add(time.Hour))); reason != "new" {
		t.Errorf("cancelled: %q", reason)
	}
}

func TestLivenessReportsAreBounded(t *testing.T) {
	l := newLiveness()
	for id := range tunnel.ID(maxReports + 10) {
		l.Report(id, upstreamFailure(control.AgentEvent{Error: strings.Repeat("\xff", maxReportText*2)}))
	}
	if len(l.reports) != maxReports {
		t.Errorf("%d reports", len(l.reports))
	}
	if _, ok := l.reports[0]; ok {
		t.Error("the oldest is still there")
	}
	if r := l.reports[maxReports+9].why.reason; len(r) > maxReportText || r == "" || !strings.HasPrefix(r, "\uFFFD") {
		t.Errorf("%d bytes: %.10q", len(r), r)
	}
}
