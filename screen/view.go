package screen

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/wgexpose/wgexpose/agent"
)

// tone is what a colour is to say, beside the words.
type tone int

const (
	tonePlain tone = iota
	toneGood
	toneWait
	toneBad
	toneFaint
	toneTitle
	toneKey
	tonePicked
)

// styles are the terminal's own sixteen colours, which its owner can read on its
// background.
var styles = [...]lipgloss.Style{
	toneGood:   lipgloss.NewStyle().Foreground(lipgloss.Green),
	toneWait:   lipgloss.NewStyle().Foreground(lipgloss.Yellow),
	toneBad:    lipgloss.NewStyle().Foreground(lipgloss.Red),
	toneFaint:  lipgloss.NewStyle().Faint(true),
	toneTitle:  lipgloss.NewStyle().Bold(true),
	toneKey:    lipgloss.NewStyle().Foreground(lipgloss.Cyan),
	tonePicked: lipgloss.NewStyle().Foreground(lipgloss.Cyan).Bold(true),
}

// paint gives text a tone.
func (t tone) paint(s string) string {
	if s == "" || t == tonePlain {
		return s
	}
	return styles[t].Render(s)
}

// View implements tea.Model.
func (m *model) View() tea.View {
	v := tea.NewView(strings.Join(m.layout(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "wgexpose " + m.cfg.Title
	return v
}

// layout is the screen, line by line: at most height of them, none wider than
// width. What is of least use goes first when there is too little room.
func (m *model) layout() []string {
	if m.width < 1 || m.height < 1 {
		return nil
	}
	var lines []string
	if m.code {
		lines = m.codeLines()
	} else {
		lines = m.pageLines()
	}
	if len(lines) > m.height {
		lines = lines[:m.height]
	}
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "…")
	}
	return lines
}

func (m *model) pageLines() []string {
	last := m.lastLine()
	if m.height == 1 {
		return []string{last}
	}
	room := m.height - 1
	lines := []string{m.titleLine()}
	lines = append(lines, m.linkLines()...)
	if m.inspector != "" {
		lines = append(lines, toneFaint.paint("inspector  ")+clean(m.inspector))
	}
	lines = append(lines, "")
	logs := m.logLines()
	tunnels := m.tunnelLines(max(1, min(room-len(lines)-len(logs), m.height*3/5)))
	lines = append(lines, tunnels...)
	if left := room - len(lines) - len(logs); left > 0 {
		lines = append(lines, m.noteLines(left-6)...) // leaves some of the visits
	}
	if left := room - len(lines) - len(logs); left >= 3 {
		lines = append(lines, "")
		lines = append(lines, m.visitLines(left-1)...)
	}
	if len(lines) > room-len(logs) {
		lines = lines[:max(0, room-len(logs))]
	}
	for len(lines) < room-len(logs) {
		lines = append(lines, "")
	}
	lines = append(lines, logs...)
	return append(lines[:min(len(lines), room)], last)
}

func (m *model) titleLine() string {
	left := toneTitle.paint("wgexpose") + "  " + clean(m.cfg.Title)
	right := ""
	switch {
	case m.stopping:
		right = toneWait.paint("stopping: running connections have 10 s, Ctrl-C ends at once")
	case m.frozen != nil:
		right = toneWait.paint("paused")
	}
	if right == "" {
		return left
	}
	gap := m.width - ansi.StringWidth(left) - ansi.StringWidth(right)
	if gap < 2 {
		left, gap = fit(left, max(8, m.width-ansi.StringWidth(right)-2)), 2
	}
	return left + strings.Repeat(" ", gap) + right
}

// linkLines say how each link is, and why it is not up.
func (m *model) linkLines() []string {
	if len(m.links) == 0 {
		return []string{toneFaint.paint("edge  ") + toneWait.paint("starting")}
	}
	var lines []string
	for i := range m.links {
		l := &m.links[i]
		word, t := l.State, toneWait
		switch l.State {
		case agent.LinkUp:
			t = toneGood
		case agent.LinkDegraded:
			word = "reconnecting"
		case agent.LinkDown:
			t = toneBad
		}
		line := toneFaint.paint("edge  ") + clean(l.Edge) + "  " + t.paint(word)
		if l.State == agent.LinkUp {
			line += " over " + transport(l.Transport)
			if l.latency > 0 {
				line += "  " + took(time.Duration(l.latency*1e6))
			}
			line += toneFaint.paint("  since " + m.clock(l.Time))
		} else {
			line += toneFaint.paint(" for " + took(m.now().Sub(l.Time).Truncate(time.Second)))
		}
		lines = append(lines, line)
		if l.Reason != "" && l.State != agent.LinkUp {
			for _, part := range wrap(clean(l.Reason), m.width-6, 3) {
				lines = append(lines, "      "+t.paint(part))
			}
		}
	}
	return lines
}

func transport(t string) string {
	if t == "" {
		return "UDP"
	}
	return strings.ToUpper(clean(t))
}

// clock is a time of today, or with its day.
func (m *model) clock(t time.Time) string {
	t = t.Local()
	if now := m.now().Local(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format("Jan 2 15:04")
	}
	return t.Format("15:04:05")
}

// tunnelLines are the tunnels, in the room that there is: with their numbers
// below them, or without, or only those around the selected one.
func (m *model) tunnelLines(room int) []string {
	blocks := make([][]string, len(m.rows))
	total := 0
	for i := range m.rows {
		blocks[i] = m.tunnelBlock(i, true)
		total += len(blocks[i])
	}
	if total > room {
		total = 0
		for i := range m.rows {
			blocks[i] = m.tunnelBlock(i, i == m.selected && room > 3)
			total += len(blocks[i])
		}
	}
	first, end := 0, len(blocks)
	if total > room { // those around the selected one, and a line that says so
		first, end = m.selected, m.selected
		for used := 1; end < len(blocks) && used+len(blocks[end]) <= room; end++ {
			used += len(blocks[end])
		}
		used := 1
		for i := first; i < end; i++ {
			used += len(blocks[i])
		}
		for first > 0 && used+len(blocks[first-1]) <= room {
			first--
			used += len(blocks[first])
		}
		if end == first {
			end = min(first+1, len(blocks))
		}
	}
	var lines []string
	for _, b := range blocks[first:end] {
		lines = append(lines, b...)
	}
	if hidden := len(blocks) - (end - first); hidden > 0 {
		lines = append(lines, toneFaint.paint(fmt.Sprintf("  and %s (↑ ↓)", many(int64(hidden), "other tunnel"))))
	}
	return lines
}

// tunnelBlock is one tunnel: where it is and leads to, what is wrong, and its
// numbers.
func (m *model) tunnelBlock(i int, whole bool) []string {
	r := &m.rows[i]
	mark, name := "  ", clean(r.title())
	if i == m.selected && len(m.rows) > 1 {
		mark, name = tonePicked.paint("▸ "), tonePicked.paint(name)
	}
	word, t := r.state()
	line := mark + name + "  " + t.paint(word) + "  "
	upstream := clean(r.upstream)
	if r.event.PublicURL != "" {
		line += clean(r.event.PublicURL) + toneFaint.paint(" → ") + upstream
	} else {
		line += toneFaint.paint("→ ") + upstream
	}
	lines := []string{line}
	if e := r.event.Error; e != nil {
		text := clean(e.Message)
		if r.event.Hint != "" {
			text += "; " + clean(r.event.Hint)
		}
		most := 3
		if !whole {
			most = 1
		}
		for _, part := range wrap(text, m.width-4, most) {
			lines = append(lines, "    "+t.paint(part))
		}
	}
	if whole {
		lines = append(lines, "    "+numbers(r))
	}
	return lines
}

// wrap breaks text into at most so many lines of a width.
func wrap(text string, width, most int) []string {
	if width < 1 {
		return nil
	}
	parts := strings.Split(ansi.Wrap(text, width, ""), "\n")
	if len(parts) > most {
		parts = append(parts[:most-1], fit(strings.Join(parts[most-1:], " "), width))
	}
	return parts
}

// wrapCommand breaks a line for a POSIX shell so that it still is one when it is
// copied from the screen.
func wrapCommand(command string, width int) []string {
	const more = " \\" // at the end of a line that goes on
	var lines []string
	line := ""
	for _, word := range strings.Split(command, " ") {
		switch {
		case line == "" && len(lines) == 0:
			line = word
		case line == "": // the word before filled its line to the end
			line = " " + word
		case ansi.StringWidth(line+" "+word+more) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line+more), word
		}
		for ansi.StringWidth(line+more) > width && width > 2 { // a word that is too long for any line
			start := ansi.Truncate(line, width-1, "")
			if start == "" {
				break
			}
			lines, line = append(lines, start+"\\"), line[len(start):]
		}
	}
	return append(lines, line)
}

// numbers are those of a tunnel: of its requests where they are read along, else
// of its connections.
func numbers(r *row) string {
	c, noun := r.numbers.Conns, "connection"
	if r.numbers.HTTP != nil {
		c, noun = *r.numbers.HTTP, "request"
		c.Gauge = r.numbers.Conns.Gauge
	}
	parts := []string{many(c.Count, noun), fmt.Sprintf("%d open", c.Gauge),
		rate(c.Rate1) + "/s 1 min", rate(c.Rate5) + "/s 5 min"}
	if c.P50 > 0 || c.P90 > 0 {
		parts = append(parts, "p50 "+took(time.Duration(c.P50)), "p90 "+took(time.Duration(c.P90)))
	}
	return toneFaint.paint(strings.Join(parts, "  "))
}

// noteLines are the notes, if all of them fit.
func (m *model) noteLines(room int) []string {
	var lines []string
	for _, note := range m.notes {
		if note.Command {
			lines = append(lines, wrapCommand(clean(note.Text), m.width)...)
		} else {
			lines = append(lines, wrap(clean(note.Text), m.width, m.height)...)
		}
	}
	if len(lines) == 0 || len(lines) >= room {
		return nil
	}
	return append([]string{""}, lines...)
}

// logLines are the newest lines of the log.
func (m *model) logLines() []string {
	most := min(len(m.lines), m.height/8)
	var lines []string
	for _, line := range m.lines[len(m.lines)-most:] {
		lines = append(lines, toneWait.paint(fit(line, m.width)))
	}
	return lines
}

// keys are what the last line explains, the most useful first.
var keys = [][2]string{
	{"q", "quit"}, {"c", "copy"}, {"r", "QR code"}, {"o", "open"}, {"i", "inspector"}, {"/", "filter"}, {"p", "pause"},
}

// lastLine is what the last key did, the filter, or what keys there are.
func (m *model) lastLine() string {
	switch {
	case m.typing:
		return toneKey.paint("/") + m.filter + toneKey.paint("▏")
	case m.toast != "":
		return toneKey.paint(fit(m.toast, m.width))
	}
	line := ""
	list := keys
	if len(m.rows) > 1 {
		list = append(list[:len(list):len(list)], [2]string{"↑↓", "tunnel"})
	}
	for _, k := range list {
		word := k[0] + " " + k[1]
		if ansi.StringWidth(line)+2+len(word) > m.width {
			break
		}
		if line != "" {
			line += "  "
		}
		line += toneKey.paint(k[0]) + " " + k[1]
	}
	return line
}
