package screen

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/tunnel"
)

// model is all that is on the screen. bubbletea calls its methods one at a time.
type model struct {
	cfg  Config
	feed *feed
	now  func() time.Time

	width, height int

	links     []link
	rows      []row
	status    *agent.Status  // the last; nil: none yet
	inspector string         // URL; "" while there is none
	visits    []*agent.Visit // in the order of their beginning
	byID      map[string]*agent.Visit
	notes     []Note
	lines     []string // of the log, the newest few
	stopping  bool

	selected int            // of rows
	scroll   int            // visits above those that are shown
	filter   string         // of visits
	typing   bool           // the filter is being typed
	frozen   []*agent.Visit // visits when it was paused; nil: it is not
	code     bool           // the QR code is shown in place of all
	toast    string         // about the last key
	toasts   int            // so far, so that each is taken away once
	counting bool           // a secondMsg is on its way
}

func newModel(cfg Config, f *feed) *model {
	m := &model{cfg: cfg, feed: f, now: time.Now, width: 80, height: 24, byID: make(map[string]*agent.Visit)}
	for _, t := range cfg.Tunnels {
		m.rows = append(m.rows, row{name: t.Name, upstream: t.Upstream, kind: t.Kind})
	}
	return m
}

// Messages to the model.
type (
	newsMsg   struct{}        // the feed has something
	secondMsg struct{}        // a second has passed
	dayMsg    struct{}        // a day may have ended
	toastMsg  struct{ n int } // toast n has been there for long enough
	openedMsg struct{ err error }
)

// frame is the least time between two looks into the feed.
const frame = 100 * time.Millisecond

// toastTime is how long it is said what a key did.
const toastTime = 4 * time.Second

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return tea.Batch(m.await, m.day()) }

// day has the screen drawn when the day ends, since times of another day have a date.
func (m *model) day() tea.Cmd { return m.after(untilNextDay(m.now()), dayMsg{}) }

// untilNextDay is how long it is to the end of the day, or an hour: a timer does not
// count the hours in which a machine sleeps.
func untilNextDay(now time.Time) time.Duration {
	now = now.Local()
	next := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, time.Local)
	return min(next.Sub(now), time.Hour)
}

// count has the screen drawn in a second, while a time on it runs. One on which none
// does costs nothing.
func (m *model) count() tea.Cmd {
	if m.counting || !m.runs() {
		return nil
	}
	m.counting = true
	return m.after(time.Second, secondMsg{})
}

// runs reports whether a time on the screen runs: that of a link that is not up, or of
// a visit that goes on.
func (m *model) runs() bool {
	open := func(v *agent.Visit) bool { return v.Open }
	return slices.ContainsFunc(m.links, func(l link) bool { return l.State != agent.LinkUp }) ||
		slices.ContainsFunc(m.visits, open) || slices.ContainsFunc(m.frozen, open)
}

// await waits for news, and lets those of a frame come together.
func (m *model) await() tea.Msg {
	select {
	case <-m.feed.wake:
	case <-m.feed.over:
		return nil
	}
	return m.after(frame, newsMsg{})()
}

// after is a message that comes later, unless the screen has ended.
func (m *model) after(d time.Duration, msg tea.Msg) tea.Cmd {
	return func() tea.Msg {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return msg
		case <-m.feed.over:
			return nil
		}
	}
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg:
		if m.typing {
			m.filter += clean(msg.Content)
		}
	case newsMsg:
		m.take(m.feed.take())
		return m, tea.Batch(m.await, m.count())
	case secondMsg:
		m.counting = false
		return m, m.count()
	case dayMsg:
		return m, m.day()
	case toastMsg:
		if msg.n == m.toasts {
			m.toast = ""
		}
	case openedMsg:
		if msg.err != nil {
			return m, m.say("cannot open it: " + clean(msg.err.Error()))
		}
	}
	return m, nil
}

func (m *model) take(n news) {
	for _, e := range n.events {
		m.event(e)
	}
	if n.status != nil {
		m.status, m.inspector = n.status, n.status.Inspector
	}
	if m.status != nil && (n.status != nil || len(n.events) > 0) {
		m.numbers(m.status) // what an event tells of first may have come with a status before
	}
	for _, v := range n.visits {
		m.visit(v)
	}
	m.lines = newest(append(m.lines, n.lines...), shownLines)
	m.stopping, m.notes = n.stopping, n.notes
	if !m.stopping && len(m.rows) > 1 { // what a reload took out
		kept := m.rows[:0]
		for _, r := range m.rows {
			if r.event.State != agent.TunnelGone {
				kept = append(kept, r)
			}
		}
		m.rows = kept
	}
	m.selected = max(0, min(m.selected, len(m.rows)-1))
}

// say tells what a key did, for a moment.
func (m *model) say(text string) tea.Cmd {
	m.toast = text
	m.toasts++
	return m.after(toastTime, toastMsg{m.toasts})
}

// current is the selected tunnel, or nil.
func (m *model) current() *row {
	if m.selected < len(m.rows) {
		return &m.rows[m.selected]
	}
	return nil
}

// address is the public address of the selected tunnel, or says why there is
// none.
func (m *model) address() (string, bool) {
	r := m.current()
	switch {
	case r == nil:
		return "there is no tunnel", false
	case r.event.PublicURL == "":
		return r.title() + " has no public address now", false
	}
	return clean(r.event.PublicURL), true
}

// key does what a key is for.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	if name == "ctrl+c" {
		m.interrupt()
		return nil
	}
	if name == "ctrl+z" {
		return tea.Suspend
	}
	if m.code {
		m.code = false
		return nil
	}
	if m.typing {
		m.edit(name, k.Text)
		return nil
	}
	switch name {
	case "q":
		m.interrupt()
	case "c":
		url, ok := m.address()
		if !ok {
			return m.say(url)
		}
		return tea.Batch(tea.SetClipboard(url), m.say("copied "+url))
	case "r":
		if url, ok := m.address(); !ok {
			return m.say(url)
		}
		m.code = true
	case "o":
		url, ok := m.address()
		if ok && m.current().kind != tunnel.HTTP {
			url, ok = m.current().title()+" is no website", false
		}
		if !ok {
			return m.say(url)
		}
		return m.open(url)
	case "i":
		if m.inspector == "" {
			return m.say("requests are not inspected (--inspect=false, or no http tunnel)")
		}
		return m.open(m.inspector)
	case "/":
		m.typing, m.scroll = true, 0
	case "esc":
		m.filter, m.scroll = "", 0
	case "p", "space":
		if m.frozen != nil {
			m.frozen = nil
		} else {
			m.frozen = append(make([]*agent.Visit, 0, len(m.visits)), m.visits...)
		}
		m.scroll = 0
	case "up", "k":
		m.selected = max(0, m.selected-1)
	case "down", "j", "tab":
		m.selected = max(0, min(m.selected+1, len(m.rows)-1))
	case "pgdown":
		m.scroll = min(m.scroll+m.height/2, maxVisits)
	case "pgup":
		m.scroll = max(0, m.scroll-m.height/2)
	case "home":
		m.scroll = 0
	}
	return nil
}

func (m *model) interrupt() {
	if m.cfg.Interrupt != nil {
		m.cfg.Interrupt()
	}
}

func (m *model) open(url string) tea.Cmd {
	if m.cfg.Browse == nil {
		return m.say("there is no browser here")
	}
	browse := m.cfg.Browse
	return tea.Batch(m.say("opening "+url), func() tea.Msg { return openedMsg{browse(url)} })
}

// maxFilter is how long a filter may be, in bytes.
const maxFilter = 200

// edit is a key while the filter is being typed.
func (m *model) edit(name, text string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	case "ctrl+u":
		m.filter = ""
	default:
		if len(m.filter) < maxFilter {
			m.filter += clean(text)
		}
	}
}
