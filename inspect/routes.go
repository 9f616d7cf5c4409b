package inspect

import (
	"embed"
	"encoding/json"
	"net/http"
)

// route is a call of the API. The mux and the OpenAPI document are made from
// the same list.
type route struct {
	method, path string
	summary      string
	handle       http.HandlerFunc
	query        []param
	body         any    // an example of the request's type, or nil
	answer       any    // an example of the answer's type, or nil for no content
	media        string // of the answer, if not JSON
	status       int    // of the answer, if not 200 (or 204 without content)
	token        bool
}

type param struct{ name, about string }

// server has the handlers.
type server struct {
	*Inspector
	status func() Status
}

//go:embed web
var assets embed.FS

func (s *server) routes() []route {
	filter := []param{
		{"limit", "the newest so many; 1000 unless said otherwise"}, {"tunnel", "of this tunnel"}, {"path", "with this in the path"},
		{"method", "with this method"}, {"status", "404, 4xx, or a state: waiting, open, done, failed"},
		{"min_ms", "that took at least so many milliseconds"}, {"max_ms", "that took at most so many milliseconds"},
		{"q", "with this text in what is listed, in a header or in a body that is kept"},
	}
	return []route{
		{method: "GET", path: "/api", summary: "Where the other resources are", handle: s.ngrokRoot, answer: ngrokRoot{}},
		{method: "GET", path: "/api/status", summary: "State of the agent", handle: s.ngrokStatus, answer: ngrokStatus{}},
		{method: "GET", path: "/api/tunnels", summary: "All tunnels", handle: s.ngrokTunnels, answer: ngrokTunnels{}},
		{method: "GET", path: "/api/tunnels/{name}", summary: "One tunnel", handle: s.ngrokTunnel, answer: ngrokTunnel{}},
		{method: "GET", path: "/api/requests/http", summary: "Newest requests first", handle: s.ngrokRequests, answer: ngrokRequests{},
			query: []param{{"limit", "at most so many; 50 unless said otherwise"}, {"tunnel_name", "of this tunnel"}}},
		{method: "POST", path: "/api/requests/http", summary: "Replay a request", handle: s.withTokenOrProgram(s.ngrokReplay), body: ngrokReplay{}},
		{method: "DELETE", path: "/api/requests/http", summary: "Forget all requests", handle: s.withTokenOrProgram(s.clear)},
		{method: "GET", path: "/api/requests/http/{id}", summary: "One request with its answer", handle: s.ngrokRequest, answer: ngrokRequest{}},

		{method: "GET", path: "/api/v1/session", summary: "The token that calls which change something need, in the header " + tokenHeader, handle: s.session, answer: sessionReply{}},
		{method: "GET", path: "/api/v1/status", summary: "Tunnels, links, and what the inspector takes", handle: s.statusReport, answer: statusReply{}},
		{method: "GET", path: "/api/v1/requests", summary: "Requests, newest first", handle: s.list, query: filter, answer: listReply{}},
		{method: "DELETE", path: "/api/v1/requests", summary: "Forget all requests", handle: s.withToken(s.clear), token: true},
		{method: "GET", path: "/api/v1/requests/{id}", summary: "One request with its answer, without bodies", handle: s.one, answer: Detail{}},
		{method: "GET", path: "/api/v1/requests/{id}/{side}/body", summary: "The body of a request (side: request) or answer (response), as far as it is kept", handle: s.bodyOf,
			query: []param{{"raw", "1: as it was sent, with its Content-Encoding"}}, media: "application/octet-stream"},
		{method: "GET", path: "/api/v1/requests/{id}/{side}/parts", summary: "The parts of a multipart body", handle: s.partsOf, answer: partsReply{}},
		{method: "GET", path: "/api/v1/requests/{id}/messages", summary: "WebSocket messages or server-sent events", handle: s.messagesOf,
			query: []param{{"after", "only those with a higher number"}}, answer: messagesReply{}},
		{method: "GET", path: "/api/v1/requests/{id}/curl", summary: "A command for a POSIX shell that sends the same request", handle: s.curlOf, media: "text/plain; charset=utf-8"},
		{method: "POST", path: "/api/v1/requests/{id}/replay", summary: "Send a request again, as it was or changed", handle: s.withToken(s.replay), body: replayRequest{}, answer: replayReply{}, status: http.StatusCreated, token: true},
		{method: "GET", path: "/api/v1/events", summary: "Server-sent events: requests (changed ones), cleared, reload", handle: s.events, media: "text/event-stream"},
		{method: "GET", path: "/api/v1/har", summary: "Requests as HAR 1.2", handle: s.har, query: append([]param{{"id", "of this one"}}, filter...), answer: harFile{}},
		{method: "GET", path: "/api/v1/openapi.json", summary: "This document", handle: s.openapi, media: "application/json"},
	}
}

// pages are the files of the page, by where they are served.
var pages = [...]struct{ path, file, media string }{
	{"/{$}", "index.html", "text/html; charset=utf-8"},
	{"/app.css", "app.css", "text/css; charset=utf-8"},
	{"/app.js", "app.js", "text/javascript; charset=utf-8"},
	{"/view.js", "view.js", "text/javascript; charset=utf-8"},
	{"/dom.js", "dom.js", "text/javascript; charset=utf-8"},
	{"/icon.svg", "icon.svg", "image/svg+xml"},
}

// Handler answers the page and the API. status is called for each request that
// asks for it, beside other calls; nil is an empty status.
func (i *Inspector) Handler(status func() Status) http.Handler {
	if status == nil {
		status = func() Status { return Status{State: "online"} }
	}
	s := &server{i, status}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.method+" "+r.path, r.handle)
	}
	for _, p := range pages {
		content, err := assets.ReadFile("web/" + p.file)
		if err != nil {
			panic(err) // a name in pages that is not in web; a test serves them all
		}
		mux.HandleFunc("GET "+p.path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", p.media)
			write(w, content)
		})
	}
	mux.Handle("GET /inspect/http", http.RedirectHandler("/", http.StatusFound)) // where ngrok has it
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/#/status", http.StatusFound)
	})
	mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found", "there is no such call; /api/v1/openapi.json lists all")
	})
	return i.guard(mux)
}

// write sends an answer's body. Who has gone away need not be told that it
// did not arrive.
func write(w http.ResponseWriter, b []byte) { _, _ = w.Write(b) }

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "internal", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	write(w, append(b, '\n'))
}

// apiError is how calls fail, in ngrok's words and in ours.
type apiError struct {
	Code       string `json:"error_code"`
	StatusCode int    `json:"status_code"`
	Message    string `json:"msg"`
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, apiError{code, status, message})
}
