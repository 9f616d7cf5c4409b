package screen

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/meter"
)

const (
	// maxKept is how many log lines are kept for the normal screen.
	maxKept = 500
	// maxLine is how much of a log line is kept, in bytes.
	maxLine = 4 << 10
	// maxWaiting is how many events or visits wait to be shown.
	maxWaiting = 1000
)

// feed is what is to be shown, and has not been yet. It is filled from any
// goroutine.
type feed struct {
	wake chan struct{} // holds one
	over chan struct{} // closed by release

	mu       sync.Mutex // guards all below
	events   []agent.Event
	status   *agent.Status // without its visits
	shown    *agent.Status // the last, as far as it is told on the screen
	visits   []agent.Visit
	notes    []Note
	stopping bool

	err      io.Writer
	partial  []byte   // of a line that has not ended
	lines    []string // kept
	lost     int      // lines before those
	fresh    int      // lines that came since the last take
	released bool     // log lines go to err
}

func newFeed(err io.Writer) *feed {
	return &feed{wake: make(chan struct{}, 1), over: make(chan struct{}), err: err}
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) event(e agent.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = newest(append(f.events, e), maxWaiting)
	f.signal()
}

func (f *feed) setStatus(st agent.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	more := len(st.Visits) > 0
	f.visits = newest(append(f.visits, st.Visits...), maxWaiting)
	st.Visits = nil
	st.Links = steady(st.Links, f.shown)
	shown := rounded(st)
	if !more && f.shown != nil && reflect.DeepEqual(*f.shown, shown) {
		return // nothing would change
	}
	f.status, f.shown = &st, &shown
	f.signal()
}

// steady are links with latencies that stay as they were shown while they differ from
// that by a millisecond or an eighth at most: no two heartbeats take the same.
func steady(links []agent.LinkStatus, shown *agent.Status) []agent.LinkStatus {
	if shown == nil {
		return links
	}
	links = slices.Clone(links)
	for i := range links {
		l := &links[i]
		for _, last := range shown.Links {
			if last.Edge == l.Edge && last.Latency > 0 && l.Latency > 0 && math.Abs(l.Latency-last.Latency) <= max(1, last.Latency/8) {
				l.Latency = last.Latency
			}
		}
	}
	return links
}

// rounded is a status with rates as precise as they are shown; those of a quarter of an
// hour are not.
func rounded(st agent.Status) agent.Status {
	round := func(m *meter.Metrics) {
		m.Rate1, m.Rate5, m.Rate15 = math.Round(m.Rate1*100)/100, math.Round(m.Rate5*100)/100, 0
	}
	st.Tunnels = slices.Clone(st.Tunnels)
	for i := range st.Tunnels {
		t := &st.Tunnels[i]
		round(&t.Conns)
		if t.HTTP != nil {
			requests := *t.HTTP
			round(&requests)
			t.HTTP = &requests
		}
	}
	return st
}

func (f *feed) setNotes(notes []Note) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = notes
	f.signal()
}

func (f *feed) setStopping() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopping = true
	f.signal()
}

// newest are the last n of a list.
func newest[T any](list []T, n int) []T {
	if len(list) > n {
		return list[len(list)-n:]
	}
	return list
}

// Write takes log lines.
func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.released {
		return f.err.Write(p)
	}
	f.partial = append(f.partial, p...)
	for {
		line, rest, whole := bytes.Cut(f.partial, []byte("\n"))
		if !whole && len(f.partial) < maxLine {
			return len(p), nil
		}
		f.lines = append(f.lines, string(line[:min(len(line), maxLine)]))
		if len(f.lines) > maxKept {
			f.lines = f.lines[1:]
			f.lost++
		}
		f.fresh++
		f.partial = rest
		f.signal()
	}
}

// release writes what was kept to the normal screen, where later lines go too.
func (f *feed) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.released = true
	close(f.over)
	if len(f.partial) > 0 {
		f.lines = append(f.lines, string(f.partial))
	}
	if f.lost > 0 {
		fmt.Fprintf(f.err, "(%d earlier lines of the log are not kept; 2>FILE keeps all)\n", f.lost)
	}
	for _, line := range f.lines {
		fmt.Fprintln(f.err, line)
	}
	f.lines, f.partial = nil, nil
}

// news is what came since the last time.
type news struct {
	events   []agent.Event
	status   *agent.Status
	visits   []agent.Visit
	lines    []string // of the log, the newest few
	notes    []Note
	stopping bool
}

// logLine is what slog's TextHandler writes: time, level, message, the rest.
var logLine = regexp.MustCompile(`^time=(\S+) level=(\S+) msg=("(?:[^"\\]|\\.)*"|\S*)(.*)$`)

// brief is a log line for the screen, where room is short and the normal screen gets
// the whole of it: the time of day, and the message without its quotes.
func brief(line string) string {
	m := logLine.FindStringSubmatch(line)
	if m == nil {
		return line
	}
	at, err := time.Parse(time.RFC3339, m[1])
	if err != nil {
		return line
	}
	msg := m[3]
	if said, err := strconv.Unquote(msg); err == nil {
		msg = said
	}
	return at.Local().Format("15:04:05") + " " + m[2] + " " + msg + m[4]
}

// shownLines is how many log lines are shown at most.
const shownLines = 4

func (f *feed) take() news {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := news{events: f.events, status: f.status, visits: f.visits, notes: f.notes, stopping: f.stopping}
	fresh := min(f.fresh, shownLines, len(f.lines))
	for _, line := range f.lines[len(f.lines)-fresh:] {
		n.lines = append(n.lines, clean(brief(strings.TrimSpace(line))))
	}
	f.events, f.status, f.visits, f.fresh = nil, nil, nil, 0
	return n
}
