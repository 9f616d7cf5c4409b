package screen

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/meter"
	"github.com/wgexpose/wgexpose/tunnel"
)

var update = flag.Bool("update", false, "write the golden screens anew")

// noon is when all golden screens are looked at.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)

// open is a model at noon, on a terminal of a size.
func open(t *testing.T, width, height int, cfg Config) *model {
	t.Helper()
	f := newFeed(io.Discard)
	m := newModel(cfg, f)
	m.now = func() time.Time { return noon }
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	return m
}

// news has the model look into the feed, as it does by itself.
func (m *model) news() { m.take(m.feed.take()) }

// press types keys: names such as "enter", or single characters.
func (m *model) press(names ...string) (commands []tea.Cmd) {
	for _, name := range names {
		k := tea.KeyPressMsg{Text: name}
		if r := []rune(name); len(r) == 1 {
			k.Code = r[0]
		}
		switch name {
		case "enter":
			k = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			k = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "down":
			k = tea.KeyPressMsg{Code: tea.KeyDown}
		case "pgdown":
			k = tea.KeyPressMsg{Code: tea.KeyPgDown}
		case "backspace":
			k = tea.KeyPressMsg{Code: tea.KeyBackspace}
		case "ctrl+c":
			k = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		_, cmd := m.Update(k)
		commands = append(commands, cmd)
	}
	return commands
}

// plain is the screen without colours.
func (m *model) plain() string { return ansi.Strip(strings.Join(m.layout(), "\n")) }

// golden compares the screen with a file, and checks that it fits.
func golden(t *testing.T, m *model, name string) {
	t.Helper()
	checkSize(t, m)
	got := m.plain() + "\n"
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test ./screen -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nand should be\n%s", name, got, want)
	}
}

func checkSize(t *testing.T, m *model) {
	t.Helper()
	lines := m.layout()
	if len(lines) > m.height {
		t.Errorf("%d lines on a screen of %d", len(lines), m.height)
	}
	for _, line := range lines {
		if w := ansi.StringWidth(line); w > m.width {
			t.Errorf("%d cells on a screen of %d: %q", w, m.width, line)
		}
	}
}

func linkUp() agent.Event {
	return agent.Event{Time: noon.Add(-3 * time.Minute), Event: agent.EventLink, Edge: "203.0.113.5:51820", State: agent.LinkUp, Transport: "udp"}
}

func tunnelUp(name string, kind tunnel.Kind, url, upstream string) agent.Event {
	return agent.Event{Time: noon, Event: agent.EventTunnel, Name: name, Kind: kind, State: agent.TunnelUp, PublicURL: url, Upstream: upstream}
}

// busy is an agent with a website and SSH, and visitors.
func busy(t *testing.T, width, height int) *model {
	t.Helper()
	m := open(t, width, height, Config{Title: "laptop at example.com", Tunnels: []agent.Tunnel{
		{Spec: tunnel.Spec{Name: "app", Kind: tunnel.HTTP, Upstream: "8089"}},
		{Spec: tunnel.Spec{Name: "ssh", Kind: tunnel.TCP, Upstream: "22"}},
	}})
	m.feed.event(linkUp())
	m.feed.event(tunnelUp("app", tunnel.HTTP, "https://app.example.com", "http://127.0.0.1:8089"))
	m.feed.event(tunnelUp("ssh", tunnel.TCP, "tcp://example.com:20022", "127.0.0.1:22"))
	st := agent.Status{
		Inspector: "http://127.0.0.1:4040",
		Links:     []agent.LinkStatus{{Edge: "203.0.113.5:51820", State: agent.LinkUp, Latency: 12.34}},
		Tunnels: []agent.TunnelStatus{
			{Name: "app", Upstream: "http://127.0.0.1:8089", Conns: meter.Metrics{Count: 4, Gauge: 2},
				HTTP: &meter.Metrics{Count: 1234, Rate1: 0.53, Rate5: 12.345, P50: 12e6, P90: 1.8e9}},
			{Name: "ssh", Upstream: "127.0.0.1:22", Conns: meter.Metrics{Count: 1, Gauge: 1, Rate1: 0.0166}},
		},
	}
	for i := range 30 {
		st.Visits = append(st.Visits, agent.Visit{
			ID: fmt.Sprint(i), Tunnel: "app", Start: noon.Add(time.Duration(i-31) * time.Second), Took: time.Duration(i*i) * 7 * time.Millisecond,
			Visitor: "198.51.100.23", Method: []string{"GET", "POST", "OPTIONS"}[i%3], Path: fmt.Sprintf("/items/%d?page=2", i),
			Status: []int{200, 304, 404, 502}[i%4], ToVisitor: int64(i*i*i) * 97,
		})
	}
	st.Visits = append(st.Visits, agent.Visit{
		ID: "c1", Tunnel: "ssh", Start: noon.Add(-time.Second), Took: time.Second, Open: true, Visitor: "[2001:db8::17]:50122",
	})
	m.feed.setStatus(st)
	m.news()
	return m
}

func TestGolden(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {44, 20}} {
		golden(t, busy(t, size[0], size[1]), fmt.Sprintf("busy-%dx%d", size[0], size[1]))
	}

	m := open(t, 80, 24, Config{Title: "laptop at example.com", Tunnels: []agent.Tunnel{
		{Spec: tunnel.Spec{Kind: tunnel.HTTP, Upstream: "8089"}},
	}})
	golden(t, m, "start-80x24")
	m.feed.event(agent.Event{Time: noon.Add(-4 * time.Second), Event: agent.EventLink, Edge: "203.0.113.5:51820", State: agent.LinkDown,
		Reason: "the edge cannot be reached at 203.0.113.5:51820: nothing came back; UDP may be blocked on the way, or the edge may not run"})
	m.news()
	golden(t, m, "down-80x24")

	m.feed.event(linkUp())
	down := tunnelUp("blue-fox", tunnel.HTTP, "https://blue-fox.example.com", "http://127.0.0.1:8089")
	down.State = agent.TunnelError
	down.Error = &control.Error{Code: control.CodeUpstreamRefused, Message: "connection refused by 127.0.0.1:8089"}
	down.Hint = "listening on this machine instead: 3000 (node), 5173 (vite)"
	m.feed.event(down)
	fmt.Fprintf(m.feed, "time=%s level=WARN msg=\"something \\\"odd\\\" about the upstream\" err=\"connection refused by 127.0.0.1:8089\"\n", noon.Format(time.RFC3339))
	m.news()
	golden(t, m, "upstream-80x24")
}

// TestWide: what is wider than a byte, or a cell, moves nothing.
func TestWide(t *testing.T) {
	m := busy(t, 80, 24)
	m.feed.setStatus(agent.Status{Visits: []agent.Visit{
		{ID: "w", Tunnel: "app", Start: noon, Method: "GET", Status: 200, Visitor: "198.51.100.1", Path: "/文件/" + strings.Repeat("漢字", 30)},
		{ID: "e", Tunnel: "app", Start: noon, Method: "GET", Status: 200, Visitor: "198.51.100.1", Path: "/👩‍👩‍👧/e\u0301\u0301\u0301\u0301\u0301\u0301\u0301"},
		{ID: "b", Tunnel: "app", Start: noon, Method: "GET", Status: 200, Visitor: "198.51.100.1", Path: "/\xff\xfe"},
	}})
	m.news()
	golden(t, m, "wide-80x24")
}

// TestUntrusted: nothing that a visitor, an edge or a log sends reaches the
// terminal as anything but text.
func TestUntrusted(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;pwned\x07\u009b31m\x9b31m\u202egnp.exe\r\n\x00"
	m := open(t, 120, 40, Config{Title: evil, Tunnels: []agent.Tunnel{
		{Spec: tunnel.Spec{Name: evil, Kind: tunnel.HTTP, Upstream: evil}},
	}})
	m.feed.event(agent.Event{Time: noon, Event: agent.EventLink, Edge: evil, State: agent.LinkDown, Reason: evil, Transport: evil})
	m.feed.event(agent.Event{Time: noon, Event: agent.EventLink, Edge: evil + "2", State: agent.LinkUp, Reason: evil, Transport: evil})
	m.feed.event(agent.Event{Time: noon, Event: agent.EventTunnel, Name: evil, Kind: tunnel.HTTP, State: agent.TunnelError, PublicURL: evil, Upstream: evil,
		Error: &control.Error{Code: evil, Message: evil}, Hint: evil})
	m.feed.setStatus(agent.Status{Inspector: evil, Visits: []agent.Visit{
		{ID: "1", Tunnel: evil, Start: noon, Visitor: evil, Method: evil, Path: evil, Error: evil},
		{ID: "2", Tunnel: evil, Start: noon, Visitor: evil, Error: evil},
	}})
	m.feed.setNotes([]Note{{Text: evil}, {Text: evil, Command: true}})
	fmt.Fprintln(m.feed, evil)
	m.news()
	m.Update(openedMsg{errors.New(evil)})
	m.press("/")
	m.Update(tea.PasteMsg{Content: evil})
	for _, keys := range [][]string{{"enter"}, {"c"}, {"esc"}, {"o"}, {"p"}, {"r"}} {
		m.press(keys...)
		checkSize(t, m)
		for _, line := range m.layout() {
			for _, r := range ansi.Strip(line) {
				if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
					t.Fatalf("%U after %v in %q", r, keys, line)
				}
			}
			// What is left of escape sequences are colours.
			rest := line
			for {
				i := strings.IndexByte(rest, 0x1b)
				if i < 0 {
					break
				}
				end := strings.IndexByte(rest[i:], 'm')
				if end < 0 || strings.Trim(rest[i+1:i+end], "[0123456789;") != "" {
					t.Fatalf("after %v there is an escape sequence that is no colour in %q", keys, line)
				}
				rest = rest[i+end:]
			}
		}
	}
}
