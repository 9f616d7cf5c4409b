package main

import (
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

// The lines of --json are an interface: programs parse them.
func TestEventsAsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, e := range map[string]agent.Event{
		`{"time":"2026-01-02T03:04:05Z","event":"link","edge":"vm:51820","state":"up","transport":"udp"}`: {
			Event: agent.EventLink, Edge: "vm:51820", State: agent.LinkUp, Transport: "udp"},
		`{"time":"2026-01-02T03:04:05Z","event":"link","edge":"vm:51820","state":"degraded","reason":"nothing heard"}`: {
			Event: agent.EventLink, Edge: "vm:51820", State: agent.LinkDegraded, Reason: "nothing heard"},
		`{"time":"2026-01-02T03:04:05Z","event":"tunnel","name":"app","kind":"http","state":"up","public_url":"https://app.example.com","upstream":"http://127.0.0.1:8089"}`: {
			Event: agent.EventTunnel, Name: "app", Kind: tunnel.HTTP, State: agent.TunnelUp, PublicURL: "https://app.example.com", Upstream: "http://127.0.0.1:8089"},
		`{"time":"2026-01-02T03:04:05Z","event":"tunnel","name":"ssh","kind":"tcp","state":"error","upstream":"tcp://127.0.0.1:22","error":{"code":"port_taken","message":"no"}}`: {
			Event: agent.EventTunnel, Name: "ssh", Kind: tunnel.TCP, State: agent.TunnelError, Upstream: "tcp://127.0.0.1:22", Error: &control.Error{Code: "port_taken", Message: "no"}},
	} {
		e.Time = at
		var stdout, stderr strings.Builder
		newEventPrinter(&app{stdout: &stdout, stderr: &stderr}, true).print(e)
		if got := stdout.String(); got != want+"\n" || stderr.Len() > 0 {
			t.Errorf("got\n%s\nwant\n%s\nand on stderr %q", got, want, stderr.String())
		}
	}
}

func TestEventsForAPerson(t *testing.T) {
	for _, test := range []struct {
		event          agent.Event
		stdout, stderr string
	}{
		{agent.Event{Event: agent.EventLink, Edge: "vm:51820", State: agent.LinkUp, Transport: "udp"}, "", "connected to vm:51820 over udp\n"},
		{agent.Event{Event: agent.EventLink, Edge: "vm:51820", State: agent.LinkDown, Reason: "no answer"}, "", "no connection to vm:51820: no answer\n"},
		{agent.Event{Event: agent.EventTunnel, Name: "app", State: agent.TunnelUp, PublicURL: "https://app.example.com", Upstream: "http://127.0.0.1:8089"},
			"https://app.example.com -> http://127.0.0.1:8089\n", ""},
		{agent.Event{Event: agent.EventTunnel, Name: "app", State: agent.TunnelAway}, "app: away: visitors are told to come back later\n", ""},
		{agent.Event{Event: agent.EventTunnel, Name: "app", State: agent.TunnelGone}, "app: gone\n", ""},
		{agent.Event{Event: agent.EventTunnel, Upstream: "tcp://127.0.0.1:22", State: agent.TunnelError, Error: &control.Error{Message: "bad \x1b[2J"}},
			"tcp://127.0.0.1:22: error: bad ?[2J\n", ""},
	} {
		var stdout, stderr strings.Builder
		newEventPrinter(&app{stdout: &stdout, stderr: &stderr}, false).print(test.event)
		if stdout.String() != test.stdout || stderr.String() != test.stderr {
			t.Errorf("got %q and %q, want %q and %q", stdout.String(), stderr.String(), test.stdout, test.stderr)
		}
	}
}

// What ends the command is told once, as its error.
func TestRefusalIsToldOnce(t *testing.T) {
	var stdout, stderr strings.Builder
	p := newEventPrinter(&app{stdout: &stdout, stderr: &stderr}, false)
	p.alone = true
	p.print(agent.Event{Event: agent.EventTunnel, Name: "app", State: agent.TunnelError, Error: &control.Error{Code: control.CodeNameTaken, Message: "no"}})
	p.print(agent.Event{Event: agent.EventTunnel, Name: "app", State: agent.TunnelGone})
	if stdout.Len()+stderr.Len() > 0 {
		t.Errorf("told %q and %q", stdout.String(), stderr.String())
	}
	for _, code := range []string{control.CodeUnavailable, control.CodeCertificatePending, control.CodeDNSPending} {
		stdout.Reset()
		p.print(agent.Event{Event: agent.EventTunnel, Name: "app", State: agent.TunnelError, Error: &control.Error{Code: code, Message: "later"}})
		if stdout.String() != "app: error: later\n" {
			t.Errorf("%s, which may pass: told %q", code, stdout.String())
		}
	}
}

// TestNoteScheme: who asks for http:// at an edge with HTTPS is told, once.
func TestNoteScheme(t *testing.T) {
	var stderr strings.Builder
	s := &sharing{app: &app{stderr: &stderr}, asked: "http://app.example.com"}
	up := agent.Event{Event: agent.EventTunnel, State: agent.TunnelUp, PublicURL: "https://app.example.com"}
	s.noteScheme(agent.Event{Event: agent.EventTunnel, State: agent.TunnelAway})
	s.noteScheme(up)
	s.noteScheme(up)
	if text := stderr.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "serves HTTPS, at https://app.example.com") {
		t.Errorf("%q", text)
	}
	stderr.Reset()
	for _, s := range []*sharing{{app: &app{stderr: &stderr}, asked: "https://app.example.com"}, {app: &app{stderr: &stderr}}} {
		s.noteScheme(up)
	}
	plain := &sharing{app: &app{stderr: &stderr}, asked: "http://app.example.com"}
	plain.noteScheme(agent.Event{Event: agent.EventTunnel, State: agent.TunnelUp, PublicURL: "http://app.example.com"})
	if stderr.Len() != 0 {
		t.Errorf("%q", stderr.String())
	}
}
