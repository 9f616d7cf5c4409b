package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// curl runs it as a user would, with the edge's CA trusted, and returns what it
// printed.
func (s *system) curl(args ...string) string {
	s.t.Helper()
	return process.Run(s.t, process.Config{
		Path: process.Need(s.t, "curl"),
		Args: append([]string{"--silent", "--show-error", "--max-time", "60", "--cacert", s.ca}, args...),
	})
}

func TestCurl(t *testing.T) {
	process.Need(t, "curl")
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	base := s.public["web"]
	if want := "https://web." + domain + ":"; !strings.HasPrefix(base, want) {
		t.Errorf("public address %q, want %s…", base, want)
	}

	for flag, version := range map[string]string{"--http1.0": "1", "--http1.1": "1.1", "--http2": "2"} {
		t.Run("HTTP "+version, func(t *testing.T) {
			if got, want := s.curl(flag, "--write-out", "%{http_version} %{http_code}", base+"/"), origin.Greeting+version+" 200"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			var seen origin.Seen
			out := s.curl(flag, base+"/request", "--header", "X-Forwarded-For: 203.0.113.7", "--header", "X-Real-IP: 203.0.113.7")
			if err := json.Unmarshal([]byte(out), &seen); err != nil {
				t.Fatalf("%v in %q", err, out)
			}
			if seen.Host != s.host("web") {
				t.Errorf("the origin saw host %q, want %q", seen.Host, s.host("web"))
			}
			for header, want := range map[string]string{
				"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1",
				"X-Forwarded-Proto": "https", "X-Forwarded-Host": s.host("web"),
			} {
				if got := strings.Join(seen.Header.Values(header), ", "); got != want {
					t.Errorf("the origin saw %s %q, want %q", header, got, want)
				}
			}
			file := filepath.Join(t.TempDir(), "body")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadFrom(origin.Data(5 << 20)); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			n, sum, err := origin.Sum(origin.Data(5 << 20))
			if err != nil {
				t.Fatal(err)
			}
			var up origin.Upload
			out = s.curl(flag, "--data-binary", "@"+file, base+"/upload")
			if err := json.Unmarshal([]byte(out), &up); err != nil || up.Length != n || up.SHA256 != sum {
				t.Errorf("uploaded %d %s, the origin got %+v (%v)", n, sum, up, err)
			}
		})
	}

	t.Run("redirect to HTTPS", func(t *testing.T) {
		got := s.curl("--write-out", "%{http_code} %{redirect_url}", "--output", os.DevNull,
			"--header", "Host: "+strings.TrimPrefix(base, "https://"), "http://"+s.ready.HTTP+"/path?q=1")
		if want := "308 " + base + "/path?q=1"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	_, port, err := net.SplitHostPort(s.ready.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the domain itself", func(t *testing.T) {
		got := s.curl("--write-out", "%{http_code} %header{wgexpose-error}", "--output", os.DevNull, "https://"+domain+":"+port+"/")
		if want := "404 unknown_host"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("a name without a tunnel", func(t *testing.T) {
		// No certificate covers it, and none is made for it.
		p := process.Start(t, process.Config{Name: "curl", Path: process.Need(t, "curl"), Args: []string{
			"--silent", "--show-error", "--max-time", "60", "--insecure", "https://nobody." + domain + ":" + port + "/",
		}})
		if code := p.Wait(); code != 35 { // CURLE_SSL_CONNECT_ERROR
			t.Errorf("curl ended with %d: %s", code, p.Stderr())
		}
	})
}
