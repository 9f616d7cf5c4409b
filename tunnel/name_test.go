package tunnel

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for _, good := range []string{"a", "app", "tcp-22", "0", "1a", "a-b--c", strings.Repeat("a", 63), "brave-otter-4821"} {
		if err := ValidateName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                        "is empty",
		"App":                     "upper-case",
		"my_app":                  "underscore",
		"my.app":                  "other characters",
		"my app":                  "other characters",
		"münchen":                 "other characters",
		"a\x00":                   "other characters",
		"a/b":                     "other characters",
		"-a":                      "hyphen",
		"a-":                      "hyphen",
		"-":                       "hyphen",
		"ab--c":                   "third and fourth",
		"xn--mnchen-3ya":          "xn--",
		strings.Repeat("a", 64):   "has 64 characters",
		strings.Repeat("a", 9000): "has 9000 characters",
	} {
		err := ValidateName(bad)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "allowed are") || len(err.Error()) > 400 {
			t.Errorf("%.80q: the error %v does not say %q", bad, err, want)
		}
	}
}

func TestCanonicalHost(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4) // 252 characters with its dot
	for in, want := range map[string]string{
		"app.example.com":         "app.example.com",
		"APP.Example.COM":         "app.example.com",
		"app.example.com.":        "app.example.com",
		"localhost":               "localhost",
		"demo.localhost":          "demo.localhost",
		"1.example":               "1.example",
		"123.a1":                  "123.a1",
		"münchen.example":         "xn--mnchen-3ya.example",
		"MÜNCHEN.example.":        "xn--mnchen-3ya.example",
		"xn--mnchen-3ya.example":  "xn--mnchen-3ya.example",
		"XN--MNCHEN-3YA.example":  "xn--mnchen-3ya.example",
		"faß.example":             "xn--fa-hia.example", // UTS 46 without transition, as browsers
		"bücher。example":          "xn--bcher-kva.example",
		"bücher.example。":         "xn--bcher-kva.example",
		"ｅｘａｍｐｌｅ.com":             "example.com",
		"пример.испытание":        "xn--e1afmkfd.xn--80akhbyknj4f",
		long + "b":                long + "b",
		strings.ToUpper(long):     long[:len(long)-1],
		strings.Repeat("a", 63):   strings.Repeat("a", 63),
		"a-b.c--d.e-f":            "a-b.c--d.e-f",
		"0xg.0xg":                 "0xg.0xg",
		"192.0.2.1.example":       "192.0.2.1.example",
		"brave-otter-4821.tun.io": "brave-otter-4821.tun.io",
	} {
		got, err := CanonicalHost(in)
		if err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
		if again, err := CanonicalHost(got); err != nil || again != got {
			t.Errorf("%q is not canonical: %q, %v", got, again, err)
		}
	}
	for in, want := range map[string]string{
		"":                             "empty",
		".":                            "empty part",
		"..":                           "empty part",
		".example.com":                 "empty part",
		"a..b":                         "empty part",
		"example.com..":                "empty part",
		"example.com:443":              "without a port",
		"[::1]":                        "without a port",
		"::1":                          "without a port",
		"192.0.2.1":                    "IP address",
		"1":                            "IP address",
		"0x7f.0x1":                     "IP address",
		"app.0X":                       "IP address",
		"example.1.":                   "IP address",
		"１２７.0.0.1":                    "IP address",
		"*.example.com":                "wildcard",
		"https://example.com":          "URL",
		"example.com/path":             "more than a name",
		"user@example.com":             "more than a name",
		"example.com?x":                "more than a name",
		"a b.com":                      "other characters",
		" example.com":                 "other characters",
		"example.com\n":                "other characters",
		"a\x00b":                       "other characters",
		"my_app.example.com":           "underscore",
		"-a.example.com":               "hyphen",
		"a-.example.com":               "hyphen",
		"ab--cd.example.com":           "third and fourth",
		"xn--\x7f.com":                 "",
		"xn--a.example":                "",
		"xn--.example":                 "",
		"xn--abc-.example":             "",
		"\xff.example":                 "",
		"a\u200db.example":             "",
		"\u202eabc.example":            "",
		strings.Repeat("a", 64):        "64 characters",
		long + "bc":                    "longer than 253",
		strings.Repeat("a.", 1000):     "too long",
		strings.Repeat("ü", 60) + ".x": "", // 60 letters, and more than 63 characters as xn--
	} {
		got, err := CanonicalHost(in)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("%.80q is %q, %v; want an error with %q", in, got, err, want)
		}
	}
}

func TestCanonicalHostCostsNothing(t *testing.T) {
	for _, host := range []string{"app.example.com", "brave-otter-4821.example.com", "app.example.com."} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := CanonicalHost(host); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"app.example.com", "APP.", "münchen.example", "xn--mnchen-3ya.example", "faß.example", "1.2.3.4", "a。b", "[::1]:80", "ab--c", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := CanonicalHost(s)
		if err != nil {
			return
		}
		if again, err := CanonicalHost(got); err != nil || again != got {
			t.Fatalf("%q is %q, then %q, %v", s, got, again, err)
		}
		if len(got) > maxHost || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.HasSuffix(got, ".") {
			t.Fatalf("%q is %q", s, got)
		}
		if upper, err := CanonicalHost(strings.ToUpper(got)); err != nil || upper != got {
			t.Fatalf("%q in upper case is %q, %v", got, upper, err)
		}
	})
}

func FuzzValidateName(f *testing.F) {
	for _, s := range []string{"app", "-", "xn--a", "A", "", "ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ValidateName(s) != nil {
			return
		}
		// A name becomes a host name under any domain.
		if got, err := CanonicalHost(s + ".example.com"); err != nil || got != s+".example.com" {
			t.Fatalf("the name %q makes the host %q, %v", s, got, err)
		}
	})
}

func TestRandomName(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 {
		name := RandomName(rand.Reader)
		if err := ValidateName(name); err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(name, "-")
		if len(parts) != 3 || len(parts[2]) != 4 || strings.Trim(parts[2], "0123456789") != "" || len(name) > 24 {
			t.Fatalf("%q is not word-word-digits", name)
		}
		seen[name] = true
	}
	// 2,000 of 2^27: 0.015 pairs by chance.
	if len(seen) < 1998 {
		t.Errorf("2,000 draws gave %d names", len(seen))
	}
}

func TestRandomNameWords(t *testing.T) {
	for name, list := range map[string]string{"adjectives": adjectives, "animals": animals} {
		seen := map[string]bool{}
		for _, w := range words(list) {
			if seen[w] || len(w) < 2 || len(w) > 9 || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") != "" {
				t.Errorf("%s: %q is there twice, or is no short word", name, w)
			}
			seen[w] = true
		}
		if len(seen) != 128 {
			t.Errorf("%s: %d words; RandomName's documentation says 128", name, len(seen))
		}
	}
}

func TestRandomNameUsesAll(t *testing.T) {
	const first, last = "agile-alpaca-0000", "zesty-zebra-9999"
	if got := RandomName(bytes.NewReader(make([]byte, 6))); got != first {
		t.Errorf("the lowest draw is %s, want %s", got, first)
	}
	// 65535 is beyond the last multiple of 10,000 and drawn again; 59999 is the last.
	if got := RandomName(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xea, 0x5f})); got != last {
		t.Errorf("the highest draw is %s, want %s", got, last)
	}
	defer func() {
		if recover() == nil {
			t.Error("without randomness a name was drawn")
		}
	}()
	RandomName(bytes.NewReader(nil))
}
