package configs

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestCredential(t *testing.T) {
	c, err := parseCredential("me:geheim")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "who", c)
	for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %s %x %q", c, c, c, c, c), fmt.Sprintf("%+v", Tunnel{BasicAuth: []Credential{c}}), log.String()} {
		if strings.Contains(shown, "geheim") || strings.Contains(shown, "67656865696d") || !strings.Contains(shown, "me") {
			t.Errorf("shown as %s", shown)
		}
	}
	hashed, err := c.Hash()
	if err != nil || hashed.User != "me" || bcrypt.CompareHashAndPassword([]byte(hashed.Hash), []byte("geheim")) != nil {
		t.Errorf("hashed to %+v, %v", hashed, err)
	}
	again, err := parseCredential("me:" + hashed.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := again.Hash(); err != nil || same != hashed {
		t.Errorf("a hash became %+v, %v", same, err)
	}
}
