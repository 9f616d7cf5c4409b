package certs

import (
	"context"
	"log/slog"
	"slices"
	"sort"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger gives certmagic a logger that writes to log.
func zapLogger(log *slog.Logger) *zap.Logger { return zap.New(zapCore{h: log.Handler()}) }

// zapCore is a zapcore.Core on top of a slog.Handler. Fields are converted when a
// line is written: certmagic makes a logger for each handshake, and writes nothing.
type zapCore struct {
	h    slog.Handler
	with []zapcore.Field
}

// slogLevel takes certmagic's info, which tells of each lock taken and each
// step of an order, for what it is to an edge's log: debug.
func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func (c zapCore) Enabled(l zapcore.Level) bool {
	return c.h.Enabled(context.Background(), slogLevel(l))
}

func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{c.h, slices.Concat(c.with, fields)}
}

func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, slogLevel(e.Level), e.Message, 0)
	r.AddAttrs(slogAttrs(c.with)...)
	if e.LoggerName != "" {
		r.AddAttrs(slog.String("certmagic", e.LoggerName))
	}
	r.AddAttrs(slogAttrs(fields)...)
	return c.h.Handle(context.Background(), r)
}

func (zapCore) Sync() error { return nil }

// slogAttrs converts fields in their order. Errors get this project's key.
func slogAttrs(fields []zapcore.Field) []slog.Attr {
	attrs := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			key := f.Key
			if key == "error" {
				key = "err"
			}
			attrs = append(attrs, slog.Any(key, err))
			continue
		}
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc) // one key, except for inlined objects
		keys := make([]string, 0, len(enc.Fields))
		for k := range enc.Fields {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			attrs = append(attrs, slog.Any(k, enc.Fields[k]))
		}
	}
	return attrs
}
