package static

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site makes a folder with files, links that lead out of it, and a secret beside
// it, and serves it.
func site(t *testing.T, options Options, files map[string]string) *Folder {
	t.Helper()
	above := t.TempDir()
	dir := filepath.Join(above, "www")
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(above, "secret.txt"), "secret")
	put(filepath.Join(dir, "deep", "a.txt"), "0123456789")
	for name, text := range files {
		put(filepath.Join(dir, filepath.FromSlash(name)), text)
	}
	for link, target := range map[string]string{
		"abs.txt": filepath.Join(above, "secret.txt"), "rel.txt": "../secret.txt", "up": "..", "in.txt": "deep/a.txt",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			if runtime.GOOS == "windows" {
				t.Skip(err)
			}
			t.Fatal(err)
		}
	}
	f, err := Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// ask sends a request with this very path, which no client has cleaned.
func ask(h http.Handler, method, path string, header ...string) (*http.Response, string) {
	r := httptest.NewRequest(method, "/", nil)
	p, query, _ := strings.Cut(path, "?")
	r.URL.Path, r.URL.RawQuery = p, query
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestNoWayOut(t *testing.T) {
	for _, options := range []Options{{}, {Listing: true}, {SPA: true}} {
		f := site(t, options, map[string]string{".env": "secret", ".git/config": "secret", "deep/.hidden": "secret", `deep\.env`: "secret", "plain.txt": "plain"})
		for _, path := range []string{
			"/../secret.txt", "/deep/../../secret.txt", "/abs.txt", "/rel.txt", "/up/secret.txt", "/up/", "/up", "//../secret.txt",
			"/.env", "/.git/config", "/deep/.hidden", "/deep/../.env", `/deep\.env`, `/deep\..\.env`, `/..\secret.txt`, `/deep\..\..\secret.txt`, "/plain.txt\x00", "../secret.txt", "/plain.txt/", "/plain.txt/x",
		} {
			res, body := ask(f, "GET", path)
			if strings.Contains(body, "secret") || res.StatusCode != http.StatusNotFound {
				t.Errorf("%+v %q: %d %q", options, path, res.StatusCode, body)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	f := site(t, Options{Listing: true}, map[string]string{"sub/index.html": "<p>sub", "a b&c.txt": "x", ".well-known/x": "known", "javascript:alert(1)": "x"})
	for _, test := range []struct {
		method, path string
		header       []string
		status       int
		body         string
	}{
		{"GET", "/deep/a.txt", nil, 200, "0123456789"},
		{"HEAD", "/deep/a.txt", nil, 200, ""},
		{"GET", "/in.txt", nil, 200, "0123456789"}, // a link that stays inside
		{"GET", "/deep/a.txt", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"GET", "/deep/a.txt", []string{"Range", "bytes=50-"}, 416, ""},
		{"GET", "/sub/", nil, 200, "<p>sub"},
		{"GET", "/a b&c.txt", nil, 200, "x"},
		{"GET", "/.well-known/x", nil, 200, "known"},
		{"GET", "/none", nil, 404, ""},
		{"POST", "/deep/a.txt", nil, 405, ""},
		{"DELETE", "/deep/a.txt", nil, 405, ""},
	} {
		res, body := ask(f, test.method, test.path, test.header...)
		if res.StatusCode != test.status || test.body != "" && body != test.body || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %d %q", test.method, test.path, res.StatusCode, body)
		}
	}
	res, _ := ask(f, "GET", "/deep/a.txt")
	tag := res.Header.Get("ETag")
	if res, _ := ask(f, "GET", "/deep/a.txt", "If-None-Match", tag); tag == "" || res.StatusCode != http.StatusNotModified {
		t.Errorf("with the tag %s: %d", tag, res.StatusCode)
	}
	if res, _ := ask(f, "GET", "/deep/a.txt", "If-None-Match", `"other"`); res.StatusCode != http.StatusOK {
		t.Errorf("with another tag: %d", res.StatusCode)
	}
	if res, _ := ask(f, "GET", "/sub?q=1"); res.StatusCode != http.StatusMovedPermanently || res.Header.Get("Location") != "./sub/?q=1" {
		t.Errorf("without a slash: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	if res, _ := ask(f, "GET", "//evil.example/.."); res.Header.Get("Location") != "" && !strings.HasPrefix(res.Header.Get("Location"), "./") {
		t.Errorf("led to %q", res.Header.Get("Location"))
	}
}

func TestListing(t *testing.T) {
	files := map[string]string{".env": "x", "<b>.txt": "x", "javascript:alert(1)": "x", "big.bin": strings.Repeat("x", 3<<10)}
	f := site(t, Options{Listing: true}, files)
	res, body := ask(f, "GET", "/")
	for _, want := range []string{`<a href="./deep/">deep/</a>`, `&lt;b&gt;.txt`, `href="./javascript:alert%281%29"`, "3.0 KiB"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if strings.Contains(body, ".env") || strings.Contains(body, `"../"`) || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%v %s", res.Header, body)
	}
	if _, body := ask(f, "GET", "/deep/"); !strings.Contains(body, `<a href="../">`) {
		t.Errorf("no way up in %s", body)
	}
	if res, _ := ask(site(t, Options{}, files), "GET", "/"); res.StatusCode != http.StatusNotFound {
		t.Errorf("listed against the will: %d", res.StatusCode)
	}
}

func TestSPA(t *testing.T) {
	f := site(t, Options{SPA: true}, map[string]string{index: "<p>app", "app.js": "js"})
	for path, want := range map[string]string{"/": "<p>app", "/users/42": "<p>app", "/deep/": "<p>app", "/app.js": "js"} {
		if res, body := ask(f, "GET", path); res.StatusCode != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, res.StatusCode, body)
		}
	}
	if res, _ := ask(f, "GET", "/missing.js"); res.StatusCode != http.StatusNotFound {
		t.Errorf("a script that is not there: %d", res.StatusCode)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
}

func TestEcho(t *testing.T) {
	r := httptest.NewRequest("POST", "/a?b=c", strings.NewReader("body"))
	r.Header.Set("X-Forwarded-For", "192.0.2.7")
	w := httptest.NewRecorder()
	Echo(w, r)
	got, err := io.ReadAll(w.Result().Body)
	if err != nil || string(got) != "POST /a?b=c HTTP/1.1\nHost: example.com\nX-Forwarded-For: 192.0.2.7\n\nbody" {
		t.Errorf("%q, %v", got, err)
	}
	long := httptest.NewRecorder()
	Echo(long, httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", maxEchoed+10))))
	if body := long.Body.String(); !strings.HasSuffix(body, "… and more") {
		t.Errorf("ends with %q", body[len(body)-20:])
	}
}
