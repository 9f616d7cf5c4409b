package main

import (
	"context"
	"embed"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

//go:embed assets/demo
var demoAssets embed.FS

// The answer of /stream, and the pause between two of its words.
const (
	streamText  = "Each of these words left the app on its own, crossed the overlay in its own packet and was on your screen before the next one was written."
	streamPause = 60 * time.Millisecond
)

// demoApp is the small web app that the demo shares: a page, what it was told
// about the visitor (/whoami), a WebSocket echo (/echo) and an answer that
// comes word by word (/stream).
func demoApp() (http.Handler, error) {
	files, err := fs.Sub(demoAssets, "assets/demo")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /whoami", whoami)
	mux.HandleFunc("GET /echo", echoWebSocket)
	mux.HandleFunc("GET /stream", streamWords)
	return mux, nil
}

func whoami(w http.ResponseWriter, r *http.Request) {
	told := struct {
		Visitor string      `json:"visitor"`
		Host    string      `json:"host"`
		App     string      `json:"app"`
		Headers [][2]string `json:"headers"`
	}{Visitor: r.Header.Get("X-Real-Ip"), Host: r.Host}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		told.App = addr.String()
	}
	for name, values := range r.Header {
		told.Headers = append(told.Headers, [2]string{name, strings.Join(values, ", ")})
	}
	slices.SortFunc(told.Headers, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = writeJSON(w, told) // the visitor is gone: nobody is left to tell
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return // closed by the visitor
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func streamWords(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	tick := time.NewTicker(streamPause)
	defer tick.Stop()
	flush := http.NewResponseController(w)
	for _, word := range strings.SplitAfter(streamText, " ") {
		if _, err := io.WriteString(w, word); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
	_, _ = io.WriteString(w, "\n")
}

// serveHTTP serves until ctx ends, and returns when all is closed.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveEcho sends each connection its own bytes back, until ctx ends.
func serveEcho(ctx context.Context, ln net.Listener) error {
	var (
		mu    sync.Mutex // guards conns
		conns = make(map[net.Conn]bool)
		wait  sync.WaitGroup
	)
	stop := context.AfterFunc(ctx, func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range conns {
			c.Close()
		}
	})
	defer wait.Wait()
	defer stop()
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		mu.Lock()
		conns[c] = true
		mu.Unlock()
		if ctx.Err() != nil {
			c.Close() // came while the others were being closed
		}
		wait.Go(func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // ends with the visitor
			mu.Lock()
			delete(conns, c)
			mu.Unlock()
		})
	}
}
