package inspect

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/wgexpose/wgexpose/internal/browser"
)

var pictures = flag.String("pictures", "", "write pictures of the page into this folder")

// TestPage looks at the page as a user does, in a real browser.
func TestPage(t *testing.T) {
	b := browser.Open(t)
	i := open(t, Config{Version: "1.2.3"})
	app := sampleApp(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	start := time.Now()
	go func() { served <- i.Serve(ctx, l, func() Status { return sampleStatus(start) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	page := "http://" + l.Addr().String() + "/"
	meta := Meta{Tunnel: "shop", PublicURL: "https://shop.example.com", Upstream: "http://127.0.0.1:8089"}
	client := through(t, i, app, meta)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	do := func(method, path, body string, header ...string) {
		t.Helper()
		fetch(t, client, method, app.URL+path, body, append(header, "X-Forwarded-For", "198.51.100.23", "Host", "shop.example.com", "User-Agent", "curl/8.14.1")...)
	}

	shoot := func(name string) {
		t.Helper()
		if *pictures == "" {
			return
		}
		b.Eval(`document.querySelector('#toast').textContent = ''`)
		b.Shoot(filepath.Join(*pictures, name))
	}
	step := func(name string, fn func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, func(t *testing.T) { b.In(t); fn(t) }) {
			t.FailNow() // each goes on from where the one before left the page
		}
		b.In(t)
	}

	b.Size(1280, 800, "light")
	b.Navigate(page)
	b.Until(`document.querySelector('#live').textContent === 'live'`)
	b.Until(`document.querySelector('#empty').innerText.includes('https://shop.example.com')`)

	step("requests appear by themselves", func(t *testing.T) {
		do("GET", "/", "")
		b.Until(`document.querySelectorAll('.row').length === 1 && document.querySelector('.row').innerText.includes('200')`)
		do("GET", "/logo.png", "")
		do("GET", "/missing", "")
		do("GET", "/broken", "")
		do("POST", "/login", "user=ada&password=x%26y&remember=on", "Content-Type", "application/x-www-form-urlencoded")
		do("POST", "/upload", "--b0\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nHolidays\r\n--b0\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"sea.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n\xff\x00\x01\r\n--b0--\r\n", "Content-Type", "multipart/form-data; boundary=b0")
		do("POST", "/api/orders?dry=1", `{"customer":"Alan Turing","items":[{"sku":"A-1","n":2}]}`, "Content-Type", "application/json", "Authorization", "Bearer s3cr3t-token", "X-Note", "first")
		do("GET", "/api/orders?page=1", "", "Accept-Encoding", "gzip", "Cookie", "session=5e884898da28; theme=dark")
		b.Until(`document.querySelectorAll('.row').length === 8`)
		b.Until(`document.querySelector('#shown').textContent === '8 requests'`)
	})

	step("detail", func(t *testing.T) {
		b.Key("j") // the newest
		b.Until(`document.querySelector('#detail h2').innerText.includes('GET /api/orders?page=1')`)
		b.Until(`document.querySelector('[data-side=response] pre.json')?.innerText.includes('"customer": "Ada Lovelace"')`)
		b.Until(`document.querySelector('#detail').innerText.includes('gzip,')`)
		b.Until(`document.querySelector('[data-side=response] pre').innerText.includes('<script>alert(1)</script>')`)
		text := b.Eval(`document.querySelector('#detail').innerText`)
		for _, want := range []string{"session=[masked]", "theme=[masked]", "198.51.100.23"} {
			if !strings.Contains(text, want) {
				t.Errorf("the detail has no %q: %s", want, text)
			}
		}
		if strings.Contains(text, "5e884898da28") {
			t.Errorf("the detail shows a secret: %s", text)
		}
		shoot("inspector-light.png")
	})

	step("forms, parts, images, hex", func(t *testing.T) {
		b.Click(`.row:nth-child(4)`)
		b.Until(`[...document.querySelectorAll('[data-side=request] td')].some((e) => e.innerText === 'x&y')`)
		b.Click(`.row:nth-child(3)`)
		b.Until(`document.querySelector('[data-side=request]')?.innerText.includes('sea.bin') && document.querySelector('[data-side=request]').innerText.includes('Holidays')`)
		b.Click(`.row:nth-child(7)`)
		b.Until(`document.querySelector('[data-side=response] img')?.naturalWidth === 160`)
		b.Eval(`[...document.querySelectorAll('[data-side=response] .views button')].find((e) => e.innerText === 'Hex').click()`)
		b.Until(`document.querySelector('[data-side=response] pre.hex').innerText.startsWith('000000  89 50 4e 47')`)
		b.Click(`#tab-timing`)
		b.Until(`document.querySelector('.timing')?.innerText.includes('Waiting for the response') && document.querySelectorAll('.timing rect').length === 3`)
		b.Click(`#tab-exchange`)
	})

	step("filters", func(t *testing.T) {
		b.Click("#more")
		for _, c := range []struct {
			field, value string
			want         int
		}{{"#f-status", "5xx", 1}, {"#f-status", "404", 1}, {"#f-method", "post", 3}, {"#f-path", "ORDERS", 2}, {"#f-min", "100000", 0}, {"#f-text", "Turing", 1}, {"#f-text", "database is not", 1}, {"#f-text", "s3cr3t", 1}} {
			b.Type(c.field, c.value)
			if c.value == "s3cr3t" { // the answer tells it, the request's header does not
				b.Until(`document.querySelectorAll('.row').length === 1`)
			}
			b.Until(fmt.Sprintf(`document.querySelectorAll('.row').length === %d`, c.want))
			if c.field == "#f-status" && c.value == "404" {
				b.Until(`document.querySelector('#active').innerText === '1'`)
			}
			b.Click("#reset")
			b.Until(`document.querySelectorAll('.row').length === 8`)
		}
		b.Click("#more")
	})

	step("replay", func(t *testing.T) {
		b.Click(`.row:nth-child(2)`)
		b.Until(`document.querySelector('#detail h2').innerText.includes('POST /api/orders?dry=1')`)
		b.Eval(`document.activeElement.blur()`)
		b.Key("r")
		b.Until(`document.querySelectorAll('.row').length === 9 && document.querySelector('#detail').innerText.includes('A replay of')`)
		b.Until(`document.querySelector('[data-side=response] pre')?.innerText.includes('"auth": "Bearer s3cr3t-token"')`)
	})

	step("replay with changes", func(t *testing.T) {
		b.Eval(`document.activeElement.blur()`)
		b.Key("e")
		b.Until(`document.querySelector('#editor').open && document.querySelector('#e-body').value.includes('Turing')`)
		shoot("inspector-replay.png")
		b.Type("#e-path", "/api/orders?dry=0")
		b.Type("#e-body", `{"customer":"Emmy Noether"}`)
		b.Eval(`(() => { const e = document.querySelector('#e-headers'); e.value = e.value.replace('X-Note: first', 'X-Note: second'); })()`)
		b.Click("#edit .primary")
		b.Until(`!document.querySelector('#editor').open`)
		b.Until(`(() => { const s = document.querySelector('[data-side=response] pre')?.innerText; return s.includes('"query": "dry=0"') && s.includes('"note": "second"') && s.includes('Emmy Noether') && s.includes('"auth": "Bearer s3cr3t-token"'); })()`)
	})

	step("events while they come", func(t *testing.T) {
		go func() { // it lasts until it is released
			a, err := client.Get(app.URL + "/chat/completions")
			if err == nil {
				_, _ = io.Copy(io.Discard, a.Body)
				a.Body.Close()
			}
		}()
		b.Until(`document.querySelector('.row').innerText.includes('events 5') && document.querySelector('.row').innerText.includes('open')`)
		b.Click(".row")
		b.Until(`document.querySelectorAll('.message').length === 5 && document.querySelector('.messages').innerText.includes('streamed')`)
		do("POST", "/release", "")
		b.Until(`document.querySelectorAll('.message').length === 6 && document.querySelector('.messages').innerText.includes('[DONE]')`)
	})

	step("WebSocket", func(t *testing.T) {
		c, _, err := websocket.Dial(ctx, app.URL+"/socket", &websocket.DialOptions{
			HTTPClient: client, CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		say := func(s string) {
			t.Helper()
			if err := c.Write(ctx, websocket.MessageText, []byte(s)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.Read(ctx); err != nil {
				t.Fatal(err)
			}
		}
		say(`{"type":"join","room":"lobby"}`)
		b.Until(`document.querySelector('.row').innerText.includes('WebSocket 2')`)
		b.Click(".row")
		b.Until(`document.querySelectorAll('.message').length === 2`)
		say(`{"type":"say","text":"is this live?"}`)
		b.Until(`document.querySelectorAll('.message').length === 4 && document.querySelector('.messages').innerText.includes('is this live?')`)
	})

	step("dark", func(t *testing.T) {
		b.Size(1280, 800, "dark")
		dark := `(() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number); return r + g + b < 150; })()`
		b.Until(dark)
		shoot("inspector-websocket-dark.png")
		b.Click("#theme") // light
		b.Until("!" + dark)
		b.Click("#theme") // dark, whatever the system says
		b.Size(1280, 800, "light")
		b.Until(dark)
		b.Click("#theme") // as the system
		b.Until("!" + dark)
	})

	step("status", func(t *testing.T) {
		b.Eval(`document.activeElement.blur()`)
		b.Key("g")
		b.Until(`document.querySelector('#status').innerText.includes('connection refused by 127.0.0.1:22') && document.querySelector('#status').innerText.includes('203.0.113.7:51820')`)
		shoot("inspector-status.png")
		b.Key("Escape")
		b.Until(`document.querySelector('#status').hidden`)
	})

	step("a body that is cut", func(t *testing.T) {
		rush := func(until time.Time) {
			r := &i.ring.rush
			r.mu.Lock()
			defer r.mu.Unlock()
			r.until = until
		}
		rush(time.Now().Add(time.Hour))
		do("POST", "/upload", strings.Repeat("a line of text\n", 3000), "Content-Type", "text/plain")
		b.Until(`document.querySelector('.row').innerText.includes('/upload')`)
		b.Click(".row")
		b.Until(fmt.Sprintf(`document.querySelector('[data-side=request] h3')?.innerText.includes('the first 16 kB are kept: %s')`, rushWhy))
		shoot("inspector-cut.png")
		b.Eval(`document.activeElement.blur()`)
		b.Key("e")
		b.Until(fmt.Sprintf(`document.querySelector('#editor').open && document.querySelector('#e-note').innerText.includes(%q)`, rushWhy))
		b.Click("#e-cancel")
		b.Key("g")
		b.Until(`document.querySelector('#status').innerText.includes('the first 16 kB, while so much comes')`)
		b.Key("Escape")
		b.Until(`document.querySelector('#status').hidden`)
		rush(time.Time{})
	})

	step("phone", func(t *testing.T) {
		b.Size(390, 844, "light")
		b.Until(`document.documentElement.scrollWidth <= 390`)
		shoot("inspector-phone.png")
		b.Until(`[...document.querySelectorAll('.row')].some((e) => e.innerText.includes('page=1'))`)
		b.Eval(`[...document.querySelectorAll('.row')].find((e) => e.innerText.includes('page=1')).click()`)
		b.Until(`document.querySelector('#detail h2').innerText.includes('page=1') && getComputedStyle(document.querySelector('#master')).display === 'none'`)
		b.Until(`document.querySelector('[data-side=response] pre')`)
		b.Until(`document.documentElement.scrollWidth <= 390`)
		shoot("inspector-phone-detail.png")
		b.Click("#back")
		b.Until(`getComputedStyle(document.querySelector('#master')).display !== 'none'`)
		b.Size(1280, 800, "light")
	})

	step("keys, clear", func(t *testing.T) {
		b.Key("?")
		b.Until(`document.querySelector('#keys').open`)
		b.Key("Escape")
		b.Eval(`document.querySelector('#keys').close()`)
		b.Key("/")
		b.Until(`document.activeElement.id === 'f-text'`)
		b.Key("Escape")
		b.Until(`document.activeElement.id === 'list'`)
		b.Key("p")
		do("GET", "/paused", "")
		b.Until(`document.querySelector('#pause').innerText === 'Resume'`)
		b.Key("p")
		b.Until(`document.querySelector('.row').innerText.includes('/paused')`)
		b.Click("#clear")
		b.Until(`document.querySelectorAll('.row').length === 0`)
		if n := len(i.List(Filter{})); n != 0 {
			t.Errorf("%d exchanges are left", n)
		}
	})

	step("a list that was overtaken", func(t *testing.T) {
		do("GET", "/logo.png", "")
		added := b.Call("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": `
			const original = window.fetch;
			window.fetch = async (...a) => {
				const answer = await original(...a);
				if (String(a[0]).includes('requests?limit=2000')) await new Promise((go) => { window.letGo = go; });
				return answer;
			};`})
		b.Navigate(page)
		b.Until(`!!window.letGo`) // the list of one is on its way
		do("GET", "/", "")
		b.Until(`document.querySelectorAll('.row').length === 1`)
		b.Eval(`(window.letGo(), true)`)
		b.Until(`document.querySelectorAll('.row').length === 2`)
		var script struct {
			Identifier string `json:"identifier"`
		}
		if err := json.Unmarshal(added, &script); err != nil {
			t.Fatal(err)
		}
		b.Call("Page.removeScriptToEvaluateOnNewDocument", script)
		b.Click("#clear")
		b.Until(`document.querySelectorAll('.row').length === 0`)
	})

	step("accessible", func(t *testing.T) {
		unnamed := b.Eval(`[...document.querySelectorAll('button, a, input, select, textarea, img')].filter((e) => !(e.innerText || e.ariaLabel || e.title || e.labels?.length || e.hasAttribute('alt'))).map((e) => e.outerHTML)`)
		if unnamed != "[]" {
			t.Errorf("without a name: %s", unnamed)
		}
	})

	// Also what the content security policy refuses would be told here.
	for _, c := range b.Complaints() {
		t.Errorf("the page complains: %s", c)
	}

	step("another site", func(t *testing.T) {
		// A page of another origin can neither read nor change anything.
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<!doctype html><title>other</title>")
		}))
		defer other.Close()
		do("GET", "/", "")
		b.Navigate(strings.Replace(other.URL, "127.0.0.1", "localhost", 1))
		b.Until(`document.title === 'other'`)
		for _, js := range []string{
			`fetch(%q + 'api/v1/requests').then((r) => r.text(), () => 'refused')`,
			`fetch(%q + 'api/requests/http', { method: 'DELETE', mode: 'no-cors' }).then(() => 'sent', () => 'refused')`,
			`fetch(%q + 'api/requests/http', { method: 'POST', mode: 'no-cors', body: '{}' }).then(() => 'refused', () => 'refused')`,
		} {
			if got := b.Eval(fmt.Sprintf(js, page)); got != `"refused"` {
				t.Errorf("%s: %s", js, got)
			}
		}
		if n := len(i.List(Filter{})); n != 1 {
			t.Errorf("%d exchanges are left; want 1", n)
		}
	})
}
