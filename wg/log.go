package wg

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/device"
)

// bridge hands wireguard-go's messages on to slog: what it calls verbose as
// debug, its errors as warnings, of which there may be one for each packet that
// cannot be sent, and so only a few a second. Both name peers by eight
// characters of their public keys (Peer.String in device/peer.go).
type bridge struct {
	log     *slog.Logger
	limit   *rate.Limiter
	dropped atomic.Uint64 // warnings since the last that was logged
	quiet   atomic.Bool   // while Open runs, which returns the error
}

func newBridge(log *slog.Logger) *bridge {
	return &bridge{log: log, limit: rate.NewLimiter(rate.Every(10*time.Second), 5)}
}

func (b *bridge) logger() *device.Logger {
	return &device.Logger{Verbosef: b.verbosef, Errorf: b.errorf}
}

func (b *bridge) verbosef(format string, args ...any) {
	// Asked first: some of these come with every packet, and are formatted
	// for nobody.
	if b.log.Enabled(context.Background(), slog.LevelDebug) {
		b.log.Debug("wireguard: " + fmt.Sprintf(format, args...))
	}
}

func (b *bridge) errorf(format string, args ...any) {
	if b.quiet.Load() {
		return
	}
	if !b.limit.Allow() {
		b.dropped.Add(1)
		return
	}
	attrs := []any{"err", fmt.Sprintf(format, args...)}
	if n := b.dropped.Swap(0); n > 0 {
		attrs = append(attrs, "suppressed", n)
	}
	b.log.Warn("wireguard", attrs...)
}
