// Package browser drives a headless Chromium in tests, by the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/):
//
//	b := browser.Open(t)
//	b.Navigate("http://127.0.0.1:4040/")
//	b.Until(`document.querySelectorAll('.row').length === 1`)
//
// A test skips where there is no Chromium, unless WGEXPOSE_REQUIRE_TOOLS is 1.
// It is for tests only.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Browser is a headless Chromium with one page.
type Browser struct {
	t       *testing.T
	ctx     context.Context
	conn    *websocket.Conn
	session string

	mu      sync.Mutex // guards what follows
	next    int
	waiting map[int]chan cdpReply
	console []string // what went wrong in the page
	done    chan struct{}
}

type object map[string]any

type cdpReply struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Open starts Chromium, until the test ends. Further flags of its command line may
// be given; without --enable-quic it speaks no HTTP/3.
func Open(t *testing.T, flags ...string) *Browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	switch {
	case path != "":
	case os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1":
		t.Fatal("there is no chromium; install it (Debian: apt-get install --no-install-recommends chromium)")
	default:
		t.Skip("there is no chromium here (Debian: apt-get install --no-install-recommends chromium)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	// Not t.TempDir: Chromium's helpers may still write while it is removed.
	profile, err := os.MkdirTemp("", "wgexpose-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(flags, "--enable-quic") {
		flags = append(flags, "--disable-quic")
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--headless=new", "--remote-debugging-port=0", "--user-data-dir=" + profile, "--no-sandbox", "--disable-gpu",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--hide-scrollbars", "--force-color-profile=srgb"}, append(flags, "about:blank")...)...)
	cmd.Env = append(os.Environ(), "HOME="+profile, "DBUS_SESSION_BUS_ADDRESS=disabled:")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed by then
		_ = os.RemoveAll(profile)
	})
	address := make(chan string, 1)
	go func() {
		defer close(address)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if _, url, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
				address <- url
			}
		}
	}()
	url, ok := <-address
	if !ok {
		t.Fatal("chromium ended before it could be driven")
	}
	b := &Browser{t: t, ctx: ctx, waiting: map[int]chan cdpReply{}, done: make(chan struct{})}
	b.conn, _, err = websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.conn.SetReadLimit(64 << 20)
	go b.read()
	t.Cleanup(func() {
		b.conn.CloseNow()
		<-b.done
	})
	target := fromJSON[struct{ TargetID string }](t, string(b.Call("Target.createTarget", object{"url": "about:blank"})))
	b.session = fromJSON[struct{ SessionID string }](t, string(b.Call("Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}))).SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.Call(domain+".enable", nil)
	}
	return b
}

// In has what follows belong to t, a part of the test.
func (b *Browser) In(t *testing.T) { b.t = t }

func (b *Browser) read() {
	defer close(b.done)
	for {
		_, data, err := b.conn.Read(b.ctx)
		if err != nil {
			b.mu.Lock()
			for _, w := range b.waiting {
				close(w)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		var r cdpReply
		if json.Unmarshal(data, &r) != nil {
			continue
		}
		b.mu.Lock()
		if w := b.waiting[r.ID]; w != nil && r.ID != 0 {
			w <- r
			delete(b.waiting, r.ID)
		}
		switch r.Method {
		case "Runtime.exceptionThrown", "Log.entryAdded":
			b.console = append(b.console, string(r.Params))
		}
		b.mu.Unlock()
	}
}

// Call calls a method of the protocol.
func (b *Browser) Call(method string, params any) json.RawMessage {
	b.t.Helper()
	result, refusal := b.ask(method, params)
	if refusal != "" {
		b.t.Fatalf("%s: %s", method, refusal)
	}
	return result
}

// ask is Call that returns what Chromium has against it.
func (b *Browser) ask(method string, params any) (result json.RawMessage, refusal string) {
	b.t.Helper()
	if params == nil {
		params = object{}
	}
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		b.t.Fatal("chromium has gone")
	}
	b.next++
	id, reply := b.next, make(chan cdpReply, 1)
	b.waiting[id] = reply
	b.mu.Unlock()
	message := object{"id": id, "method": method, "params": params}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	data, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.conn.Write(b.ctx, websocket.MessageText, data); err != nil {
		b.t.Fatal(err)
	}
	r, ok := <-reply
	switch {
	case !ok:
		b.t.Fatalf("%s: chromium has gone", method)
	case r.Error != nil:
		return nil, r.Error.Message
	}
	return r.Result, ""
}

// Eval evaluates JavaScript in the page, promises included, as JSON.
func (b *Browser) Eval(js string) string {
	b.t.Helper()
	value, refusal := b.evaluate(js)
	if refusal != "" {
		b.t.Fatalf("%s: %s", js, refusal)
	}
	return value
}

func (b *Browser) evaluate(js string) (value, refusal string) {
	b.t.Helper()
	raw, refusal := b.ask("Runtime.evaluate", object{"expression": js, "awaitPromise": true, "returnByValue": true, "userGesture": true})
	if refusal != "" {
		return "", refusal
	}
	r := fromJSON[struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}](b.t, string(raw))
	if e := r.ExceptionDetails; e != nil {
		b.t.Fatalf("%s: %s %s", js, e.Text, e.Exception.Description)
	}
	return string(r.Result.Value), ""
}

// Until waits for a condition in the page, looking at each frame that it draws.
func (b *Browser) Until(js string) {
	b.t.Helper()
	look := fmt.Sprintf(`new Promise((done) => {
		const late = Date.now() + 60000;
		const look = () => { let ok = false; try { ok = %s; } catch (e) { ok = false; } if (ok) done(true); else if (Date.now() > late) done(false); else setTimeout(look, 20); };
		look();
	})`, js)
	got, refusal := b.evaluate(look)
	// A page that is just being left takes the question with it.
	for try := 0; refusal != "" && try < 20; try++ {
		got, refusal = b.evaluate(look)
	}
	if refusal != "" {
		b.t.Fatalf("%s: %s", js, refusal)
	}
	if got != "true" {
		b.t.Fatalf("never: %s; the page reads %s", js, b.Eval("document.body.innerText"))
	}
}

// Navigate opens a page, and waits until it is loaded.
func (b *Browser) Navigate(url string) {
	b.t.Helper()
	b.Call("Page.navigate", object{"url": url})
	b.Until(`document.readyState === 'complete' && location.href !== 'about:blank'`)
}

// Size sets what the page is seen in, and with which colours.
func (b *Browser) Size(width, height int, scheme string) {
	b.t.Helper()
	b.Call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.Call("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}}})
}

// Key presses a key as a user does.
func (b *Browser) Key(key string) {
	b.t.Helper()
	down := object{"type": "keyDown", "key": key}
	if len(key) == 1 {
		down["text"] = key
	}
	b.Call("Input.dispatchKeyEvent", down)
	b.Call("Input.dispatchKeyEvent", object{"type": "keyUp", "key": key})
}

// Click clicks in the middle of what a selector finds.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	b.Until(fmt.Sprintf("document.querySelector(%q)", selector))
	at := fromJSON[struct{ X, Y float64 }](b.t, b.Eval(fmt.Sprintf(
		`(() => { const e = document.querySelector(%q); e.scrollIntoView({ block: 'nearest' }); const r = e.getBoundingClientRect(); return { x: r.x + r.width / 2, y: r.y + r.height / 2 }; })()`, selector)))
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		b.Call("Input.dispatchMouseEvent", object{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1})
	}
}

// Type types into a field, in place of what it has.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	b.Eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.focus(); e.select(); })()`, selector))
	if text == "" {
		b.Key("Backspace")
		b.Eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.value = ''; e.dispatchEvent(new Event('input', { bubbles: true })); })()`, selector))
		return
	}
	b.Call("Input.insertText", object{"text": text})
}

// Shoot writes a picture of the page into a file.
func (b *Browser) Shoot(file string) {
	b.t.Helper()
	// Two frames: what was changed is drawn then.
	b.Eval(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`)
	r := fromJSON[struct{ Data string }](b.t, string(b.Call("Page.captureScreenshot", object{"format": "png"})))
	png, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// Complaints are the errors that the page met, such as a refused script.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.console...)
}

func fromJSON[T any](t testing.TB, s string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return v
}
