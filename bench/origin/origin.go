//go:build linux

// Package origin is the service behind the tunnels that are measured: it sends,
// takes and returns bytes as fast as it is asked to.
//
// A TCP visitor's first byte says what it wants:
//
//	D  bytes without end, until the visitor goes
//	U  to send bytes without end; they are counted
//	E  every byte back
//
// The count can be read on a Unix socket, which is no part of the path that is
// measured: each byte written there is answered with the time and the count
// (see [Reading]). A second TCP port is a web server: /bytes/N answers with N
// bytes.
package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What a visitor may ask for.
const (
	Download byte = 'D'
	Upload   byte = 'U'
	Echo     byte = 'E'
)

const (
	// chunk is what a bulk transfer reads and writes at a time, in bytes.
	chunk = 256 << 10
	// MaxBytes bounds /bytes/N.
	MaxBytes = 16 << 20
)

// Config says where an origin listens.
type Config struct {
	Host    string `json:"host"`    // address of both TCP ports
	Control string `json:"control"` // path of the Unix socket
}

// Ready is where it does.
type Ready struct {
	Event string `json:"event"` // "ready"
	TCP   string `json:"tcp"`
	HTTP  string `json:"http"`
}

// origin is one that runs.
type origin struct {
	received atomic.Int64 // bytes of uploads
	conns    sync.WaitGroup
}

// Run serves until ctx ends. ready is called once when it does.
func Run(ctx context.Context, cfg Config, ready func(Ready) error) error {
	o := &origin{}
	var listeners [3]net.Listener
	for i, at := range [][2]string{{"tcp", net.JoinHostPort(cfg.Host, "0")}, {"tcp", net.JoinHostPort(cfg.Host, "0")}, {"unix", cfg.Control}} {
		ln, err := net.Listen(at[0], at[1])
		if err != nil {
			return err
		}
		defer ln.Close()
		listeners[i] = ln
	}
	server := &http.Server{Handler: http.HandlerFunc(serveBytes), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		for _, ln := range listeners {
			ln.Close() // makes the loops below end
		}
		server.Close()
	})
	defer stop()
	if err := ready(Ready{Event: "ready", TCP: listeners[0].Addr().String(), HTTP: listeners[1].Addr().String()}); err != nil {
		return err
	}
	var loops sync.WaitGroup
	errs := make([]error, 3)
	loops.Go(func() { errs[0] = o.accept(ctx, listeners[0], o.serve) })
	loops.Go(func() { errs[1] = server.Serve(listeners[1]) })
	loops.Go(func() { errs[2] = o.accept(ctx, listeners[2], o.report) })
	loops.Wait()
	o.conns.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errs...)
}

// accept serves each connection until ctx ends, which closes them.
func (o *origin) accept(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		o.conns.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			serve(conn)
		})
	}
}

// serve gives one visitor what it asks for. Visitors leave when they have
// enough, so how a transfer ends is no concern.
func (o *origin) serve(conn net.Conn) {
	var want [1]byte
	if _, err := io.ReadFull(conn, want[:]); err != nil {
		return
	}
	switch want[0] {
	case Download:
		for b := make([]byte, chunk); ; {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	case Upload:
		for b := make([]byte, chunk); ; {
			n, err := conn.Read(b)
			o.received.Add(int64(n))
			if err != nil {
				return
			}
		}
	case Echo:
		// 10,000 of these wait at a time, so the buffer is small.
		for b := make([]byte, 512); ; {
			n, err := conn.Read(b)
			if n > 0 {
				if _, err := conn.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}

// Reading is the count of uploaded bytes at one moment.
type Reading struct {
	At    time.Duration // of CLOCK_MONOTONIC, which is one for the machine
	Bytes int64
}

const readingSize = 16

// report answers each byte with a Reading.
func (o *origin) report(conn net.Conn) {
	var ask [1]byte
	for {
		if _, err := io.ReadFull(conn, ask[:]); err != nil {
			return
		}
		var b [readingSize]byte
		binary.BigEndian.PutUint64(b[:], uint64(Now()))
		binary.BigEndian.PutUint64(b[8:], uint64(o.received.Load()))
		if _, err := conn.Write(b[:]); err != nil {
			return
		}
	}
}

// Read asks for a Reading on a connection to the Unix socket.
func Read(conn net.Conn) (Reading, error) {
	if _, err := conn.Write([]byte{0}); err != nil {
		return Reading{}, fmt.Errorf("ask the origin: %w", err)
	}
	var b [readingSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return Reading{}, fmt.Errorf("ask the origin: %w", err)
	}
	return Reading{At: time.Duration(binary.BigEndian.Uint64(b[:])), Bytes: int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

// Now is the time that Readings carry.
func Now() time.Duration {
	var t unix.Timespec
	// It fails only for a clock that does not exist.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

var zeros [64 << 10]byte

func serveBytes(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/bytes/")
	n, err := strconv.Atoi(path)
	if !ok || err != nil || n < 0 || n > MaxBytes {
		http.Error(w, "ask for /bytes/N", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	for n > 0 {
		k, err := w.Write(zeros[:min(n, len(zeros))])
		if err != nil {
			return // the visitor has gone
		}
		n -= k
	}
}
