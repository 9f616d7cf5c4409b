package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/meter"
)

type sessionReply struct {
	Token   string `json:"token"`
	Header  string `json:"header"`
	Version string `json:"version"`
	Masked  bool   `json:"masked"`
}

func (s *server) session(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, sessionReply{s.token, tokenHeader, s.cfg.Version, !s.cfg.Unmask})
}

type tunnelReply struct {
	TunnelStatus
	HTTP meter.Metrics `json:"http"`
}

type statusReply struct {
	State     string        `json:"state"`
	Agent     string        `json:"agent"`
	Version   string        `json:"version"`
	Tunnels   []tunnelReply `json:"tunnels"`
	Links     []LinkStatus  `json:"links"`
	Inspector Usage         `json:"inspector"`
}

func (s *server) statusReport(w http.ResponseWriter, _ *http.Request) {
	now := s.status()
	reply := statusReply{State: now.State, Agent: now.Agent, Version: s.cfg.Version, Tunnels: []tunnelReply{}, Links: now.Links, Inspector: s.Usage()}
	if reply.Links == nil {
		reply.Links = []LinkStatus{}
	}
	for _, t := range now.Tunnels {
		reply.Tunnels = append(reply.Tunnels, tunnelReply{t, s.Metrics(t.Name)})
	}
	writeJSON(w, http.StatusOK, reply)
}

type listReply struct {
	Requests []Summary `json:"requests"`
	Kept     int       `json:"kept"` // whatever the filter
}

const defaultLimit = 1000

// parseFilter reads the parameters of a list.
func parseFilter(r *http.Request) (Filter, error) {
	q := r.URL.Query()
	f := Filter{Tunnel: q.Get("tunnel"), Path: q.Get("path"), Method: q.Get("method"), Status: q.Get("status"), Text: q.Get("q"), Limit: defaultLimit}
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return f, fmt.Errorf("limit %q is no number above 0", v)
		}
		f.Limit = n
	}
	for name, d := range map[string]*time.Duration{"min_ms": &f.MinDuration, "max_ms": &f.MaxDuration} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		ms, err := strconv.ParseFloat(v, 64)
		if err != nil || !(ms >= 0 && ms < 1e12) {
			return f, fmt.Errorf("%s %q is no number of milliseconds", name, v)
		}
		*d = time.Duration(ms * float64(time.Millisecond))
	}
	return f, nil
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "bad_request", err.Error())
		return
	}
	kept, _ := s.ring.stats()
	writeJSON(w, http.StatusOK, listReply{s.List(f), kept})
}

func (s *server) clear(w http.ResponseWriter, _ *http.Request) {
	s.Clear()
	w.WriteHeader(http.StatusNoContent)
}

// exchangeOf finds the exchange that a path names, or refuses.
func (s *server) exchangeOf(w http.ResponseWriter, r *http.Request) *exchange {
	x := s.find(r.PathValue("id"))
	if x == nil {
		refuse(w, http.StatusNotFound, "unknown", ErrUnknown.Error())
	}
	return x
}

func (s *server) one(w http.ResponseWriter, r *http.Request) {
	if x := s.exchangeOf(w, r); x != nil {
		writeJSON(w, http.StatusOK, s.detail(x))
	}
}

// storedBody is a body as it was kept.
type storedBody struct {
	bytes     []byte
	cut       bool
	cutWhy    string
	mediaType string
	encoding  string
}

// storedBodyOf is the body that a path names; ok is false when it was refused.
func (s *server) storedBodyOf(w http.ResponseWriter, r *http.Request) (b storedBody, ok bool) {
	dir, known := map[string]direction{"request": toUpstream, "response": toVisitor}[r.PathValue("side")]
	if !known {
		refuse(w, http.StatusNotFound, "unknown", "a body is of the request or of the response")
		return b, false
	}
	x := s.exchangeOf(w, r)
	if x == nil {
		return b, false
	}
	return x.storedBody(dir), true
}

// storedBody is the body of a direction.
func (x *exchange) storedBody(dir direction) storedBody {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.half(dir)
	return storedBody{m.body.bytes(), m.cut || !m.done, m.cutWhy(), m.fields.find("Content-Type"), m.fields.find("Content-Encoding")}
}

// Headers of bodies, whose bytes may be anything.
const (
	decodedHeader = "Wgexpose-Decoded" // the coding that was undone
	cutHeader     = "Wgexpose-Cut"     // 1: there was more
	cutWhyHeader  = "Wgexpose-Cut-Why" // why that is not kept
	noteHeader    = "Wgexpose-Note"    // why it could not be decoded
)

// bodyOf serves a body. Whoever wrote it must gain nothing in our origin: it
// is of no type that runs, and where it is opened by itself, a sandbox has it.
func (s *server) bodyOf(w http.ResponseWriter, r *http.Request) {
	b, ok := s.storedBodyOf(w, r)
	if !ok {
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	content, cut := b.bytes, b.cut
	if b.encoding != "" && r.URL.Query().Get("raw") == "" {
		decoded, short, err := decode(b.bytes, b.encoding)
		if err == nil {
			h.Set(decodedHeader, strings.Map(printable, b.encoding))
			content, cut = decoded, cut || short
		} else {
			h.Set(noteHeader, strings.Map(printable, err.Error()))
		}
	}
	if cut {
		h.Set(cutHeader, "1")
	}
	if b.cutWhy != "" {
		h.Set(cutWhyHeader, b.cutWhy)
	}
	h.Set("Content-Type", "application/octet-stream")
	media, _, _ := strings.Cut(b.mediaType, ";")
	switch media = strings.ToLower(strings.TrimSpace(media)); media {
	case "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon", "image/svg+xml":
		h.Set("Content-Type", media)
	default:
		h.Set("Content-Disposition", "attachment; filename=body")
	}
	write(w, content)
}

// printable keeps a header line whole.
func printable(r rune) rune {
	if r < ' ' || r >= 0x7f {
		return '?'
	}
	return r
}

type messagesReply struct {
	Messages []Message `json:"messages"`
	Count    int64     `json:"count"` // of all there were
}

func (s *server) messagesOf(w http.ResponseWriter, r *http.Request) {
	after := int64(0)
	if v := r.URL.Query().Get("after"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			refuse(w, http.StatusBadRequest, "bad_request", fmt.Sprintf("after %q is no number", v))
			return
		}
		after = n
	}
	x := s.exchangeOf(w, r)
	if x == nil {
		return
	}
	x.mu.Lock()
	reply := messagesReply{x.log.after(after), x.log.count}
	x.mu.Unlock()
	writeJSON(w, http.StatusOK, reply)
}

func (s *server) curlOf(w http.ResponseWriter, r *http.Request) {
	if x := s.exchangeOf(w, r); x != nil {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		write(w, []byte(s.curl(x)))
	}
}

// replayRequest is Changes as they are sent: a body as text or in base64.
type replayRequest struct {
	Method     *string  `json:"method,omitempty"`
	Path       *string  `json:"path,omitempty"`
	Headers    *[]Field `json:"headers,omitempty"`
	Body       *string  `json:"body,omitempty"`
	BodyBase64 *[]byte  `json:"body_base64,omitempty"`
}

type replayReply struct {
	ID string `json:"id"`
}

func (s *server) replay(w http.ResponseWriter, r *http.Request) {
	var q replayRequest
	if !readJSON(w, r, &q) {
		return
	}
	c := Changes{Method: q.Method, Path: q.Path, Headers: q.Headers, Body: q.BodyBase64}
	if q.Body != nil {
		b := []byte(*q.Body)
		c.Body = &b
	}
	id, err := s.Replay(r.Context(), r.PathValue("id"), c)
	if err != nil {
		refuseReplay(w, err)
		return
	}
	writeJSON(w, http.StatusCreated, replayReply{id})
}

// maxCall bounds the body of a call: a replay's body, in base64, and headers.
const maxCall = 32 << 20

// readJSON reads a call's body; an empty one leaves v as it is.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall))
	if err := d.Decode(v); err != nil && err != io.EOF {
		refuse(w, http.StatusBadRequest, "bad_request", "the body is not the JSON that this call takes: "+err.Error())
		return false
	}
	return true
}

func refuseReplay(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, "internal"
	switch {
	case errors.Is(err, ErrUnknown):
		status, code = http.StatusNotFound, "unknown"
	case errors.Is(err, ErrUpgraded), errors.Is(err, ErrOpaque), errors.Is(err, ErrNotWhole), errors.Is(err, ErrUnderWay), errors.Is(err, ErrNoRedial):
		status, code = http.StatusConflict, "cannot_replay"
	case errors.Is(err, ErrChanges):
		status, code = http.StatusBadRequest, "bad_request"
	case errors.Is(err, ErrBusy):
		status, code = http.StatusTooManyRequests, "busy"
	case errors.Is(err, ErrUnreachable):
		status, code = http.StatusBadGateway, "unreachable"
	case errors.Is(err, ErrClosed):
		status, code = http.StatusServiceUnavailable, "closed"
	}
	refuse(w, status, code, err.Error())
}
