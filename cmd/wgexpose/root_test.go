package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/control"
)

// Every command must be explained the same way.
func TestHelpOfEveryCommand(t *testing.T) {
	var a app
	var visit func(path string)
	visited := 0
	visit = func(path string) {
		root := a.rootCommand()
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		visited++
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("wgexpose%s: no short description or no example", path)
		}
		if cmd.Long == "" {
			t.Errorf("wgexpose%s: no long description", path)
		}
		var stdout, stderr strings.Builder
		args := append(strings.Fields(path), "--help")
		if code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != 0 {
			t.Errorf("wgexpose%s --help: exit %d: %s", path, code, stderr.String())
		}
		if !strings.Contains(stdout.String(), cmd.Example) || stderr.Len() > 0 {
			t.Errorf("wgexpose%s --help prints no example, or something on stderr %q", path, stderr.String())
		}
		for _, sub := range cmd.Commands() {
			visit(path + " " + sub.Name())
		}
	}
	visit("")
	if visited < 20 {
		t.Errorf("only %d commands", visited)
	}
}

// What was given and cannot be right ends with 2, wherever that is found out; what the
// machine lacks ends with 1.
func TestExitCodesOfWhatIsGiven(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, filepath.Join(dir, "home"))
	}
	for name, text := range map[string]string{
		"empty": "", "plain": "a file", "bare.yml": "log_level: info\n", "broken.yml": "tunnels: [",
		"bad.yml":  "tunnels: {app: {kind: smtp, upstream: 25}}\n",
		"same.yml": "tunnels: {a: {kind: tcp, upstream: 1, port: 20000}, b: {kind: tcp, upstream: 2, port: 20000}}\n",
		"gone.yml": "tunnels: {a: {kind: http, upstream: \"file:///nonexistent\"}}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writePair(t, "a")
	writePair(t, "b")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	edge := "edge --state edge --domain example.test --endpoint 127.0.0.1 --tls internal --listen-https 127.0.0.1:0 --listen-http off --listen-wg 127.0.0.1:0 --listen-tcp 127.0.0.1 "
	for _, test := range []struct {
		args, stdin string
		want        int
		says        string
		help        bool // leads to --help
	}{
		{args: "nonsense", want: 2, says: "unknown command", help: true},
		{args: "http", want: 2, says: "TARGET is missing", help: true},
		{args: "http foo/bar", want: 2, says: "TARGET", help: true},
		{args: "http 8089 --loud", want: 2, says: "unknown flag", help: true},
		{args: "http 8089 --mtu 7", want: 2, says: "--mtu", help: true},
		{args: "http --app klingon", want: 2, says: "there is: echo", help: true},
		{args: "http 8089 --state plain", want: 2, says: "is not a directory"},
		{args: "serve /nonexistent", want: 2, says: "/nonexistent"},
		{args: "serve plain", want: 2, says: "not a directory"},
		{args: "up --config /nonexistent", want: 2, says: "/nonexistent: the configuration cannot be read"},
		{args: "up --config .", want: 2, says: "is a directory"},
		{args: "up --config broken.yml", want: 2, says: "broken.yml:1"},
		{args: "up --config bad.yml", want: 2, says: "tunnels.app.kind"},
		{args: "up --config same.yml", want: 2, says: "tunnels.b.port"},
		{args: "up --config gone.yml", want: 2, says: "/nonexistent"},
		{args: "up --config bare.yml", want: 2, says: "names no tunnels"},
		{args: "up", want: 2, says: "there is no "},
		{args: "up --config same.yml --all a", want: 2, says: "not both", help: true},
		{args: "join foo", want: 2, says: "no invite"},
		{args: "join wgx1_foo", want: 2, says: "invite"},
		{args: "join --token-file /nonexistent", want: 2, says: "/nonexistent"},
		{args: "join --token-file empty", want: 2, says: "empty is empty"},
		{args: "join -", want: 2, says: "standard input is empty"},
		{args: "join -", stdin: "foo\n", want: 2, says: "no invite"},
		{args: "join a --token-file b", want: 2, says: "not both", help: true},
		{args: "config check --config /nonexistent", want: 2, says: "/nonexistent"},
		{args: "config check nonsense", want: 2, says: "agent, edge", help: true},
		{args: "config show edge --config broken.yml", want: 2, says: "broken.yml:1"},
		{args: "import /nonexistent", want: 2, says: "/nonexistent"},
		{args: "import plain", want: 2, says: "ngrok"},
		{args: "service install -- --config /nonexistent", want: 2, says: "write it first"},
		{args: "service install nonsense", want: 2, says: "agent, edge", help: true},
		{args: edge + "--cert-file a.pem --key-file b.key", want: 2, says: "a.pem with the key in b.key"},
		{args: edge + "--cert-file /nonexistent --key-file b.key", want: 2, says: "/nonexistent"},
		{args: edge + "--certs /nonexistent", want: 2, says: "/nonexistent"},
		{args: edge + "--tls acme --domain example.com --acme-ca https://127.0.0.1:1/directory --acme-root empty", want: 2, says: "empty holds no certificate"},
		{args: edge + "--endpoint a:b:c", want: 2, says: "--endpoint", help: true},
		{args: "edge invite --state edge --name a/b", want: 2, says: "a/b", help: true},

		{args: "http 8089", want: 1, says: "has not joined"},
		{args: "status", want: 1, says: "has not joined"},
		{args: "ca", want: 1, says: "no internal CA"},
		{args: "edge revoke nobody --state edge", want: 1, says: "no agent"},
		{args: edge + "--listen-https " + taken.Addr().String(), want: 1, says: "another program has this port"},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr strings.Builder
			// A command that takes what it was given would go on for ever.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			got := run(ctx, strings.Fields(test.args), strings.NewReader(test.stdin), &stdout, &stderr)
			if got != test.want || !strings.Contains(stderr.String(), test.says) {
				t.Errorf("exit code %d, want %d, with %q:\n%s", got, test.want, test.says, stderr.String())
			}
			if helps := strings.Contains(stderr.String(), "--help' for help"); helps != test.help {
				t.Errorf("leads to --help: %v, want %v:\n%s", helps, test.help, stderr.String())
			}
		})
	}
}

// writePair writes a certificate and its key as NAME.pem and NAME.key.
func writePair(t *testing.T, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.test"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: cert}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	a := &app{started: true}
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), exitFailure},
		{usagef("x"), exitUsage},
		{fmt.Errorf("share: %w", usagef("x")), exitUsage},
		{fmt.Errorf("publish: %w", &control.Error{Code: control.CodeNameTaken}), exitRefused},
		{&control.Error{Code: control.CodeRevoked}, exitRefused},
		{&control.Error{Code: "of a newer edge"}, exitRefused},
		{&control.Error{Code: control.CodeUnavailable}, exitFailure},
		{&control.Error{Code: agent.CodeNameInUse}, exitFailure},
	} {
		if got := a.exitCode(test.err); got != test.want {
			t.Errorf("exit code of %v is %d, want %d", test.err, got, test.want)
		}
	}
	a.started = false
	if got := a.exitCode(errors.New("unknown flag")); got != exitUsage {
		t.Errorf("before a command begins the exit code is %d, want %d", got, exitUsage)
	}
}

func TestDrainOnSignal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot interrupt itself on Windows")
	}
	ctx, stop := drainOnSignal(t.Context())
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
}
