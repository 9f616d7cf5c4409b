package inspect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Listen opens addr ("127.0.0.1:4040"), or when its port is taken one of the
// next nine.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	const tries = 10
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("inspector: %w", err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("inspector: %q is no port", service)
	}
	var first error
	for n := range uint64(tries) {
		if port+n > 65535 {
			break
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.FormatUint(port+n, 10)))
		if err == nil {
			return l, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("inspector: %w, nor one of the next %d ports", first, tries-1)
}

// Serve answers the page and the API on l until ctx ends, and returns nil then.
// It owns l.
func (i *Inspector) Serve(ctx context.Context, l net.Listener, status func() Status) error {
	server := &http.Server{
		Handler:           i.Handler(status),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// Streams end with ctx, so that Shutdown does not wait for them.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(i.cfg.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("inspector: %w", err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		server.Close() // what is still open after that time is cut off
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("inspector: %w", err)
	}
	return nil
}
