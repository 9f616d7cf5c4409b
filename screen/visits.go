package screen

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/tunnel"
)

// visitLines are the newest visits under a heading.
func (m *model) visitLines(room int) []string {
	title := "requests and connections"
	if m.filter != "" {
		title += ` with "` + m.filter + `" (Esc shows all)`
	}
	if m.frozen != nil {
		title += ", paused: p goes on"
	}
	lines := []string{toneFaint.paint(fit(title, m.width))}
	rows := m.shown(m.scroll, room-1)
	if len(rows) == 0 {
		none := "none yet"
		if m.filter != "" {
			none = "none"
		}
		return append(lines, toneFaint.paint("  "+none))
	}
	for _, v := range rows {
		lines = append(lines, m.visitLine(v))
	}
	return lines
}

// visitLine has columns of a fixed width, and the path last, whose width
// terminals may see otherwise. Narrow screens have fewer of them.
func (m *model) visitLine(v *agent.Visit) string {
	lasted := v.Took
	if v.Open {
		lasted = m.now().Sub(v.Start)
	}
	columns := []string{
		toneFaint.paint(v.Start.Local().Format("15:04:05")),
		outcomeTone(v).paint(pad(outcome(v), 4)),
		pad(method(v), 7),
	}
	if m.width >= 50 {
		columns = append(columns, padLeft(took(lasted), 7))
	}
	if m.width >= 60 {
		columns = append(columns, padLeft(size(v.ToVisitor), 6))
	}
	if m.width >= 76 {
		columns = append(columns, pad(clean(host(v.Visitor)), min(24, m.width/5)))
	}
	if m.width >= 100 && len(m.rows) > 1 {
		columns = append(columns, pad(clean(v.Tunnel), 10))
	}
	return strings.Join(append(columns, fit(clean(subject(v)), m.width)), " ")
}

// host is an address without its port.
func host(visitor string) string {
	if addr, err := netip.ParseAddrPort(visitor); err == nil {
		return addr.Addr().String()
	}
	return visitor
}

// outcome is how a visit went, in a word.
func outcome(v *agent.Visit) string {
	switch {
	case v.Status != 0:
		return strconv.Itoa(v.Status)
	case v.Open:
		return "open"
	case v.Error != "":
		return "fail"
	}
	return "done"
}

func outcomeTone(v *agent.Visit) tone {
	switch {
	case v.Status >= 500 || v.Error != "":
		return toneBad
	case v.Status >= 400 || v.Open:
		return toneWait
	case v.Status >= 300:
		return toneKey
	}
	return toneGood
}

// method is a request's, or says that it is a connection.
func method(v *agent.Visit) string {
	if v.Method == "" {
		return strings.ToUpper(string(tunnel.TCP))
	}
	return clean(v.Method)
}

// subject is what was asked for, and what went wrong.
func subject(v *agent.Visit) string {
	what := v.Path
	if v.Method == "" {
		what = v.Tunnel
	}
	if v.Error != "" {
		what += "  (" + v.Error + ")"
	}
	return what
}

// maxVisits is how many visits can be scrolled through.
const maxVisits = 1000

// visit takes note of a visit, or of its end.
func (m *model) visit(v agent.Visit) {
	if old := m.byID[v.ID]; old != nil {
		*old = v
		return
	}
	if len(m.visits) == maxVisits {
		delete(m.byID, m.visits[0].ID)
		m.visits = m.visits[1:]
	}
	m.byID[v.ID] = &v
	m.visits = append(m.visits, &v)
}

// shown are the visits that the filter picks, newest first, as far as they are
// asked for.
func (m *model) shown(skip, n int) []*agent.Visit {
	list := m.visits
	if m.frozen != nil {
		list = m.frozen
	}
	var out []*agent.Visit
	for i := len(list) - 1; i >= 0 && len(out) < n; i-- {
		if !picks(m.filter, list[i]) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		out = append(out, list[i])
	}
	return out
}

// picks tells whether each word of a filter is in a visit.
func picks(filter string, v *agent.Visit) bool {
	for word := range strings.FieldsSeq(strings.ToLower(filter)) {
		if !strings.Contains(strings.ToLower(v.Tunnel+" "+v.Method+" "+outcome(v)+" "+v.Visitor+" "+v.Path+" "+v.Error), word) {
			return false
		}
	}
	return true
}
