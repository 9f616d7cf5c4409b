package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wgexpose": main})
}

// patience is how long a script waits for what must happen at some time.
const patience = time.Minute

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("WGEXPOSE_WEB_ADDR", "127.0.0.1:0")
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
			running := make(processes)
			env.Values[processesKey{}] = running
			env.Values[scriptKey{}] = &script{}
			env.Defer(running.killAll)
			return os.MkdirAll(filepath.Join(home, "run"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":     startProcess,
			"await":     awaitLine,
			"interrupt": stopProcess,
			"ended":     endedProcess,
			"code":      exitsWith,
			"logged":    awaitLog,
			"kill2":     killTwice,
			"dump":      dumpProcess,
			"visit":     visit,
			"upstream":  startUpstream,
			"expand":    expand,
			"fetch":     fetch,
			"talk":      talk,

			"notifysocket": notifySocket,
			"notified":     notified,
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
}

// upstream HTTP TCP: starts a web server and an echo, and sets the variables
// to their ports.
func startUpstream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: upstream HTTPVAR TCPVAR")
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "upstream %s for %s\n", r.URL.Path, r.Host)
		if r.URL.Path == "/endless" {
			_ = http.NewResponseController(w).Flush() // the visitor may be gone
			<-r.Context().Done()
		}
	}))
	ts.Defer(func() {
		web.CloseClientConnections() // the agent is still there, with requests of its own
		web.Close()
	})
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)

	echo, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveEcho(ctx, echo) }()
	ts.Defer(func() { cancel(); <-done })
	_, port, err = net.SplitHostPort(echo.Addr().String())
	ts.Check(err)
	ts.Setenv(args[1], port)
}

// expand FILE: puts the values of variables into a file.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: expand FILE")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// fetch [-ca FILE] URL ADDRESS: gets the URL from the address, and prints the
// status and the body.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	roots := x509.NewCertPool()
	if len(args) == 4 && args[0] == "-ca" {
		if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[1]))) {
			ts.Fatalf("%s has no certificate", args[1])
		}
		args = args[2:]
	}
	if len(args) != 2 {
		ts.Fatalf("usage: fetch [-ca FILE] URL ADDRESS")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, args[1])
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	ts.Check(err)
	answer, err := client.Do(request)
	if neg {
		if err == nil {
			answer.Body.Close()
			ts.Fatalf("answered %s", answer.Status)
		}
		fmt.Fprintln(ts.Stdout(), err)
		return
	}
	ts.Check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n%s\n%s", answer.Status, answer.Header.Get("Wgexpose-Error"), body)
}

// visit URL ADDRESS: begins a request, and goes on while its answer is not
// complete.
func visit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: visit URL ADDRESS")
	}
	target, err := url.Parse(args[0])
	ts.Check(err)
	c, err := net.DialTimeout("tcp", args[1], patience)
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target.Path, target.Host)
	ts.Check(err)
	status, err := bufio.NewReader(c).ReadString('\n')
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), status)
}

// talk ADDRESS TEXT: sends the text over TCP, ends its half, and prints all
// that comes back.
func talk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: talk ADDRESS TEXT")
	}
	c, err := net.DialTimeout("tcp", args[0], patience)
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, args[1])
	ts.Check(err)
	ts.Check(c.(*net.TCPConn).CloseWrite())
	_, err = io.Copy(ts.Stdout(), c)
	ts.Check(err)
}
