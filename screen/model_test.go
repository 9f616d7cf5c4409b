package screen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	tea "charm.land/bubbletea/v2"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSizes: it fits whatever the size, with everything that can be shown.
func TestSizes(t *testing.T) {
	m := busy(t, 80, 24)
	for i := range 12 {
		m.feed.event(tunnelUp(fmt.Sprintf("more-%d", i), tunnel.HTTP, fmt.Sprintf("https://more-%d.example.com", i), "http://127.0.0.1:9000"))
		fmt.Fprintf(m.feed, "line %d\n", i)
	}
	m.feed.setNotes([]Note{{Text: strings.Repeat("a note ", 30)}})
	m.news()
	for _, code := range []bool{false, true} {
		m.code = code
		for _, width := range []int{0, 1, 2, 3, 5, 8, 9, 10, 20, 33, 44, 49, 50, 59, 60, 75, 76, 80, 99, 100, 132} {
			for _, height := range []int{0, 1, 2, 3, 4, 5, 8, 13, 17, 24, 40, 70} {
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				for _, selected := range []int{0, 13} {
					m.selected = selected
					checkSize(t, m)
				}
			}
		}
	}
	if t.Failed() {
		return
	}
	// The selected tunnel is among those that are shown.
	m.code = false
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	for i := range m.rows {
		m.selected = i
		if !strings.Contains(m.plain(), "▸ "+m.rows[i].name+"  up") {
			t.Fatalf("tunnel %d is selected, and not on\n%s", i, m.plain())
		}
	}
}

func TestFilterAndPause(t *testing.T) {
	m := busy(t, 80, 24)
	m.press("/", "4", "0", "4", "x", "backspace", " ", "p", "o", "s", "t", "enter")
	for _, v := range m.shown(0, 100) {
		if v.Status != 404 || v.Method != "POST" {
			t.Errorf("404 post shows %+v", v)
		}
	}
	if n := len(m.shown(0, 100)); n != 2 {
		t.Errorf("%d visits, of 2\n%s", n, m.plain())
	}
	golden(t, m, "filter-80x24")
	m.press("esc")
	if n := len(m.shown(0, 100)); n != 31 {
		t.Errorf("%d visits without a filter, of 31", n)
	}

	m.press("p")
	m.feed.setStatus(agent.Status{Visits: []agent.Visit{{ID: "new", Start: noon, Method: "GET", Path: "/new"}}})
	m.news()
	if text := m.plain(); strings.Contains(text, "/new") || !strings.Contains(text, "paused") {
		t.Errorf("paused is\n%s", text)
	}
	m.press("pgdown")
	if first := m.shown(m.scroll, 1)[0]; first.ID != "18" {
		t.Errorf("half a screen down is visit %s", first.ID)
	}
	m.press("p")
	if !strings.Contains(m.plain(), "/new") {
		t.Errorf("gone on is\n%s", m.plain())
	}
}

// TestVisitsEnd: a visit that goes on is one line, which changes; old ones are
// forgotten.
func TestVisitsEnd(t *testing.T) {
	m := busy(t, 80, 24)
	m.feed.setStatus(agent.Status{Visits: []agent.Visit{{ID: "c1", Tunnel: "ssh", Start: noon, Error: "reset by the upstream"}}})
	m.news()
	if text := m.plain(); strings.Contains(text, " open TCP") || !strings.Contains(text, "fail TCP") || strings.Count(text, "ssh (reset")+strings.Count(text, "ssh  (reset") != 1 {
		t.Errorf("%s", text)
	}
	for i := range 3 * maxVisits {
		m.visit(agent.Visit{ID: fmt.Sprint("n", i)})
	}
	if len(m.visits) != maxVisits || len(m.byID) != maxVisits {
		t.Errorf("%d visits, %d by id", len(m.visits), len(m.byID))
	}
}

func TestKeys(t *testing.T) {
	interrupts := 0
	var opened []string
	m := busy(t, 80, 24)
	m.cfg.Interrupt = func() { interrupts++ }
	m.cfg.Browse = func(url string) error { opened = append(opened, url); return errors.New("no browser") }
	run := func(cmd tea.Cmd) {
		t.Helper()
		batch, ok := cmd().(tea.BatchMsg)
		if !ok {
			t.Fatalf("%T", cmd())
		}
		m.Update(batch[1]())
	}
	m.press("c")
	if m.toast != "copied https://app.example.com" {
		t.Errorf("c says %q", m.toast)
	}
	run(m.press("o")[0])
	if m.toast != "cannot open it: no browser" {
		t.Errorf("o says %q", m.toast)
	}
	run(m.press("i")[0])
	m.press("down", "o")
	if !strings.Contains(m.toast, "ssh is no website") {
		t.Errorf("o on ssh says %q", m.toast)
	}
	m.press("c")
	if m.toast != "copied tcp://example.com:20022" {
		t.Errorf("c on ssh says %q", m.toast)
	}
	if want := []string{"https://app.example.com", "http://127.0.0.1:4040"}; fmt.Sprint(opened) != fmt.Sprint(want) {
		t.Errorf("opened %v", opened)
	}
	m.press("r")
	golden(t, m, "code-80x24")
	m.press("x", "q", "ctrl+c")
	if interrupts != 2 || m.code {
		t.Errorf("%d interrupts, code %v", interrupts, m.code)
	}
	m.feed.setStopping()
	m.news()
	if !strings.Contains(m.plain(), "stopping") {
		t.Errorf("%s", m.plain())
	}
}

// TestLog: what was logged while the screen was up is on the normal screen
// afterwards, and later lines go there at once.
func TestLog(t *testing.T) {
	var after bytes.Buffer
	f := newFeed(&after)
	for i := range maxKept + 3 {
		fmt.Fprintf(f, "line %d\n", i)
	}
	io.WriteString(f, "half a ")
	io.WriteString(f, "line")
	if after.Len() != 0 {
		t.Errorf("the normal screen has %q", after.String())
	}
	if n := f.take(); len(n.lines) != shownLines || n.lines[shownLines-1] != fmt.Sprint("line ", maxKept+2) {
		t.Errorf("shown are %q", n.lines)
	}
	f.release()
	fmt.Fprintln(f, ", and later")
	text := after.String()
	if !strings.HasPrefix(text, "(3 earlier lines") || !strings.Contains(text, "\nline 3\n") || !strings.HasSuffix(text, "half a line\n, and later\n") {
		t.Errorf("the normal screen has %q", text)
	}
}

// TestTellingNeverWaits: the screen is told things though nobody shows them, and
// forgets the oldest.
func TestTellingNeverWaits(t *testing.T) {
	s := New(Config{Err: io.Discard})
	for range 5 * maxWaiting {
		s.Event(linkUp())
		s.Status(agent.Status{Visits: make([]agent.Visit, 10)})
		fmt.Fprintln(s.Log(), "line")
	}
	n := s.feed.take()
	if len(n.events) != maxWaiting || len(n.visits) != maxWaiting || len(s.feed.lines) != maxKept {
		t.Errorf("%d events, %d visits and %d lines wait", len(n.events), len(n.visits), len(s.feed.lines))
	}
}

// TestRun draws on something that is no terminal, which is enough to see that it
// begins and ends as it should.
func TestRun(t *testing.T) {
	in, typing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer typing.Close()
	var out, after bytes.Buffer
	stop := make(chan struct{}, 10)
	s := New(Config{In: in, Out: &out, Err: &after, Environ: []string{"TERM=xterm-256color"}, Title: "laptop at example.com",
		Interrupt: func() { stop <- struct{}{} }})
	fmt.Fprintln(s.Log(), "a line of the log")
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if _, err := io.WriteString(typing, "q"); err != nil {
		t.Fatal(err)
	}
	<-stop
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text := out.String(); !strings.Contains(text, "\x1b[?1049h") || !strings.Contains(text, "\x1b[?1049l") {
		t.Errorf("drew %q", text)
	}
	if after.String() != "a line of the log\n" {
		t.Errorf("the normal screen has %q", after.String())
	}
}

// A command that was broken into lines is the same command for a shell.
func TestWrapCommand(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("sh is not installed")
	}
	command := "printf '[%s]' --cacert /tmp/wgexpose-demo-880360484/ca.pem --resolve demo.localhost:8443:127.0.0.1 https://demo.localhost:8443/"
	want, err := exec.Command(sh, "-c", command).Output()
	if err != nil {
		t.Fatal(err)
	}
	for width := 10; width < 140; width++ {
		lines := wrapCommand(command, width)
		for _, line := range lines {
			if len(line) > width {
				t.Errorf("%d columns: %q", width, line)
			}
		}
		got, err := exec.Command(sh, "-c", strings.Join(lines, "\n")).Output()
		if err != nil || string(got) != string(want) {
			t.Errorf("%d columns: %q, %v", width, got, err)
		}
	}
}
