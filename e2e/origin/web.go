package origin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// Web is a web application:
//
//	GET /             Greeting
//	GET /request      what the application was sent, as Seen
//	GET /events       server-sent events: those of Web.Events
//	GET /socket       a WebSocket that sends each message back
//	POST /upload      length and SHA-256 of the body, as Upload
//	GET /download?n=  Data(n)
//	GET /together     answers when Web.Together requests are waiting
//	GET /pour         Data without end, until StopPouring
type Web struct {
	// Events are what /events sends, one by one, until it is closed.
	Events chan string
	// Left gets a value for each visitor who leaves /events before its end, as
	// long as there is room.
	Left chan struct{}
	// Together is how many requests /together waits for; set before use.
	Together int

	addr string

	dry chan struct{} // closed by StopPouring

	mu       sync.Mutex // guards waiting
	waiting  int
	complete chan struct{} // closed when Together requests wait
}

// Greeting is the answer of /.
const Greeting = "hello from the origin\n"

// Upload is the answer of /upload.
type Upload struct {
	Length int64  `json:"length"`
	SHA256 string `json:"sha256"`
}

// Seen is the answer of /request.
type Seen struct {
	Host   string      `json:"host"`
	Proto  string      `json:"proto"`
	Remote string      `json:"remote"`
	Header http.Header `json:"header"`
}

// StartWeb serves until the test ends.
func StartWeb(t testing.TB) *Web {
	t.Helper()
	return ServeWeb(t, listen(t))
}

// ServeWeb is StartWeb on a listener that the test has, which it closes.
func ServeWeb(t testing.TB, ln net.Listener) *Web {
	t.Helper()
	w := &Web{
		Events: make(chan string), Left: make(chan struct{}, 16), addr: ln.Addr().String(),
		dry: make(chan struct{}), complete: make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, Greeting) })
	mux.HandleFunc("GET /request", request)
	mux.HandleFunc("GET /events", w.events)
	mux.HandleFunc("GET /socket", socket)
	mux.HandleFunc("POST /upload", upload)
	mux.HandleFunc("GET /download", download)
	mux.HandleFunc("GET /together", w.together)
	mux.HandleFunc("GET /pour", w.pour)
	srv := &http.Server{Handler: mux}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(ln) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return w
}

// Addr returns host:port.
func (w *Web) Addr() string { return w.addr }

func request(w http.ResponseWriter, r *http.Request) {
	reply(w, Seen{Host: r.Host, Proto: r.Proto, Remote: r.RemoteAddr, Header: r.Header})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (w *Web) events(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(rw)
	if flush.Flush() != nil { // the header, before the first event
		return
	}
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			if _, err := fmt.Fprintf(rw, "data: %s\n\n", e); err != nil || flush.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			select {
			case w.Left <- struct{}{}:
			default:
			}
			return
		}
	}
}

func socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if c.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func upload(w http.ResponseWriter, r *http.Request) {
	n, sum, err := Sum(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, Upload{Length: n, SHA256: sum})
}

func download(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.Copy(w, Data(n)) // a visitor who leaves ends it
}

// StopPouring ends all answers of /pour, once and for all.
func (w *Web) StopPouring() { close(w.dry) }

// The trailers of /pour: length and SHA-256 of what it sent.
const (
	TrailerLength = "Origin-Length"
	TrailerSum    = "Origin-Sum"
)

func (w *Web) pour(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Trailer", TrailerLength+", "+TrailerSum)
	rw.Header().Set("Content-Type", "application/octet-stream")
	source, sum := Data(1<<62), sha256.New()
	buf := make([]byte, 16<<10)
	for total := 0; ; total += len(buf) {
		select {
		case <-w.dry:
			rw.Header().Set(TrailerLength, strconv.Itoa(total))
			rw.Header().Set(TrailerSum, hex.EncodeToString(sum.Sum(nil)))
			return
		case <-r.Context().Done():
			return
		default:
		}
		if _, err := io.ReadFull(source, buf); err != nil {
			return
		}
		sum.Write(buf)
		if _, err := rw.Write(buf); err != nil {
			return
		}
	}
}

func (w *Web) together(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	if w.waiting++; w.waiting == w.Together {
		close(w.complete)
	}
	w.mu.Unlock()
	select {
	case <-w.complete:
		io.WriteString(rw, Greeting)
	case <-r.Context().Done():
	}
}
