package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// What happens to a guest's tunnels happens in the owner's process, and is
// logged by the guest: at the level and in the place that its user chose.

// maxLogLines is how many lines wait for a guest that reads slowly; more of them
// are counted, and told when there is room again.
const maxLogLines = 1000

// quiet is the level of a guest that logs nothing.
const quiet = slog.Level(100)

// logLine is a log record on its way to a guest.
type logLine struct {
	Time  time.Time  `json:"time"`
	Level slog.Level `json:"level"`
	Text  string     `json:"text"`
	Attrs []logAttr  `json:"attrs,omitempty"`
	Lost  int        `json:"lost,omitempty"` // lines before this one that there was no room for
}

type logAttr struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// levelOf is the least level that a logger takes.
func levelOf(log *slog.Logger) slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if log.Enabled(context.Background(), level) {
			return level
		}
	}
	return quiet
}

// guestHandler sends records to a guest.
type guestHandler struct {
	inbox *inbox
	level slog.Level
	attrs []logAttr
}

func (h *guestHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *guestHandler) Handle(_ context.Context, r slog.Record) error {
	line := logLine{Time: r.Time, Level: r.Level, Text: r.Message, Attrs: slices.Clone(h.attrs)}
	r.Attrs(func(a slog.Attr) bool {
		line.Attrs = append(line.Attrs, logAttr{a.Key, a.Value.Resolve().String()})
		return true
	})
	h.inbox.putLine(line)
	return nil
}

func (h *guestHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		with.attrs = append(with.attrs, logAttr{a.Key, a.Value.Resolve().String()})
	}
	return &with
}

// WithGroup has the group's attributes stand among the others: nothing in this
// package has groups.
func (h *guestHandler) WithGroup(string) slog.Handler { return h }

// putLine is put for a log line, which is dropped when there are too many.
func (b *inbox) putLine(line logLine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if len(b.queue) >= maxLogLines {
		b.lost++
		return
	}
	line.Lost, b.lost = b.lost, 0
	b.queue = append(b.queue, message{Type: msgLog, Log: &line})
	b.signal()
}

// print logs a line that the owner sent.
func (l *logLine) print(log *slog.Logger) error {
	ctx := context.Background()
	if l.Lost > 0 {
		log.Warn("some lines of the log were lost, because they came too fast", "lines", l.Lost)
	}
	if !log.Enabled(ctx, l.Level) {
		return nil
	}
	r := slog.NewRecord(l.Time, l.Level, l.Text, 0)
	for _, a := range l.Attrs {
		r.AddAttrs(slog.String(a.Key, a.Value))
	}
	if err := log.Handler().Handle(ctx, r); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}
