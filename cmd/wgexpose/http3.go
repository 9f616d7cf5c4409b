package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/wgexpose/wgexpose/configs"
)

// listenHTTP3 opens the UDP port beside the HTTPS listener; nil without HTTP/3.
func listenHTTP3(ctx context.Context, cfg configs.Edge, https net.Listener, log *slog.Logger) (net.PacketConn, error) {
	if https == nil || cfg.HTTP3 == configs.HTTP3Off {
		return nil, nil
	}
	if cfg.WireGuardHasHTTP3Port() { // then it is auto
		log.Info("no HTTP/3: WireGuard has its UDP port, by listen_wg", "port", cfg.ListenHTTPS.Port)
		return nil, nil
	}
	var config net.ListenConfig
	conn, err := config.ListenPacket(ctx, "udp", https.Addr().String())
	if err == nil {
		return conn, nil
	}
	why := fmt.Errorf("listen on UDP %s for HTTP/3 (--http3): %w", https.Addr(), err)
	if errors.Is(err, syscall.EADDRINUSE) {
		why = fmt.Errorf("listen on UDP %s for HTTP/3: another program has this port; stop it, or do without with --http3 off: %w", https.Addr(), err)
	}
	if cfg.HTTP3 == configs.HTTP3On {
		return nil, why
	}
	log.Warn("no HTTP/3, visitors come over TCP", "err", why)
	return nil, nil
}
