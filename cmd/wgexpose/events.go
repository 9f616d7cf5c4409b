package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/wgexpose/wgexpose/agent"
)

// eventPrinter prints what happens to links and tunnels: as lines of JSON, or
// as lines that a person reads. For a person, what is shared where goes to
// stdout, and how the link is doing to stderr.
type eventPrinter struct {
	stdout, stderr io.Writer
	json           bool
	inspected      bool // there are tunnels whose requests the inspector shows
	alone          bool // there is one tunnel: its refusal ends the command, and is its error

	mu      sync.Mutex // one line at a time; guards what follows
	page    string     // of the inspector, as last told
	refused bool       // alone and refused: that it is gone says nothing then
}

func newEventPrinter(a *app, asJSON bool) *eventPrinter {
	return &eventPrinter{stdout: a.stdout, stderr: a.stderr, json: asJSON}
}

// print ignores errors of writing: that nobody reads is no reason to stop
// serving visitors.
func (p *eventPrinter) print(e agent.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.json:
		_ = writeJSON(p.stdout, e)
	case e.Event == agent.EventLink:
		fmt.Fprintln(p.stderr, linkLine(e))
	case e.Event == agent.EventInspector:
		if p.inspected && e.URL != p.page || e.State == agent.InspectorError {
			fmt.Fprintln(p.stderr, inspectorLine(e))
		}
		p.page = e.URL
	case p.alone && p.refuses(e):
		p.refused = true
	case p.refused && e.State == agent.TunnelGone:
	default:
		p.refused = false
		fmt.Fprintln(p.stdout, tunnelLine(e))
	}
}

// refuses tells whether the command ends with this event's error.
func (p *eventPrinter) refuses(e agent.Event) bool {
	return e.State == agent.TunnelError && e.PublicURL == "" && e.Error != nil &&
		(final(e.Error) || e.Error.Code == agent.CodeNameInUse)
}

func linkLine(e agent.Event) string {
	line := ""
	switch e.State {
	case agent.LinkConnecting:
		line = "connecting to " + e.Edge
	case agent.LinkUp:
		line = "connected to " + e.Edge
		if e.Transport != "" {
			line += " over " + e.Transport
		}
	case agent.LinkDegraded:
		line = "lost " + e.Edge + ", connecting again"
	case agent.LinkDown:
		line = "no connection to " + e.Edge
	default:
		line = e.Edge + ": " + e.State
	}
	if e.Reason != "" {
		line += ": " + e.Reason
	}
	return printable(line)
}

func inspectorLine(e agent.Event) string {
	if e.State == agent.InspectorUp {
		return "requests are shown at " + e.URL
	}
	return printable("requests are not shown: " + e.Reason)
}

func tunnelLine(e agent.Event) string {
	name := e.Name
	if name == "" {
		name = e.Upstream
	}
	line := name + ": " + e.State
	switch {
	case e.State == agent.TunnelUp && e.PublicURL != "":
		line = e.PublicURL + " -> " + e.Upstream
	case e.Error != nil:
		line += ": " + e.Error.Message
		if e.Hint != "" {
			line += "; " + e.Hint
		}
	case e.State == agent.TunnelAway:
		line += ": visitors are told to come back later"
	}
	return printable(line)
}
