package screen

import (
	"testing"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/meter"
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
		{"another latency", status(1.1, 1, 2), true},
		{"a visit", status(1.1, 1, 2, agent.Visit{ID: "v"}), true},
		{"none any more", status(1.1, 1, 2), false},
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
