package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/wgexpose/wgexpose/internal/logbuf"
)

// The demo is the first thing that people see, so all that it promises is
// tried: the addresses, and the curl line as it is printed.
func TestDemo(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // Windows
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	demoCtx, stop := context.WithCancel(ctx)
	defer stop()

	stdout, printed := io.Pipe()
	var stderr logbuf.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(demoCtx, []string{"demo", "--listen-https", "127.0.0.1:0"}, strings.NewReader(""), printed, &stderr)
		printed.Close()
	}()
	curl := regexp.MustCompile(`^  curl --cacert (\S+) --resolve (demo\.localhost:\d+):(\S+) (https://(demo\.localhost:\d+)/)$`)
	echo := regexp.MustCompile(`^  tcp echo +tcp://(localhost:\d+)$`)
	var line, echoAt []string
	scan := bufio.NewScanner(stdout)
	for line == nil && scan.Scan() {
		if m := echo.FindStringSubmatch(scan.Text()); m != nil {
			echoAt = m
		}
		line = curl.FindStringSubmatch(scan.Text())
	}
	if line == nil {
		t.Fatalf("the demo ended with %d without its curl line:\n%s", <-code, stderr.String())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(io.Discard, stdout)
	}()
	if line[2] != line[5] {
		t.Errorf("--resolve is for %s and the URL for %s", line[2], line[5])
	}
	_, port, err := net.SplitHostPort(line[2])
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(line[1])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the CA file")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort(line[3], port))
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	get := func(path string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, line[4]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, answer.Status, err)
		}
		return string(body)
	}

	if page := get(""); !strings.Contains(page, "<h1>It works</h1>") {
		t.Errorf("the page is\n%s", page)
	}
	for _, asset := range []string{"app.js", "style.css", "icon.svg"} {
		if get(asset) == "" {
			t.Errorf("%s is empty", asset)
		}
	}
	var told struct{ Visitor, Host, App string }
	if err := json.Unmarshal([]byte(get("whoami")), &told); err != nil {
		t.Fatal(err)
	}
	if told.Visitor != "127.0.0.1" || told.Host != line[2] || told.App == "" {
		t.Errorf("the app was told %+v", told)
	}
	if got := get("stream"); got != streamText+"\n" {
		t.Errorf("streamed %q", got)
	}

	target, err := url.Parse(line[4])
	if err != nil {
		t.Fatal(err)
	}
	target.Scheme, target.Path = "wss", "/echo"
	ws, _, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"hello", "", strings.Repeat("x", 30_000)} {
		if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != message {
			t.Fatalf("%d bytes for %d, %v", len(got), len(message), err)
		}
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}

	if echoAt == nil {
		t.Fatal("no address for the echo")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.Replace(echoAt[1], "localhost", "127.0.0.1", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(conn); err != nil || string(back) != "hello" {
		t.Errorf("the echo says %q, %v", back, err)
	}

	stop()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d:\n%s", got, stderr.String())
	}
	<-drained
	left, err := filepath.Glob(filepath.Join(temp, "wgexpose-demo-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Words must leave one by one, not when the answer is complete.
func TestStreamIsNotBuffered(t *testing.T) {
	handler, err := demoApp()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveHTTP(ctx, ln, handler) }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ln.Addr().String()+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	first := make([]byte, 4096)
	n, err := answer.Body.Read(first)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(first[:n]); !strings.HasPrefix(streamText, got) || len(got) >= len(streamText) {
		t.Errorf("the first read has %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/wgexpose-demo-1/ca.pem": "/tmp/wgexpose-demo-1/ca.pem",
		"/tmp/a b":                    "'/tmp/a b'",
		"it's":                        `'it'\''s'`,
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 90 * time.Minute: "1h", 47 * time.Hour: "47h", 72 * time.Hour: "3d", 2 * time.Minute: "2m",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %s, want %s", d, got, want)
		}
	}
}
