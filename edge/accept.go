package edge

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	firstPause = 5 * time.Millisecond
	maxPause   = time.Second
)

// steadyListener never gives up accepting before it is closed. Running out of
// file descriptors (EMFILE), or a visitor that left before it was accepted
// (ECONNABORTED), passes; a listener that ended there would leave the edge deaf.
type steadyListener struct {
	net.Listener
	log    *slog.Logger
	once   sync.Once
	closed chan struct{}
}

func (f *front) steady(l net.Listener) *steadyListener {
	return &steadyListener{Listener: l, log: f.log, closed: make(chan struct{})}
}

// Accept returns net.ErrClosed's error once the listener is closed, and no other.
func (l *steadyListener) Accept() (net.Conn, error) {
	var pause time.Duration
	for {
		conn, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		if pause == 0 {
			l.log.Warn("accepting visitors fails; trying again", "listener", l.Addr(), "err", err)
		}
		pause = min(max(2*pause, firstPause), maxPause)
		select {
		case <-time.After(pause):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

func (l *steadyListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// listenTCP opens a public port. A zero address listens on all, both families.
func listenTCP(at netip.AddrPort) (net.Listener, error) {
	addr := &net.TCPAddr{Port: int(at.Port())}
	if at.Addr().IsValid() {
		addr = net.TCPAddrFromAddrPort(at)
	}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, err
	}
	return l, nil
}
