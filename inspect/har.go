package inspect

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// HAR 1.2, http://www.softwareishard.com/blog/har-12-spec/, with a field of
// ours: _webSocketMessages, as Chromium writes it.

type harFile struct {
	Log harLog `json:"log"`
}

type harLog struct {
	Version string     `json:"version"`
	Creator harName    `json:"creator"`
	Entries []harEntry `json:"entries"`
}

type harName struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type harEntry struct {
	Started    time.Time    `json:"startedDateTime"`
	Time       float64      `json:"time"`
	Request    harRequest   `json:"request"`
	Response   harResponse  `json:"response"`
	Cache      struct{}     `json:"cache"`
	Timings    harTimings   `json:"timings"`
	Connection string       `json:"connection"`
	Comment    string       `json:"comment,omitempty"`
	Messages   []harMessage `json:"_webSocketMessages,omitempty"`
}

type harPair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type harRequest struct {
	Method      string    `json:"method"`
	URL         string    `json:"url"`
	HTTPVersion string    `json:"httpVersion"`
	Cookies     []harPair `json:"cookies"`
	Headers     []Field   `json:"headers"`
	Query       []harPair `json:"queryString"`
	PostData    *harPost  `json:"postData,omitempty"`
	HeadersSize int       `json:"headersSize"`
	BodySize    int64     `json:"bodySize"`
}

type harPost struct {
	MimeType string    `json:"mimeType"`
	Params   []harPair `json:"params"`
	Text     string    `json:"text"`
	Comment  string    `json:"comment,omitempty"`
}

type harResponse struct {
	Status      int        `json:"status"`
	StatusText  string     `json:"statusText"`
	HTTPVersion string     `json:"httpVersion"`
	Cookies     []harPair  `json:"cookies"`
	Headers     []Field    `json:"headers"`
	Content     harContent `json:"content"`
	RedirectURL string     `json:"redirectURL"`
	HeadersSize int        `json:"headersSize"`
	BodySize    int64      `json:"bodySize"`
}

type harContent struct {
	Size     int    `json:"size"`
	MimeType string `json:"mimeType"`
	Text     string `json:"text,omitempty"`
	Encoding string `json:"encoding,omitempty"`
	Comment  string `json:"comment,omitempty"`
}

type harTimings struct {
	Send    float64 `json:"send"`
	Wait    float64 `json:"wait"`
	Receive float64 `json:"receive"`
}

type harMessage struct {
	Type   string  `json:"type"` // send: by the visitor
	Time   float64 `json:"time"` // seconds since 1970
	Opcode int     `json:"opcode"`
	Data   string  `json:"data"`
}

func (s *server) har(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad_request", err.Error())
		return
	}
	file := harFile{harLog{Version: "1.2", Creator: harName{"wgexpose", s.cfg.Version}, Entries: []harEntry{}}}
	if id := r.URL.Query().Get("id"); id != "" {
		x := s.find(id)
		if x == nil {
			refuse(w, http.StatusNotFound, "unknown", ErrUnknown.Error())
			return
		}
		file.Log.Entries = append(file.Log.Entries, s.harEntry(x))
	} else {
		list := s.List(f)
		for n := len(list) - 1; n >= 0; n-- { // oldest first
			if x := s.find(list[n].ID); x != nil && list[n].Kind != KindOpaque {
				file.Log.Entries = append(file.Log.Entries, s.harEntry(x))
			}
		}
	}
	w.Header().Set("Content-Disposition", `attachment; filename="wgexpose.har"`)
	writeJSON(w, http.StatusOK, file)
}

func (i *Inspector) harEntry(x *exchange) harEntry {
	// Decoding takes its time, and whoever parses waits for the lock.
	sent, content := harBody(x.storedBody(toUpstream)), harBody(x.storedBody(toVisitor))
	x.mu.Lock()
	defer x.mu.Unlock()
	timing := x.timing()
	request, response := i.shown(x.request.fields), i.shown(x.response.fields)
	e := harEntry{
		Started: x.request.began, Time: timing.Send + timing.Wait + timing.Receive, Comment: x.err,
		Timings: harTimings{timing.Send, timing.Wait, timing.Receive},
		Request: harRequest{
			Method: x.method, URL: x.url(), HTTPVersion: x.request.proto, Headers: request, Cookies: cookies(request, "Cookie"),
			Query: query(x.target), HeadersSize: len(x.request.head), BodySize: x.request.size,
		},
		Response: harResponse{
			Status: x.status, StatusText: x.reason, HTTPVersion: x.response.proto, Headers: response, Cookies: cookies(response, "Set-Cookie"),
			RedirectURL: x.response.fields.find("Location"), HeadersSize: len(x.response.head), BodySize: x.response.size,
			Content: content,
		},
	}
	if x.request.size > 0 && x.upgrade == "" { // after an upgrade come messages, and no body
		e.Request.PostData = &harPost{MimeType: sent.MimeType, Params: []harPair{}, Text: sent.Text, Comment: strings.TrimSpace(sent.Encoding + " " + sent.Comment)}
	}
	for _, m := range x.log.list {
		if x.kind == KindWebSocket {
			e.Messages = append(e.Messages, harFrame(m))
		}
	}
	return e
}

func harFrame(m Message) harMessage {
	out := harMessage{Type: "receive", Time: float64(m.At.UnixMicro()) / 1e6, Data: m.Text}
	if m.Direction == toUpstream.String() {
		out.Type = "send"
	}
	for op := range byte(16) {
		if opcodeName(op) == m.Type {
			out.Opcode = int(op)
		}
	}
	if m.Data != nil {
		out.Data = base64.StdEncoding.EncodeToString(m.Data)
	}
	return out
}

// harBody is a body decoded, as text or in base64.
func harBody(b storedBody) harContent {
	c := harContent{MimeType: b.mediaType}
	body, cut := b.bytes, b.cut
	if decoded, short, err := decode(body, b.encoding); err == nil {
		body, cut = decoded, cut || short
	}
	c.Size = len(body)
	if cut {
		c.Comment = onlyBeginning(b.cutWhy)
	}
	if utf8.Valid(body) {
		c.Text = string(body)
	} else {
		c.Text, c.Encoding = base64.StdEncoding.EncodeToString(body), "base64"
	}
	return c
}

func cookies(list []Field, name string) []harPair {
	out := []harPair{}
	for _, f := range list {
		if !strings.EqualFold(f.Name, name) {
			continue
		}
		pairs := []string{f.Value}
		if name == "Cookie" {
			pairs = strings.Split(f.Value, ";")
		}
		for _, p := range pairs {
			p, _, _ = strings.Cut(p, ";")
			k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
			out = append(out, harPair{k, v})
		}
	}
	return out
}

func query(target string) []harPair {
	out := []harPair{}
	_, q, _ := strings.Cut(target, "?")
	for p := range strings.SplitSeq(q, "&") {
		if p == "" {
			continue
		}
		k, v, _ := strings.Cut(p, "=")
		out = append(out, harPair{unescape(k), unescape(v)})
	}
	return out
}

// unescape leaves what is wrongly escaped as it is.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
