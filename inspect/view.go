package inspect

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Summary is an exchange in a list.
type Summary struct {
	ID       string    `json:"id"`
	Tunnel   string    `json:"tunnel"`
	Visitor  string    `json:"visitor"`
	Kind     Kind      `json:"kind"`
	State    State     `json:"state"`
	Error    string    `json:"error,omitempty"`
	Method   string    `json:"method"`
	Path     string    `json:"path"` // the request's target, with its query
	Host     string    `json:"host"`
	Status   int       `json:"status"` // 0: no answer yet
	Type     string    `json:"content_type"`
	Start    time.Time `json:"start"`
	Duration float64   `json:"duration_ms"` // so far, if it is under way
	// Bytes of the bodies so far.
	RequestBytes  int64  `json:"request_bytes"`
	ResponseBytes int64  `json:"response_bytes"`
	Messages      int64  `json:"messages"` // of WebSocket, SSE or gRPC
	Cut           bool   `json:"cut"`      // a body is not kept whole
	ReplayOf      string `json:"replay_of,omitempty"`
	CanReplay     bool   `json:"can_replay"`
}

// Half is a request or an answer.
type Half struct {
	Proto    string  `json:"proto"`
	Headers  []Field `json:"headers"`
	Trailers []Field `json:"trailers,omitempty"`
	Size     int64   `json:"size"` // of the body, as sent
	Kept     int     `json:"kept"` // bytes of it that are here
	Cut      bool    `json:"cut"`
	CutWhy   string  `json:"cut_why,omitempty"` // why the rest of it is not, in words
	Done     bool    `json:"done"`
	Encoding string  `json:"encoding,omitempty"` // Content-Encoding
	Type     string  `json:"content_type,omitempty"`
	// Messages is how many gRPC messages there were.
	Messages int `json:"grpc_messages,omitempty"`
}

// Timing splits an exchange's duration, in milliseconds. Parts that have not
// happened are 0.
type Timing struct {
	Send    float64 `json:"send_ms"`    // first to last byte of the request
	Wait    float64 `json:"wait_ms"`    // from there to the first byte of the answer
	Receive float64 `json:"receive_ms"` // first to last byte of the answer
	Total   float64 `json:"total_ms"`
}

// Detail is an exchange without its bodies and messages.
type Detail struct {
	Summary
	URL        string `json:"url"` // as the visitor called it
	PublicURL  string `json:"public_url"`
	Upstream   string `json:"upstream"`
	Connection uint64 `json:"connection"` // exchanges of one connection share it
	Reason     string `json:"reason"`     // of the status line
	Interim    []int  `json:"interim,omitempty"`
	Upgrade    string `json:"upgrade,omitempty"`
	Masked     bool   `json:"masked"` // secrets are not shown
	Timing     Timing `json:"timing"`
	Request    Half   `json:"request"`
	Response   Half   `json:"response"`
	ToUpstream int64  `json:"messages_to_upstream"`
	ToVisitor  int64  `json:"messages_to_visitor"`
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (i *Inspector) summary(x *exchange) Summary {
	x.mu.Lock()
	defer x.mu.Unlock()
	return i.summaryLocked(x)
}

// summaryLocked is called with x.mu held.
func (i *Inspector) summaryLocked(x *exchange) Summary {
	s := Summary{
		ID: i.id(x.sequence), Tunnel: x.Tunnel, Visitor: x.visitor(), Kind: x.kind, State: x.state, Error: x.err,
		Method: x.method, Path: x.target, Host: x.request.fields.find("Host"), Status: x.status,
		Type: x.response.fields.find("Content-Type"), Start: x.request.began, Duration: milliseconds(x.duration()),
		RequestBytes: x.request.size, ResponseBytes: x.response.size,
		Messages: x.log.count + int64(x.request.messages+x.response.messages),
		Cut:      x.request.cut || x.response.cut, CanReplay: x.cannotReplay() == nil,
	}
	if x.replayOf != 0 {
		s.ReplayOf = i.id(x.replayOf)
	}
	return s
}

// duration is called with x.mu held.
func (x *exchange) duration() time.Duration {
	if x.ended.IsZero() {
		return time.Since(x.request.began)
	}
	return x.ended.Sub(x.request.began)
}

// visitor is who sent the request: on a shared connection the first address in
// X-Forwarded-For, which the edge writes. It is called with x.mu held.
func (x *exchange) visitor() string {
	if x.Visitor != "" {
		return x.Visitor
	}
	first, _, _ := strings.Cut(x.request.fields.find("X-Forwarded-For"), ",")
	return strings.TrimSpace(first)
}

// url is what the visitor called. It is called with x.mu held.
func (x *exchange) url() string {
	switch {
	case strings.HasPrefix(x.target, "http://"), strings.HasPrefix(x.target, "https://"):
		return x.target
	case x.PublicURL != "":
		return strings.TrimSuffix(x.PublicURL, "/") + "/" + strings.TrimPrefix(x.target, "/")
	}
	scheme := cmp.Or(x.request.fields.find("X-Forwarded-Proto"), "http")
	host := cmp.Or(x.request.fields.find("X-Forwarded-Host"), x.request.fields.find("Host"))
	return scheme + "://" + host + x.target
}

func (i *Inspector) detail(x *exchange) Detail {
	x.mu.Lock()
	defer x.mu.Unlock()
	d := Detail{
		Summary: i.summaryLocked(x), URL: x.url(), PublicURL: x.PublicURL, Upstream: x.Upstream, Connection: x.conn,
		Reason: x.reason, Interim: slices.Clone(x.interim), Upgrade: x.upgrade, Masked: !i.cfg.Unmask,
		Request: i.half(&x.request), Response: i.half(&x.response),
		ToUpstream: x.log.sent[toUpstream], ToVisitor: x.log.sent[toVisitor],
	}
	if d.Reason == "" {
		d.Reason = http.StatusText(x.status)
	}
	d.Timing = x.timing()
	return d
}

// timing is called with x.mu held. Early answers overlap their requests: no
// part is below 0.
func (x *exchange) timing() Timing {
	span := func(from, to time.Time) float64 {
		if from.IsZero() || to.IsZero() || to.Before(from) {
			return 0
		}
		return milliseconds(to.Sub(from))
	}
	return Timing{
		Send: span(x.request.began, x.request.ended), Wait: span(x.request.ended, x.response.began),
		Receive: span(x.response.began, x.response.ended), Total: milliseconds(x.duration()),
	}
}

func (i *Inspector) half(m *message) Half {
	return Half{
		Proto: m.proto, Headers: i.shown(m.fields), Trailers: i.shown(m.trailers),
		Size: m.size, Kept: m.body.size, Cut: m.cut, CutWhy: m.cutWhy(), Done: m.done,
		Encoding: m.fields.find("Content-Encoding"), Type: m.fields.find("Content-Type"), Messages: m.messages,
	}
}

// onlyBeginning says that a body was cut, and why.
func onlyBeginning(why string) string {
	const what = "only the beginning of the body was kept"
	if why != "" {
		return what + ": " + why
	}
	return what
}

// raw is a message as it was on the wire, with secrets masked and without
// chunked framing. It is called with x.mu held.
func (i *Inspector) raw(m *message) []byte {
	if m.head == "" {
		return []byte{}
	}
	line, _ := cutLine(m.head)
	var b []byte
	b = append(b, line...)
	b = append(b, "\r\n"...)
	for _, f := range i.shown(m.fields) {
		b = append(b, f.Name+": "+f.Value+"\r\n"...)
	}
	b = append(b, "\r\n"...)
	return m.body.appendTo(b)
}

// Filter picks exchanges. Zero fields pick all.
type Filter struct {
	Tunnel string
	Path   string // part of the target, in any case
	Method string
	Status string // "404", a class "4xx", or a State
	// MinDuration and MaxDuration bound how long it took.
	MinDuration, MaxDuration time.Duration
	Text                     string // part of anything that is shown in a list, or of a header or body kept
	Limit                    int    // the newest so many
}

// List returns the newest exchanges that a filter picks, newest first.
func (i *Inspector) List(f Filter) []Summary {
	list := []Summary{}
	for _, x := range i.ring.newest() {
		if f.Limit > 0 && len(list) == f.Limit {
			break
		}
		s := i.summary(x)
		if f.picks(&s) && (f.Text == "" || i.contains(x, &s, f.Text)) {
			list = append(list, s)
		}
	}
	return list
}

func (f *Filter) picks(s *Summary) bool {
	took := time.Duration(s.Duration * float64(time.Millisecond))
	return (f.Tunnel == "" || f.Tunnel == s.Tunnel) &&
		(f.Path == "" || containsFold(s.Path, f.Path)) &&
		(f.Method == "" || strings.EqualFold(f.Method, s.Method)) &&
		(f.Status == "" || statusMatches(f.Status, s)) &&
		took >= f.MinDuration && (f.MaxDuration == 0 || took <= f.MaxDuration)
}

func statusMatches(want string, s *Summary) bool {
	want = strings.ToLower(want)
	if want == string(s.State) {
		return true
	}
	if s.Status == 0 {
		return false
	}
	if len(want) == 3 && strings.HasSuffix(want, "xx") {
		return want[0] == byte('0'+s.Status/100)
	}
	return len(want) == 3 && want[0] == byte('0'+s.Status/100) && want[1] == byte('0'+s.Status/10%10) && want[2] == byte('0'+s.Status%10)
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}

// contains looks for text in an exchange. Secrets that are masked are not
// found by their values.
func (i *Inspector) contains(x *exchange, s *Summary, part string) bool {
	for _, v := range []string{s.ID, s.Tunnel, s.Visitor, s.Method, s.Path, s.Host, s.Error, s.Type, string(s.Kind)} {
		if containsFold(v, part) {
			return true
		}
	}
	// Whoever parses waits for the lock, so what is long is searched without it.
	x.mu.Lock()
	heads := slices.Concat(i.shown(x.request.fields), i.shown(x.response.fields))
	bodies := [2][]byte{x.request.body.bytes(), x.response.body.bytes()}
	messages := slices.Clone(x.log.list)
	x.mu.Unlock()
	return slices.ContainsFunc(heads, func(f Field) bool { return containsFold(f.Name, part) || containsFold(f.Value, part) }) ||
		containsFold(string(bodies[0]), part) || containsFold(string(bodies[1]), part) ||
		slices.ContainsFunc(messages, func(m Message) bool { return containsFold(m.Text, part) })
}

func sortOldestFirst(list []Summary) {
	slices.SortFunc(list, func(a, b Summary) int { return cmp.Compare(a.ID, b.ID) })
}
