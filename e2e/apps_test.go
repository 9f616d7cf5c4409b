package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/browser"
	"github.com/wgexpose/wgexpose/internal/ports"
)

// Programs that people share, as they come: nothing is set for them but where they
// listen, and nothing for wgexpose but that.

// modules is the folder with apps/ and what they need from npm, or why it cannot
// be had. TestMain removes it.
var modules = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wgexpose-apps-")
	if err != nil {
		return "", err
	}
	madeDirs = append(madeDirs, dir)
	if err := os.CopyFS(dir, os.DirFS("apps")); err != nil {
		return "", err
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, nil
})

// madeDirs are what TestMain removes.
var madeDirs []string

// npmApps is the folder with the programs and their modules. Without npm, or
// without a registry in reach, the test skips, unless tools are required.
func npmApps(t *testing.T) string {
	t.Helper()
	process.Need(t, "node")
	process.Need(t, "npm")
	dir, err := modules()
	switch {
	case err == nil:
		return dir
	case os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1":
		t.Fatal(err)
	}
	t.Skipf("npm's registry cannot be reached: %v", err)
	return ""
}

// listening is what the programs of apps/ say when they are ready.
type listening struct {
	Event      string
	Port, Make int
}

// startNode starts a program of apps/.
func startNode(t *testing.T, dir string, args ...string) (ready listening) {
	t.Helper()
	p := process.Start(t, process.Config{Name: args[0], Path: process.Need(t, "node"), Args: args, Dir: dir})
	p.AwaitOutput(args[0]+" listens", func(out string) bool {
		line, _, whole := strings.Cut(out, "\n")
		return whole && json.Unmarshal([]byte(line), &ready) == nil && ready.Event == "listening"
	})
	return ready
}

// Vite's dev server: the page comes with its modules, and a module that is edited
// is replaced in it over a WebSocket, without a reload.
func TestVite(t *testing.T) {
	dir := npmApps(t)
	_, port, err := net.SplitHostPort(ports.Reserve(t).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(filepath.Join(dir, "vite"))); err != nil {
		t.Fatal(err)
	}
	vite := process.Start(t, process.Config{Name: "vite", Path: process.Need(t, "node"), Dir: dir, Args: []string{
		filepath.Join("node_modules", "vite", "bin", "vite.js"), root, "--host", "127.0.0.1", "--port", port, "--strictPort"}})
	vite.AwaitOutput("Vite listens", func(out string) bool { return strings.Contains(out, port) })
	s := startSystem(t, share{name: "vite", kind: "http", upstream: port})

	b := browser.Open(t, "--ignore-certificate-errors")
	b.Navigate(s.public["vite"])
	b.Until(`document.querySelector('#message').textContent === 'before'`)
	b.Until(`performance.getEntriesByType('resource').some((r) => r.name.endsWith('/@vite/client'))`)
	b.Eval(`window.sameDocument = true`)
	// Vite's page says nothing of its WebSocket. What is edited before that is open is
	// told to nobody, so edits go on until one has arrived.
	edited := make(chan struct{})
	var editing sync.WaitGroup
	editing.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			text := fmt.Sprintf("export const message = 'after %d'\n", n)
			if err := os.WriteFile(filepath.Join(root, "message.js"), []byte(text), 0o600); err != nil {
				t.Error(err)
			}
			select {
			case <-tick.C:
			case <-edited:
				return
			}
		}
	})
	defer editing.Wait()
	defer close(edited)
	b.Until(`document.querySelector('#message').textContent.startsWith('after') && window.sameDocument`)
}

// A chat on socket.io, in a browser: one side by WebSocket, the other by polling.
func TestSocketIO(t *testing.T) {
	dir := npmApps(t)
	ready := startNode(t, dir, "chat/server.js")
	s := startSystem(t, share{name: "chat", kind: "http", upstream: strconv.Itoa(ready.Port)})
	b := browser.Open(t, "--ignore-certificate-errors")
	b.Navigate(s.public["chat"])
	got := b.Eval(`new Promise((done, failed) => {
		const one = io({ transports: ['websocket'] }), two = io({ transports: ['polling'] })
		const heard = {}
		const look = () => { if (heard.one && heard.two && heard.by?.length === 2) done(heard) }
		one.on('said', (text) => { heard.one = text; look() })
		two.on('said', (text) => { heard.two = text; look() })
		for (const socket of [one, two]) socket.on('connect_error', failed)
		Promise.all([one, two].map((s) => new Promise((up) => s.on('connect', up)))).then(async () => {
			heard.by = [await one.emitWithAck('say', 'hello from one'), await two.emitWithAck('say', 'hello from two')]
			look()
		})
	})`)
	if want := `{"by":["websocket","polling"],"one":"hello from two","two":"hello from one"}`; !sameJSON(got, want) {
		t.Errorf("heard %s, want %s", got, want)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	first, err := json.Marshal(x)
	second, err2 := json.Marshal(y)
	return err == nil && err2 == nil && string(first) == string(second)
}

// A model's server: each token arrives before the next one is made, chunked and as
// an event, and an upload of 200 MB arrives whole.
func TestTokens(t *testing.T) {
	process.Need(t, "node")
	ready := startNode(t, "apps", "tokens/server.js")
	s := startSystem(t, share{name: "llm", kind: "http", upstream: strconv.Itoa(ready.Port)})
	client := s.client(true)
	makeToken := func(token string) {
		t.Helper()
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", ready.Make, token))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	for _, kind := range []struct{ path, format, end string }{
		{"/chunked", "%s ", ""},
		{"/events", "data: {\"token\":\"%s\"}\n\n", "data: [DONE]\n\n"},
	} {
		answer, err := client.Get(s.public["llm"] + kind.path)
		if err != nil {
			t.Fatal(err)
		}
		body := bufio.NewReader(answer.Body)
		for _, token := range []string{"Once", "upon", "a", "time"} {
			makeToken(token)
			want := fmt.Sprintf(kind.format, token)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(body, got); err != nil || string(got) != want {
				t.Fatalf("%s: got %q, %v; want %q", kind.path, got, err, want)
			}
		}
		makeToken("")
		if rest, err := io.ReadAll(body); err != nil || string(rest) != kind.end {
			t.Errorf("%s ended with %q, %v", kind.path, rest, err)
		}
		answer.Body.Close()
	}

	const size = 200 << 20
	read, write := io.Pipe()
	form := multipart.NewWriter(write)
	sent := sha256.New()
	var length int64
	go func() {
		part, err := form.CreateFormFile("model", "weights.bin")
		if err == nil {
			_, err = io.Copy(part, origin.Data(size))
		}
		if err == nil {
			err = form.Close()
		}
		write.CloseWithError(err)
	}()
	answer, err := client.Post(s.public["llm"]+"/upload", form.FormDataContentType(), io.TeeReader(read, counted{sent, &length}))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var got struct {
		Length int64
		SHA256 string
		Type   string
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Length != length || got.Length <= size || got.SHA256 != hex.EncodeToString(sent.Sum(nil)) || got.Type != form.FormDataContentType() {
		t.Errorf("%d bytes arrived as %+v", length, got)
	}
}

// counted counts what goes into a hash.
type counted struct {
	io.Writer
	n *int64
}

func (c counted) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return c.Writer.Write(p)
}

// python3 -m http.server: a listing, and a file as large as a video.
func TestPythonServer(t *testing.T) {
	python := process.Need(t, "python3")
	folder := t.TempDir()
	f, err := os.Create(filepath.Join(folder, "film.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 20 << 20
	if _, err := io.Copy(f, origin.Data(size)); err != nil {
		t.Fatal(err)
	}
	p := process.Start(t, process.Config{Name: "python", Path: python, Dir: folder, Env: []string{"PYTHONUNBUFFERED=1"},
		Args: []string{"-m", "http.server", "--bind", "127.0.0.1", "0"}})
	var port int
	p.AwaitOutput("it listens", func(out string) bool {
		_, rest, found := strings.Cut(out, "Serving HTTP on 127.0.0.1 port ")
		n, err := fmt.Sscanf(rest, "%d ", &port)
		return found && n == 1 && err == nil
	})
	s := startSystem(t, share{name: "files", kind: "http", upstream: strconv.Itoa(port)})
	for _, http2 := range []bool{false, true} {
		client := s.client(http2)
		answer, err := client.Get(s.public["files"] + "/")
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || !strings.Contains(string(page), `href="film.bin"`) {
			t.Errorf("the listing is %q, %v", page, err)
		}
		if answer, err = client.Get(s.public["files"] + "/film.bin"); err != nil {
			t.Fatal(err)
		}
		_, got, err := origin.Sum(answer.Body)
		answer.Body.Close()
		_, want, wantErr := origin.Sum(origin.Data(size))
		if err != nil || wantErr != nil || got != want {
			t.Errorf("the file arrived as %s, %v; want %s", got, err, want)
		}
	}
}

// A server of this machine with a certificate of its own making: TLS to it is not
// checked, as nobody else can be there.
func TestSelfSigned(t *testing.T) {
	process.Need(t, "node")
	cert, key := selfSigned(t)
	ready := startNode(t, "apps", "tls/server.js", cert, key)
	s := startSystem(t,
		share{name: "own", kind: "http", upstream: fmt.Sprintf("https://127.0.0.1:%d", ready.Port)},
		share{name: "strict", kind: "http", upstream: fmt.Sprintf("https://localhost:%d", ready.Port), more: "upstream_tls_verify: true"})
	for name, want := range map[string]struct {
		status int
		text   string
	}{
		"own":    {http.StatusOK, "hello over TLS, for " + s.host("own")},
		"strict": {http.StatusBadGateway, "--upstream-tls-verify=false accepts it"},
	} {
		answer, err := s.client(true).Get(s.public[name])
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != want.status || !strings.Contains(string(body), want.text) {
			t.Errorf("%s: %s %q, %v; want %q", name, answer.Status, body, err, want.text)
		}
	}
}

// selfSigned writes a certificate for localhost and its key.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8)
}
