package inspect

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// sampleApp is what stands behind the tunnel in the browser's test.
func sampleApp(t *testing.T) *httptest.Server {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/orders", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Set-Cookie", "session=5e884898da28; Path=/; HttpOnly")
		z := gzip.NewWriter(w)
		defer z.Close()
		type order struct {
			ID    int      `json:"id"`
			Name  string   `json:"customer"`
			Total float64  `json:"total"`
			Paid  bool     `json:"paid"`
			Tags  []string `json:"tags"`
		}
		list := []order{}
		for n, name := range []string{"Ada Lovelace", "Grace Hopper", "Katherine Johnson", "<script>alert(1)</script>"} {
			list = append(list, order{1041 + n, name, 19.5 * float64(n+1), n%2 == 0, []string{"web", "eu"}})
		}
		if err := json.NewEncoder(z).Encode(map[string]any{"orders": list, "next": nil}); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST /api/orders", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"method":%q,"query":%q,"note":%q,"auth":%q,"got":%s}`, r.Method, r.URL.RawQuery, r.Header.Get("X-Note"), r.Header.Get("Authorization"), b)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusSeeOther) })
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /logo.png", func(w http.ResponseWriter, r *http.Request) {
		picture := image.NewRGBA(image.Rect(0, 0, 160, 90))
		for y := range 90 {
			for x := range 160 {
				picture.Set(x, y, color.RGBA{uint8(40 + x), uint8(90 + y), 220, 255})
			}
		}
		w.Header().Set("Content-Type", "image/png")
		if err := png.Encode(w, picture); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the database is not there", http.StatusInternalServerError)
	})
	mux.HandleFunc("GET /chat/completions", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n, word := range []string{"Hello", " there,", " this", " is", " streamed"} {
			fmt.Fprintf(w, "event: delta\nid: %d\ndata: {\"token\":%q}\n\n", n, word)
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
			fmt.Fprint(w, "event: done\ndata: [DONE]\n\n")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /release", func(http.ResponseWriter, *http.Request) { close(release) })
	mux.HandleFunc("GET /socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><title>Shop</title><h1>Shop</h1>")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func sampleStatus(now time.Time) Status {
	return Status{State: "online", Agent: "laptop",
		Tunnels: []TunnelStatus{
			{Name: "shop", PublicURL: "https://shop.example.com", Kind: "http", Upstream: "http://127.0.0.1:8089", State: "up", Inspected: true},
			{Name: "ssh", PublicURL: "tcp://example.com:20022", Kind: "tcp", Upstream: "tcp://127.0.0.1:22", State: "down", Detail: "connection refused by 127.0.0.1:22"},
		},
		Links: []LinkStatus{{Edge: "203.0.113.7:51820", State: "up", Transport: "udp", Latency: 23.4, Since: now.Add(-3 * time.Hour)}},
	}
}
