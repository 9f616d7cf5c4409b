package inspect

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/wgexpose/wgexpose/meter"
)

// The calls that programs know from ngrok's local API, with the fields that
// they read (https://ngrok.com/docs/agent/api). Durations are nanoseconds.

type ngrokRoot struct {
	Status   string `json:"status_uri"`
	Tunnels  string `json:"tunnels_uri"`
	Requests string `json:"requests_uri"`
	OpenAPI  string `json:"openapi_uri"`
	URI      string `json:"uri"`
}

func (s *server) ngrokRoot(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, ngrokRoot{"/api/status", "/api/tunnels", "/api/requests/http", "/api/v1/openapi.json", "/api"})
}

type ngrokStatus struct {
	Status  string       `json:"status"` // online, connecting, offline
	Version string       `json:"agent_version"`
	Session ngrokSession `json:"session"`
	URI     string       `json:"uri"`
}

type ngrokSession struct {
	Legs []ngrokLeg `json:"legs"`
}

type ngrokLeg struct {
	Region  string `json:"region"` // the edge's address
	Latency int64  `json:"latency"`
}

func (s *server) ngrokStatus(w http.ResponseWriter, _ *http.Request) {
	now := s.status()
	reply := ngrokStatus{Status: now.State, Version: s.cfg.Version, Session: ngrokSession{Legs: []ngrokLeg{}}, URI: "/api/status"}
	for _, l := range now.Links {
		reply.Session.Legs = append(reply.Session.Legs, ngrokLeg{l.Edge, int64(l.Latency * float64(time.Millisecond))})
	}
	writeJSON(w, http.StatusOK, reply)
}

type ngrokTunnel struct {
	Name      string       `json:"name"`
	ID        string       `json:"ID"`
	URI       string       `json:"uri"`
	PublicURL string       `json:"public_url"`
	Proto     string       `json:"proto"`
	Config    ngrokConfig  `json:"config"`
	Metrics   ngrokMetrics `json:"metrics"`
}

type ngrokConfig struct {
	Addr    string `json:"addr"`
	Inspect bool   `json:"inspect"`
}

type ngrokMetrics struct {
	Conns meter.Metrics `json:"conns"`
	HTTP  meter.Metrics `json:"http"`
}

type ngrokTunnels struct {
	Tunnels []ngrokTunnel `json:"tunnels"`
	URI     string        `json:"uri"`
}

func (s *server) ngrokList() []ngrokTunnel {
	list := []ngrokTunnel{}
	for _, t := range s.status().Tunnels {
		http := s.Metrics(t.Name)
		proto := t.Kind
		if u, err := url.Parse(t.PublicURL); err == nil && u.Scheme != "" {
			proto = u.Scheme
		}
		list = append(list, ngrokTunnel{
			Name: t.Name, ID: t.Name, URI: "/api/tunnels/" + url.PathEscape(t.Name), PublicURL: t.PublicURL, Proto: proto,
			Config: ngrokConfig{t.Upstream, t.Inspected}, Metrics: ngrokMetrics{t.Conns, http},
		})
	}
	return list
}

func (s *server) ngrokTunnels(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, ngrokTunnels{s.ngrokList(), "/api/tunnels"})
}

func (s *server) ngrokTunnel(w http.ResponseWriter, r *http.Request) {
	for _, t := range s.ngrokList() {
		if t.Name == r.PathValue("name") {
			writeJSON(w, http.StatusOK, t)
			return
		}
	}
	refuse(w, http.StatusNotFound, "unknown", "there is no tunnel of this name")
}

type ngrokRequests struct {
	Requests []ngrokRequest `json:"requests"`
	URI      string         `json:"uri"`
}

type ngrokRequest struct {
	URI      string       `json:"uri"`
	ID       string       `json:"id"`
	Tunnel   string       `json:"tunnel_name"`
	Remote   string       `json:"remote_addr"`
	Start    time.Time    `json:"start"`
	Duration int64        `json:"duration"`
	Request  ngrokMessage `json:"request"`
	Response ngrokAnswer  `json:"response"`
}

type ngrokMessage struct {
	Method  string              `json:"method"`
	Proto   string              `json:"proto"`
	Headers map[string][]string `json:"headers"`
	URI     string              `json:"uri"`
	Raw     []byte              `json:"raw"`
}

type ngrokAnswer struct {
	Status     string              `json:"status"`
	StatusCode int                 `json:"status_code"`
	Proto      string              `json:"proto"`
	Headers    map[string][]string `json:"headers"`
	Raw        []byte              `json:"raw"`
}

func (s *server) ngrokRequests(w http.ResponseWriter, r *http.Request) {
	f := Filter{Tunnel: r.URL.Query().Get("tunnel_name"), Limit: 50}
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && n > 0 {
		f.Limit = n
	}
	reply := ngrokRequests{Requests: []ngrokRequest{}, URI: "/api/requests/http"}
	for _, sum := range s.List(f) {
		if x := s.find(sum.ID); x != nil {
			reply.Requests = append(reply.Requests, s.ngrokExchange(x))
		}
	}
	writeJSON(w, http.StatusOK, reply)
}

func (s *server) ngrokRequest(w http.ResponseWriter, r *http.Request) {
	if x := s.exchangeOf(w, r); x != nil {
		writeJSON(w, http.StatusOK, s.ngrokExchange(x))
	}
}

func (s *server) ngrokExchange(x *exchange) ngrokRequest {
	x.mu.Lock()
	defer x.mu.Unlock()
	id := s.id(x.sequence)
	reply := ngrokRequest{
		URI: "/api/requests/http/" + id, ID: id, Tunnel: x.Tunnel, Remote: x.visitor(), Start: x.request.began, Duration: int64(x.duration()),
		Request: ngrokMessage{x.method, x.request.proto, s.headerMap(x.request.fields), x.target, s.raw(&x.request)},
	}
	if x.status != 0 {
		reply.Response = ngrokAnswer{strconv.Itoa(x.status) + " " + x.reason, x.status, x.response.proto, s.headerMap(x.response.fields), s.raw(&x.response)}
	}
	return reply
}

func (i *Inspector) headerMap(list fields) map[string][]string {
	m := make(http.Header, len(list))
	for _, f := range i.shown(list) {
		m.Add(f.Name, f.Value)
	}
	return m
}

type ngrokReplay struct {
	ID     string `json:"id"`
	Tunnel string `json:"tunnel_name,omitempty"`
}

// ngrokReplay sends a request again. A tunnel name must be the request's own:
// one tunnel's secrets are not sent to another's upstream.
func (s *server) ngrokReplay(w http.ResponseWriter, r *http.Request) {
	var q ngrokReplay
	if !readJSON(w, r, &q) {
		return
	}
	if x := s.find(q.ID); x != nil && q.Tunnel != "" && q.Tunnel != x.Tunnel {
		refuse(w, http.StatusConflict, "cannot_replay", "a request can be replayed to its own tunnel only, which is "+x.Tunnel)
		return
	}
	if _, err := s.Replay(r.Context(), q.ID, Changes{}); err != nil {
		refuseReplay(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
