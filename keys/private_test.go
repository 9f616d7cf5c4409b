package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"text/template"
)

func mustNew(t testing.TB) Private {
	t.Helper()
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestVectors: the key pairs of the Diffie-Hellman example of RFC 7748, section
// 6.1.
func TestVectors(t *testing.T) {
	fromHex := func(s string) string {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	for _, v := range []struct{ name, private, public string }{
		{"Alice", fromHex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"), fromHex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")},
		{"Bob", fromHex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"), fromHex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")},
	} {
		k, err := ParsePrivate(v.private)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		if got := k.Public().String(); got != v.public {
			t.Errorf("%s: public key %s, want %s", v.name, got, v.public)
		}
	}
}

// TestAgainstWG: the real `wg pubkey` agrees, on our keys and on unclamped ones.
func TestAgainstWG(t *testing.T) {
	wg, err := exec.LookPath("wg")
	if err != nil {
		if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
			t.Fatal("wg is required (WGEXPOSE_REQUIRE_TOOLS=1) and not installed")
		}
		t.Skip("wg (wireguard-tools) is not installed")
	}
	run := func(stdin string, args ...string) string {
		cmd := exec.Command(wg, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("wg %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	unclamped := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, Size))
	own := mustNew(t).Expose()
	for _, private := range []string{run("", "genkey"), base64.StdEncoding.EncodeToString(own[:]), unclamped} {
		k, err := ParsePrivate(private)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := k.Public().String(), run(private+"\n", "pubkey"); got != want {
			t.Errorf("public key %s, wg pubkey says %s", got, want)
		}
	}
	fromWG := run("", "genkey")
	k, err := ParsePrivate(fromWG)
	if err != nil {
		t.Fatal(err)
	}
	if b := k.Expose(); base64.StdEncoding.EncodeToString(b[:]) != fromWG {
		t.Error("a key of wg genkey is changed by reading it")
	}
}

func TestNewIsClampedAndNew(t *testing.T) {
	a, b := mustNew(t), mustNew(t)
	if a.Equal(b) || a.Public() == b.Public() {
		t.Fatal("two new keys are equal")
	}
	for _, k := range []Private{a, b} {
		if e := k.Expose(); e[0]&7 != 0 || e[31]&0xc0 != 0x40 {
			t.Errorf("not clamped: first byte %08b, last %08b", e[0], e[31])
		}
	}
}

func TestZeroPrivate(t *testing.T) {
	var zero Private
	k := mustNew(t)
	if !zero.IsZero() || k.IsZero() {
		t.Error("IsZero is wrong")
	}
	if !zero.Public().IsZero() || zero.Expose() != ([Size]byte{}) {
		t.Error("no key has a public key, or bytes")
	}
	if !zero.Equal(Private{}) || zero.Equal(k) || k.Equal(zero) {
		t.Error("no key equals a key")
	}
	again, err := ParsePrivate(text(k))
	if err != nil || !again.Equal(k) {
		t.Errorf("a key is not equal to its copy: %v", err)
	}
	if reflect.TypeFor[Private]().Comparable() {
		t.Error("== compiles for private keys, and compares pointers")
	}
}

// text is a private key's base64.
func text(k Private) string {
	b := k.Expose()
	return base64.StdEncoding.EncodeToString(b[:])
}

// leaks says in which form a key appears in s.
func leaks(k Private, s string) string {
	b := k.Expose()
	upper := strings.ToUpper(hex.EncodeToString(b[:]))
	decimals := strings.Trim(fmt.Sprint(b), "[]")
	goSyntax := fmt.Sprintf("%#v", b)
	forms := map[string]string{
		"base64":       base64.RawStdEncoding.EncodeToString(b[:]),
		"base64url":    base64.RawURLEncoding.EncodeToString(b[:]),
		"hex":          strings.ToLower(upper),
		"upper hex":    upper,
		"spaced hex":   fmt.Sprintf("% x", b[:]),
		"bytes":        string(b[:]),
		"decimals":     decimals,
		"JSON numbers": strings.ReplaceAll(decimals, " ", ","),
		"Go syntax":    goSyntax[strings.IndexByte(goSyntax, '{')+1 : len(goSyntax)-1],
		"octal":        strings.Trim(fmt.Sprintf("%o", b), "[]"),
		"binary":       strings.Trim(fmt.Sprintf("%b", b), "[]"),
		"quoted":       strings.Trim(fmt.Sprintf("%q", b[:]), `"`),
	}
	for form, key := range forms {
		if strings.Contains(s, key) {
			return form
		}
	}
	return ""
}

// TestLeaksFinds: the check of the tests below sees what they look for.
func TestLeaksFinds(t *testing.T) {
	k := mustNew(t)
	b := k.Expose()
	for _, verb := range []string{"%v", "%x", "%X", "% x", "%s", "%#v", "%o", "%b", "%d"} {
		if s := fmt.Sprintf(verb, b); leaks(k, s) == "" {
			t.Errorf("the key in %s is not found: %s", verb, s)
		}
	}
	if leaks(k, fmt.Sprintf("%q", b[:])) == "" || leaks(k, text(k)) == "" {
		t.Error("the quoted key or its base64 is not found")
	}
}

// holders are the ways in which a key may lie in something that is printed.
func holders(k Private) map[string]any {
	type exported struct{ Key Private }
	type hidden struct{ key Private }
	type pointer struct{ key *Private }
	type deep struct{ inner []hidden }
	return map[string]any{
		"alone":            k,
		"pointer":          &k,
		"exported field":   exported{k},
		"unexported field": hidden{k},
		"pointer to it":    &hidden{k},
		"pointer field":    pointer{&k},
		"slice":            []Private{k},
		"array":            [1]Private{k},
		"map":              map[string]Private{"k": k},
		"deep":             &deep{[]hidden{{k}}},
		"any":              []any{k},
		"invite":           Invite{Key: k},
	}
}

func TestFmtDoesNotLeak(t *testing.T) {
	k := mustNew(t)
	for where, v := range holders(k) {
		for _, verb := range "vsxXqdobcUeEfFgGtTpw" {
			for _, flag := range []string{"", "+", "#", " ", "0", "-5", "+#", "5.3"} {
				format := "%" + flag + string(verb)
				if form := leaks(k, fmt.Sprintf(format, v)); form != "" {
					t.Errorf("%s, %s: leaks as %s", where, format, form)
				}
			}
		}
		if form := leaks(k, fmt.Sprint(v)+fmt.Sprintln(v)); form != "" {
			t.Errorf("%s, Print: leaks as %s", where, form)
		}
		if form := leaks(k, fmt.Errorf("use %v: %w", v, errors.New("x")).Error()); form != "" {
			t.Errorf("%s, Errorf: leaks as %s", where, form)
		}
	}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%s", k), fmt.Sprintf("%x", k), k.String(), k.GoString()} {
		if s != "[private key]" {
			t.Errorf("prints as %q", s)
		}
	}
}

func TestLogsDoNotLeak(t *testing.T) {
	k := mustNew(t)
	for where, v := range holders(k) {
		var out bytes.Buffer
		opts := &slog.HandlerOptions{AddSource: true, Level: slog.LevelDebug}
		for _, l := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, opts)), slog.New(slog.NewJSONHandler(&out, opts))} {
			l.Info("x", "key", v)
			l.With("key", v).WithGroup("g").Info("x", slog.Any("key", v), slog.Group("h", "key", v))
		}
		log.New(&out, "", 0).Println(v)
		if out.Len() == 0 {
			t.Fatal("nothing was logged")
		}
		if form := leaks(k, out.String()); form != "" {
			t.Errorf("%s: leaks as %s", where, form)
		}
	}
}

func TestEncodersDoNotLeak(t *testing.T) {
	k := mustNew(t)
	encoders := map[string]func(io.Writer, any) error{
		"json": func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
		"xml":  func(w io.Writer, v any) error { return xml.NewEncoder(w).Encode(v) },
		"gob":  func(w io.Writer, v any) error { return gob.NewEncoder(w).Encode(v) },
		"template": func(w io.Writer, v any) error {
			return template.Must(template.New("").Parse("{{.}} {{printf `%#v %x` . .}} {{print .}} {{html .}} {{js .}}")).Execute(w, v)
		},
	}
	for name, encode := range encoders {
		for where, v := range holders(k) {
			var out bytes.Buffer
			err := encode(&out, v) // some encoders refuse some values, in words that must not leak either
			s := out.String()
			if err != nil {
				s += err.Error()
			}
			if form := leaks(k, s); form != "" {
				t.Errorf("%s of %s: leaks as %s", name, where, form)
			}
		}
	}
	b, err := json.Marshal(map[string]Private{"key": k})
	if err != nil || string(b) != `{"key":"[private key]"}` {
		t.Errorf("JSON is %s, %v", b, err)
	}
	if err := json.Unmarshal([]byte(`{"key":"`+text(k)+`"}`), &map[string]Private{}); err == nil {
		t.Error("a private key was read from JSON")
	}
}

func TestParseRefuses(t *testing.T) {
	good := text(mustNew(t))
	for name, s := range map[string]string{
		"empty":            "",
		"short":            good[:43],
		"long":             good + "A",
		"space around":     " " + good[:43],
		"line break":       good[:20] + "\n" + good[20:43],
		"other characters": strings.Repeat("!", 44),
		"URL alphabet":     strings.Repeat("_", 43) + "=",
		"no padding":       good[:43] + "A",
		"loose bits":       good[:42] + "B=",
		"zero":             strings.Repeat("A", 43) + "=",
	} {
		for kind, parse := range map[string]func(string) error{
			"private": func(s string) error { _, err := ParsePrivate(s); return err },
			"public":  func(s string) error { _, err := ParsePublic(s); return err },
		} {
			err := parse(s)
			if err == nil {
				t.Errorf("%s key, %s: accepted", kind, name)
			} else if s != "" && strings.Contains(err.Error(), strings.TrimSpace(s)) {
				t.Errorf("%s key, %s: the error repeats the input", kind, name)
			} else if !strings.HasPrefix(err.Error(), kind+" key ") {
				t.Errorf("%s key, %s: the error reads %q", kind, name, err)
			}
		}
	}
}

func FuzzParsePrivate(f *testing.F) {
	f.Add("")
	f.Add("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqwXf7pR25LCo=")
	f.Add(strings.Repeat("A", 43) + "=")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePrivate(s)
		if err != nil {
			return
		}
		again, err := ParsePrivate(text(k))
		if err != nil || !again.Equal(k) || k.IsZero() || k.Public().IsZero() {
			t.Errorf("%q gives a key that does not survive: %v", s, err)
		}
	})
}
