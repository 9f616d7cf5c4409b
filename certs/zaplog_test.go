package certs

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestZapLogger(t *testing.T) {
	var buf bytes.Buffer
	h := slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})
	log := zapLogger(slog.New(h)).Named("renew").With(zap.String("name", "example.com"))
	log.Info("step", zap.Strings("subjects", []string{"a", "b"}), zap.Duration("left", time.Minute))
	log.Warn("odd", zap.Int("n", 3))
	log.Error("bad", zap.Error(errors.New("broken")))
	for _, want := range []string{
		`level=DEBUG msg=step name=example.com certmagic=renew subjects="[a b]" left=1m0s`,
		`level=WARN msg=odd name=example.com certmagic=renew n=3`,
		`level=ERROR msg=bad name=example.com certmagic=renew err=broken`,
	} {
		if !strings.Contains(buf.String(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, &buf)
		}
	}
	buf.Reset()
	zapLogger(slog.New(slog.NewTextHandler(&buf, nil))).Info("step")
	if buf.Len() != 0 {
		t.Errorf("certmagic's info is logged at info: %s", &buf)
	}
}
