package screen

import (
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/meter"
	"github.com/wgexpose/wgexpose/tunnel"
)

// TestSameNumbers: a status that says what the last one said draws nothing.
func TestSameNumbers(t *testing.T) {
	f := newFeed(nil)
	signalled := func() bool {
		select {
		case <-f.wake:
			return true
		default:
			return false
		}
	}
	status := func(rate, rate15, latency float64, visits ...agent.Visit) agent.Status {
		return agent.Status{
			Links: []agent.LinkStatus{{Edge: "e", State: agent.LinkUp, Latency: latency}},
			Tunnels: []agent.TunnelStatus{{
				Name: "app", Conns: meter.Metrics{Rate1: rate, Rate15: rate15}, HTTP: &meter.Metrics{Count: 3, Rate5: rate, Rate15: rate15},
			}},
			Visits: visits,
		}
	}
	for _, step := range []struct {
		name string
		st   agent.Status
		want bool
	}{
		{"the first", status(1, 1, 1), true},
		{"the same", status(1, 1, 1), false},
		{"a rate that reads the same", status(1.001, 1, 1), false},
		{"a rate that is not shown", status(1, 7, 1), false},
		{"another rate", status(1.1, 1, 1), true},
		{"a latency that is nearly the same", status(1.1, 1, 1.9), false},
		{"and once more", status(1.1, 1, 0.3), false},
		{"another latency", status(1.1, 1, 40), true},
		{"that is nearly the same", status(1.1, 1, 44.9), false},
		{"another one", status(1.1, 1, 46), true},
		{"none", status(1.1, 1, 0), true},
		{"a small one", status(1.1, 1, 0.5), true},
		{"a visit", status(1.1, 1, 0.7, agent.Visit{ID: "v"}), true},
		{"none any more", status(1.1, 1, 0.7), false},
	} {
		f.setStatus(step.st)
		if got := signalled(); got != step.want {
			t.Errorf("%s: drawn %t", step.name, got)
		}
	}
	if n := f.take(); n.status == nil || n.status.Tunnels[0].HTTP.Rate15 != 1 {
		t.Errorf("what is shown is not as it was told: %+v", n.status)
	}
}

// TestNumbersBeforeEvents: numbers that came before the event that tells of their link
// or tunnel are shown with it, though no others may come.
func TestNumbersBeforeEvents(t *testing.T) {
	m := busy(t, 80, 24)
	m.feed.setStatus(agent.Status{
		Links:   []agent.LinkStatus{{Edge: "other.example.com:51820", State: agent.LinkUp, Latency: 77}},
		Tunnels: []agent.TunnelStatus{{Name: "late", Upstream: "http://127.0.0.1:9000", Conns: meter.Metrics{Count: 4711}}},
	})
	m.news()
	if text := m.plain(); strings.Contains(text, "77 ms") || strings.Contains(text, "4711") {
		t.Fatalf("shown too early:\n%s", text)
	}
	link := linkUp()
	link.Edge = "other.example.com:51820"
	m.feed.event(link)
	m.feed.event(tunnelUp("late", tunnel.HTTP, "https://late.example.com", "http://127.0.0.1:9000"))
	m.news()
	m.selected = len(m.rows) - 1
	if text := m.plain(); !strings.Contains(text, "77 ms") || !strings.Contains(text, "4711 connections") {
		t.Errorf("not shown:\n%s", text)
	}
}

// TestNextDay: a time of yesterday has a date, on a screen where nothing else happens.
func TestNextDay(t *testing.T) {
	m := newModel(Config{}, newFeed(nil))
	defer close(m.feed.over)
	evening := time.Date(2026, 11, 21, 23, 59, 50, 0, time.Local)
	now := evening
	m.now = func() time.Time { return now }
	m.feed.event(agent.Event{Event: agent.EventLink, Edge: "e", State: agent.LinkUp, Time: evening})
	m.news()
	if !strings.Contains(m.plain(), "since 23:59:50") {
		t.Errorf("today:\n%s", m.plain())
	}
	if left := untilNextDay(now); left != 10*time.Second {
		t.Errorf("the day ends in %v", left)
	}
	now = evening.Add(10 * time.Second)
	if _, again := m.Update(dayMsg{}); again == nil {
		t.Error("the next day would not be noticed")
	}
	if !strings.Contains(m.plain(), "since Nov 21 23:59") {
		t.Errorf("the day after:\n%s", m.plain())
	}
	if left := untilNextDay(now); left != time.Hour {
		t.Errorf("in the morning it is %v to the next look", left)
	}
}

// TestSecondsRun: the screen is drawn each second while a time on it runs, and no longer.
func TestSecondsRun(t *testing.T) {
	m := newModel(Config{}, newFeed(nil))
	defer close(m.feed.over)
	link := func(state string) { m.feed.event(agent.Event{Event: agent.EventLink, Edge: "e", State: state}) }
	visit := func(open bool) {
		m.feed.setStatus(agent.Status{Visits: []agent.Visit{{ID: "v", Open: open}}})
	}
	news := func() { m.Update(newsMsg{}) }
	second := func() { m.Update(secondMsg{}) }
	for _, step := range []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing", news, false},
		{"a link is up", func() { link(agent.LinkUp); news() }, false},
		{"it is not", func() { link(agent.LinkDown); news() }, true},
		{"still not", second, true},
		{"it is up again", func() { link(agent.LinkUp); news(); second() }, false},
		{"a visit goes on", func() { visit(true); news() }, true},
		{"and on", second, true},
		{"it is over", func() { visit(false); news(); second() }, false},
	} {
		step.do()
		if m.counting != step.want {
			t.Errorf("%s: counting %t", step.name, m.counting)
		}
	}
}
